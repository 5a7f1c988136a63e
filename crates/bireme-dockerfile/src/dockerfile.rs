//! A whole Dockerfile: lines joined to instructions, and those divided into stages.
//!
//! BuildKit reads a file twice: first every line is divided into words, then every instruction is understood. A mistake of
//! the first kind is told first, wherever it stands, and so it is here.
//!
//! Source: docs.docker.com/reference/dockerfile; github.com/moby/buildkit, `frontend/dockerfile/parser/parser.go` and
//! `frontend/dockerfile/instructions/parse.go`.

use crate::directives::{Directives, Reader};
use crate::error::{Lines, ParseError};
use crate::instruction::{Instruction, is_separator};
use crate::keyword::Keyword;
use crate::line::Line;
use crate::{check, comment as comments_of, suggest};

/// Each stage has a configuration of its own as long as the build goes on, and each instruction is a step.
const MOST_INSTRUCTIONS: usize = 10_000;
const MOST_STAGES: usize = 256;
/// As the scanner of BuildKit has it.
const LONGEST_LINE: usize = 65_535;
/// Of the whole file, heredocs included.
const MOST_BYTES: usize = 16 << 20;

/// A Dockerfile of which every instruction is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// What stands at its very top.
    pub directives: Directives,
    /// `ARG` before the first `FROM`.
    pub globals: Vec<Instruction>,
    /// At least one.
    pub stages: Vec<Stage>,
}

/// One stage: its `FROM` and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its first instruction.
    pub from: From,
    /// In lower case.
    pub name: Option<String>,
    /// What a comment of the form `# NAME text` right before it says of it.
    pub description: Option<String>,
    /// What follows.
    pub body: Vec<Instruction>,
    /// From its `FROM` to its last instruction.
    pub lines: Lines,
}

/// `FROM [--platform=PLATFORM] IMAGE [AS NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// As any instruction.
    pub instruction: Instruction,
    /// What it stands on: a stage before it, `scratch` or an image. Arguments before the first FROM may stand in it.
    pub image: String,
    /// As `image`; empty counts as none.
    pub platform: Option<String>,
    /// `AS` as it is written.
    pub as_word: Option<String>,
    /// The name as it is written.
    pub name: Option<String>,
}

impl Dockerfile {
    /// Reads a file.
    ///
    /// # Errors
    /// The first mistake of the first kind, else the first of the second: see the module's head.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::of_file("the Dockerfile cannot be empty"));
        }
        let (directives, lines) = read(text, None)?;
        let mut file = Self { directives, globals: Vec::new(), stages: Vec::new() };
        for line in lines {
            let instruction = understood(line).map_err(ParseError::while_parsing)?;
            match (instruction.keyword, file.stages.last_mut()) {
                (Keyword::From, _) => {
                    if file.stages.len() == MOST_STAGES {
                        let message = format!("a Dockerfile has at most {MOST_STAGES} stages: divide it");
                        return Err(instruction.fault(message).while_parsing());
                    }
                    file.stages.push(stage(instruction).map_err(ParseError::while_parsing)?);
                }
                (_, Some(stage)) => {
                    stage.lines.last = instruction.lines.last;
                    stage.body.push(instruction);
                }
                (Keyword::Arg, None) => file.globals.push(instruction),
                (_, None) => return Err(instruction.fault("no build stage in current context")),
            }
        }
        if file.stages.is_empty() {
            return Err(ParseError::of_file("dockerfile contains no stages to build"));
        }
        Ok(file)
    }

    /// All instructions in the order of the file, those that begin stages among them.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        let staged = self.stages.iter().flat_map(|stage| std::iter::once(&stage.from.instruction).chain(&stage.body));
        self.globals.iter().chain(staged)
    }
}

impl Instruction {
    /// Reads a single instruction, as a trigger of ONBUILD or a change of `docker commit` is one, and checks it.
    ///
    /// # Errors
    /// When it is malformed, or not one instruction.
    pub fn parse(text: &str, escape: char) -> Result<Self, ParseError> {
        let (_, lines) = read(text, Some(escape))?;
        match <[Line; 1]>::try_from(lines) {
            Ok([line]) => understood(line),
            Err(_) => Err(ParseError::of_file("onbuild trigger should be a single expression")),
        }
    }
}

/// Joins lines and divides them into words. With an escape given, no directives are read.
fn read(text: &str, escape: Option<char>) -> Result<(Directives, Vec<Line>), ParseError> {
    if text.len() > MOST_BYTES {
        let message = format!("a Dockerfile has at most {MOST_BYTES} bytes: put texts into files of the context");
        return Err(ParseError::of_file(message));
    }
    let mut reader = Reader::new(escape);
    let mut lines = Vec::new();
    let mut comments = Vec::new();
    let mut source = Source { lines: text.strip_prefix('\u{feff}').unwrap_or(text).split_inclusive('\n'), number: 0 };
    while let Some(line) = source.next()? {
        if let Some(comment) = comment(line) {
            match comment {
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
        }
        let line = line.trim_end_matches(['\r', '\n']).trim_start();
        let first = source.number;
        let directive = reader.line(first, line)?;
        let directives = &reader.directives;
        if directive {
            comments.clear();
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (part, mut ended) = without_continuation(line, directives.escape);
        let mut joined = part.to_owned();
        let mut empty_continuation = false;
        while !ended {
            let Some(line) = source.next()? else { break };
            if comment(line).is_some() {
                continue;
            }
            if line.trim_start().is_empty() {
                empty_continuation = true;
                continue;
            }
            let part;
            (part, ended) = without_continuation(line.trim_end_matches(['\r', '\n']), directives.escape);
            joined.push_str(part);
        }
        if lines.len() == MOST_INSTRUCTIONS {
            let message = format!("a Dockerfile has at most {MOST_INSTRUCTIONS} instructions: divide it");
            return Err(ParseError::at(Lines::single(first), message));
        }
        let mut read = Line::read(Lines { first, last: source.number }, &joined, directives.escape)?;
        read.instruction.empty_continuation = empty_continuation.then_some(source.number);
        read.instruction.comments = std::mem::take(&mut comments);
        for mut heredoc in read.heredocs()? {
            loop {
                let Some(line) = source.next()? else {
                    return Err(ParseError::at(Lines { first, last: source.number }, "unterminated heredoc"));
                };
                if heredoc.ends_with(line) {
                    break;
                }
                heredoc.content.push_str(line);
            }
            read.instruction.heredocs.push(heredoc);
        }
        read.instruction.lines.last = source.number;
        lines.push(read);
    }
    if lines.is_empty() {
        return Err(ParseError::at(Lines::single(source.number.max(1)), "file with no instructions"));
    }
    Ok((reader.directives, lines))
}

struct Source<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    /// Of the line read last, from 1.
    number: usize,
}

impl<'a> Source<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, ParseError> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        self.number += 1;
        if line.len() > LONGEST_LINE {
            let message = format!("dockerfile line greater than max allowed size of {LONGEST_LINE}");
            return Err(ParseError::at(Lines::single(self.number), message));
        }
        Ok(Some(line))
    }
}

/// What a comment says.
fn comment(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix('#').map(str::trim)
}

/// A line without the escape at its end, and whether none was there: then the instruction ends with it. An escape before
/// another one is no continuation.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    let ended = (line, true);
    let Some(before) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else { return ended };
    if before.ends_with(escape) { ended } else { (before, false) }
}

/// Checks what follows an instruction's word.
fn understood(line: Line) -> Result<Instruction, ParseError> {
    let Line { word, keyword, instruction } = line;
    if keyword.is_none() {
        let all = Keyword::ALL.map(Keyword::as_str);
        let lower = all.map(str::to_ascii_lowercase);
        // In the case of the word itself.
        let known = if word == word.to_uppercase() { all.to_vec() } else { lower.iter().map(String::as_str).collect() };
        let message = suggest::with_nearest(format!("unknown instruction: {word}"), &word, known, false);
        return Err(instruction.fault(message));
    }
    check::instruction(&instruction)?;
    Ok(instruction)
}

fn stage(instruction: Instruction) -> Result<Stage, ParseError> {
    let words: Vec<&str> = instruction.rest.split(is_separator).filter(|word| !word.is_empty()).collect();
    let (image, naming) = match words[..] {
        [image] => (image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (image, Some((keyword, name))),
        _ => return Err(instruction.fault("FROM requires either one or three arguments")),
    };
    let name = naming.map(|(_, name)| name.to_lowercase());
    if let (Some(lower), Some((_, written))) = (&name, naming) {
        let good = lower.starts_with(|first: char| first.is_ascii_lowercase())
            && lower.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !good {
            return Err(instruction.fault(format!(
                "invalid name for build stage: {written:?}, name can't start with a number or contain symbols"
            )));
        }
    }
    instruction.check_flags()?;
    let description = name.as_deref().and_then(|name| comments_of::described(&instruction.comments, name));
    let from = From {
        image: image.to_owned(),
        platform: instruction.flag("platform").filter(|word| !word.is_empty()).map(str::to_owned),
        as_word: naming.map(|(word, _)| word.to_owned()),
        name: naming.map(|(_, name)| name.to_owned()),
        instruction,
    };
    Ok(Stage { name, description, body: Vec::new(), lines: from.instruction.lines, from })
}

#[cfg(test)]
#[path = "dockerfile_tests.rs"]
mod tests;
