//! The grammar of Dockerfiles: parser directives, comments, continued lines, flags, JSON and shell forms.
//!
//! Nothing is substituted or carried out here. What this builder lacks is refused here already, before anything is
//! done.
//!
//! Source: docs.docker.com/reference/dockerfile; github.com/moby/buildkit, `frontend/dockerfile/parser`.

use bireme_core::nearest::nearest;

use crate::error::ImageError;

/// Each stage has a configuration of its own as long as the build goes on, and each instruction is a step.
const MOST_INSTRUCTIONS: usize = 10_000;
const MOST_STAGES: usize = 256;

const KNOWN: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A whole Dockerfile.
#[derive(Debug)]
pub(super) struct Dockerfile {
    /// `\` or a backtick.
    pub(super) escape: char,
    /// `ARG` before the first `FROM`.
    pub(super) globals: Vec<Instruction>,
    pub(super) stages: Vec<StageText>,
}

/// One stage: its `FROM` and what follows.
#[derive(Debug)]
pub(super) struct StageText {
    pub(super) from: Instruction,
    /// In lower case.
    pub(super) name: Option<String>,
    pub(super) body: Vec<Instruction>,
}

/// One instruction on however many lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Where it begins, counted from 1.
    pub(super) line: usize,
    /// In upper case.
    pub(super) keyword: String,
    /// `--name[=value]`.
    pub(super) flags: Vec<(String, Option<String>)>,
    /// What follows the flags, on one line.
    pub(super) rest: String,
}

impl Instruction {
    pub(super) fn fault(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Dockerfile { line: self.line, reason: reason.into() }
    }

    pub(super) fn lacking(&self, what: &str, reason: impl Into<String>) -> ImageError {
        ImageError::Instruction { line: self.line, instruction: what.to_owned(), reason: reason.into() }
    }

    /// The exec form, if the rest is a JSON array of strings.
    pub(super) fn json(&self) -> Option<Vec<String>> {
        if !self.rest.starts_with('[') {
            return None;
        }
        serde_json::from_str(&self.rest).ok()
    }

    /// As it stands, on one line.
    pub(super) fn text(&self) -> String {
        let mut text = self.keyword.clone();
        for (name, value) in &self.flags {
            text.push_str(" --");
            text.push_str(name);
            if let Some(value) = value {
                text.push('=');
                text.push_str(value);
            }
        }
        if !self.rest.is_empty() {
            text.push(' ');
            text.push_str(&self.rest);
        }
        text
    }
}

impl Dockerfile {
    pub(super) fn parse(text: &str) -> Result<Self, ImageError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let escape = directives(text)?;
        let mut dockerfile = Self { escape, globals: Vec::new(), stages: Vec::new() };
        let mut count = 0;
        for (line, logical) in logical_lines(text, escape) {
            count += 1;
            if count > MOST_INSTRUCTIONS || dockerfile.stages.len() > MOST_STAGES {
                let reason = format!(
                    "a Dockerfile has at most {MOST_INSTRUCTIONS} instructions in {MOST_STAGES} stages: divide it"
                );
                return Err(ImageError::Dockerfile { line, reason });
            }
            let instruction = instruction(line, &logical)?;
            match (instruction.keyword.as_str(), dockerfile.stages.last_mut()) {
                ("FROM", _) => {
                    let name = stage_name(&instruction)?;
                    dockerfile.stages.push(StageText { from: instruction, name, body: Vec::new() });
                }
                (_, Some(stage)) => stage.body.push(instruction),
                ("ARG", None) => dockerfile.globals.push(instruction),
                (keyword, None) => {
                    return Err(instruction
                        .fault(format!("no build stage in current context: {keyword} before the first FROM")));
                }
            }
        }
        if dockerfile.stages.is_empty() {
            return Err(ImageError::Dockerfile {
                line: 1,
                reason: "file with no instructions: it needs a FROM".to_owned(),
            });
        }
        Ok(dockerfile)
    }
}

/// Reads `# name=value` lines at the top; answers the escape character.
fn directives(text: &str) -> Result<char, ImageError> {
    let mut escape = '\\';
    let mut seen = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        let name = name.trim().to_ascii_lowercase();
        // Which frontend and which checks is for another builder.
        if !matches!(name.as_str(), "escape" | "syntax" | "check") {
            break;
        }
        if seen.contains(&name) {
            let reason = format!("only one {name} parser directive can be used");
            return Err(ImageError::Dockerfile { line: at + 1, reason });
        }
        if name == "escape" {
            escape = match value.trim() {
                "\\" => '\\',
                "`" => '`',
                other => {
                    let reason = format!("invalid escape token '{other}' does not match ` or \\");
                    return Err(ImageError::Dockerfile { line: at + 1, reason });
                }
            };
        }
        seen.push(name);
    }
    Ok(escape)
}

/// Joins continued lines; comments and empty lines between them vanish.
fn logical_lines(text: &str, escape: char) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (start, mut so_far) = open.take().unwrap_or((at + 1, String::new()));
        match line.trim_end().strip_suffix(escape) {
            Some(continued) => {
                so_far.push_str(continued);
                open = Some((start, so_far));
            }
            None => {
                so_far.push_str(line);
                lines.push((start, so_far.trim().to_owned()));
            }
        }
    }
    lines.extend(open.map(|(start, text)| (start, text.trim().to_owned())).filter(|(_, text)| !text.is_empty()));
    lines
}

/// Reads one instruction from its logical line.
pub(super) fn instruction(line: usize, text: &str) -> Result<Instruction, ImageError> {
    let (keyword, mut rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let keyword = keyword.to_ascii_uppercase();
    let fault = |reason: String| ImageError::Dockerfile { line, reason };
    if !KNOWN.contains(&keyword.as_str()) {
        let hint = nearest(&keyword, KNOWN).map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        return Err(fault(format!("unknown instruction: {keyword}{hint}")));
    }
    let mut flags = Vec::new();
    if matches!(keyword.as_str(), "ADD" | "COPY" | "FROM" | "HEALTHCHECK" | "RUN") {
        loop {
            rest = rest.trim_start();
            let Some(flag) = rest.strip_prefix("--") else { break };
            let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
            rest = after;
            if flag.is_empty() {
                break;
            }
            flags.push(match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            });
        }
    }
    let instruction = Instruction { line, keyword, flags, rest: rest.trim().to_owned() };
    match instruction.keyword.as_str() {
        "ADD" | "COPY" | "RUN" if has_heredoc(&instruction.rest) => {
            return Err(instruction.lacking(
                &format!("{} <<", instruction.keyword),
                "heredocs are BuildKit's; put the text into a file of the context",
            ));
        }
        keyword if instruction.rest.is_empty() => {
            return Err(instruction.fault(format!("{keyword} requires at least one argument")));
        }
        _ => {}
    }
    Ok(instruction)
}

fn has_heredoc(rest: &str) -> bool {
    rest.split_whitespace().any(|word| {
        word.strip_prefix("<<").is_some_and(|name| {
            name.trim_start_matches('-')
                .starts_with(|letter: char| letter.is_ascii_alphanumeric() || "_'\"".contains(letter))
        })
    })
}

/// The name after `AS`, in lower case.
fn stage_name(from: &Instruction) -> Result<Option<String>, ImageError> {
    let words: Vec<&str> = from.rest.split_whitespace().collect();
    match words[..] {
        [_] => Ok(None),
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let name = name.to_ascii_lowercase();
            let good = name.starts_with(|first: char| first.is_ascii_lowercase())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if !good || name == "scratch" {
                return Err(from.fault(format!(
                    "invalid name for build stage: \"{name}\", name can't start with a number or contain symbols"
                )));
            }
            Ok(Some(name))
        }
        _ => Err(from.fault("FROM requires either one or three arguments: FROM image [AS name]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn joins_lines_and_drops_comments() {
        let text = "# escape=`\n# a comment\nARG V=1\nFROM --platform=wasi/wasm scratch AS Base\nENV a=1 `\n  # not me\n\n  b=2\ncopy --from=x a b `\n c/\n";
        let file = Dockerfile::parse(text).unwrap();
        assert_eq!(file.escape, '`');
        assert_eq!(file.globals[0].text(), "ARG V=1");
        assert_eq!(file.stages[0].name.as_deref(), Some("base"));
        assert_eq!(file.stages[0].from.flags, [("platform".to_owned(), Some("wasi/wasm".to_owned()))]);
        assert_eq!(file.stages[0].body[0].rest.split_whitespace().collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!((file.stages[0].body[1].keyword.as_str(), file.stages[0].body[1].line), ("COPY", 9));
    }

    #[test]
    fn refuses_by_name_and_line() {
        for (text, error) in [
            ("", "dockerfile parse error on line 1: file with no instructions: it needs a FROM"),
            ("FROM scratch\nFRM x", "dockerfile parse error on line 2: unknown instruction: FRM (did you mean FROM?)"),
            (
                "COPY a b",
                "dockerfile parse error on line 1: no build stage in current context: COPY before the first FROM",
            ),
            (
                "FROM a b",
                "dockerfile parse error on line 1: FROM requires either one or three arguments: FROM image [AS name]",
            ),
            ("FROM a\n\nENV", "dockerfile parse error on line 3: ENV requires at least one argument"),
            ("# escape=x\nFROM a", "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\"),
        ] {
            assert_eq!(Dockerfile::parse(text).unwrap_err().to_string(), error, "{text}");
        }
        for (text, start) in [
            ("FROM a\nRUN <<EOF\nmake\nEOF", "line 2: RUN << is not offered by this builder: heredocs"),
            ("FROM a\nCOPY <<EOF /x\nhi\nEOF", "line 2: COPY << is not offered by this builder: heredocs"),
        ] {
            let error = Dockerfile::parse(text).unwrap_err();
            assert!(error.to_string().starts_with(start), "{error}");
            assert_eq!(error.kind(), bireme_core::ErrorKind::Unsupported);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(?s)(FROM|ENV|COPY|#|\\\\|\\[|\"|\n| |\\PC){0,40}|.{0,80}") {
            let _ = Dockerfile::parse(&text);
        }
    }
}
