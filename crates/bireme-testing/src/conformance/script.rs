//! The language of the request scripts, and its reader. `tests/api/README.md` describes it.

use std::path::Path;

use serde_json::Value;

/// One file: its cases run one after the other, beside those of other files.
#[derive(Clone, Debug)]
pub struct Script {
    /// The file's name without its ending.
    pub name: String,
    /// Its first line, for a head above its table.
    pub title: String,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// One thing that is expected of an engine.
#[derive(Clone, Debug)]
pub struct Case {
    /// The endpoint, or the flag of `docker run`.
    pub subject: String,
    /// What is expected, for the table.
    pub says: String,
    /// Why this engine does not pass yet.
    pub known: Option<String>,
    pub(crate) line: usize,
    pub(crate) steps: Vec<Step>,
    /// Its lines below the first.
    text: String,
}

impl Case {
    /// The number, from 1, of the line with which it begins in its file.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Whether `word` stands anywhere in its requests and commands: an image that is to be there before.
    pub fn names(&self, word: &str) -> bool {
        self.text.contains(word)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) line: usize,
    /// Again until it holds, within the harness's patience.
    pub(crate) eventually: bool,
    pub(crate) action: Action,
    pub(crate) expect: Option<i64>,
    pub(crate) checks: Vec<(usize, Check)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Request(Request),
    /// A request whose head is awaited, and whose body later, under the name.
    Begin(String, Request),
    Join(String),
    /// A shell command with the engine's address in its environment.
    Shell(String),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
    /// Sent after the head, to an upgraded connection.
    pub(crate) input: Option<String>,
    /// Enough lines of an answer that has no end.
    pub(crate) lines: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Check {
    Holds {
        place: String,
        operator: Operator,
        value: Value,
    },
    Let {
        name: String,
        place: String,
    },
    Shape {
        name: String,
    },
    /// A place whose value may differ from Docker's, though not its type.
    Varies {
        place: String,
    },
    /// A place where this engine's answer is known to differ.
    Differs {
        place: String,
        why: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Is,
    IsNot,
    /// `*` stands for anything.
    Like,
    Has,
    Lacks,
    Type,
    Length,
    AtLeast,
    Absent,
}

impl Script {
    /// Reads a script from its file.
    ///
    /// # Errors
    /// A sentence with the path, and the line that cannot be understood.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        Self::parse(&name, &text).map_err(|error| format!("{}:{error}", path.display()))
    }

    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut script = Self { name: name.to_owned(), title: String::new(), cases: Vec::new() };
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
        while let Some((at, line)) = lines.next() {
            let mut whole = line.to_owned();
            while whole.ends_with('\\') {
                whole.pop();
                whole.push_str(lines.next().map_or("", |(_, more)| more.trim_start()));
            }
            script.line(at, &whole).map_err(|error| format!("{at}: {error}: {line}"))?;
        }
        Ok(script)
    }

    fn line(&mut self, at: usize, line: &str) -> Result<(), String> {
        if let Some(title) = line.strip_prefix("# ") {
            if self.title.is_empty() {
                self.title = title.to_owned();
            }
            return Ok(());
        }
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(head) = line.strip_prefix("= ") {
            let (subject, says) = head.split_once(" | ").ok_or("a case is written `= SUBJECT | what is expected`")?;
            let case = Case {
                subject: subject.trim().to_owned(),
                says: says.trim().to_owned(),
                known: None,
                line: at,
                steps: Vec::new(),
                text: String::new(),
            };
            self.cases.push(case);
            return Ok(());
        }
        let case = self.cases.last_mut().ok_or("a case begins with `= `")?;
        case.text.push_str(line);
        case.text.push('\n');
        if let Some(why) = line.strip_prefix("known: ") {
            case.known = Some(why.to_owned());
            return Ok(());
        }
        if line.starts_with(' ') {
            let step = case.steps.last_mut().ok_or("nothing was asked yet that could be checked")?;
            return step.detail(at, line.trim());
        }
        case.steps.push(step(at, line)?);
        Ok(())
    }
}

fn step(at: usize, line: &str) -> Result<Step, String> {
    let (line, eventually) = match line.strip_prefix("eventually ") {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let (line, expect) = match line.rsplit_once(" -> ") {
        Some((line, code)) => (line, Some(code.trim().parse().map_err(|_| "`->` is followed by a number")?)),
        None => (line, None),
    };
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let action = match word {
        "begin" => {
            let (name, rest) = rest.split_once(' ').ok_or("`begin NAME METHOD PATH`")?;
            Action::Begin(name.to_owned(), request(rest)?)
        }
        "join" => Action::Join(rest.to_owned()),
        "docker" => Action::Shell(line.to_owned()),
        "sh" => Action::Shell(rest.to_owned()),
        _ => Action::Request(request(line)?),
    };
    Ok(Step { line: at, eventually, action, expect, checks: Vec::new() })
}

fn request(line: &str) -> Result<Request, String> {
    let mut words = line.splitn(3, ' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err("a request is written `METHOD PATH [BODY]`".to_owned());
    };
    if !matches!(method, "GET" | "POST" | "PUT" | "DELETE" | "HEAD" | "PATCH" | "OPTIONS") {
        return Err(format!("{method} is neither a method nor another word of the language"));
    }
    let body = words.next().unwrap_or_default().to_owned();
    Ok(Request { method: method.to_owned(), path: path.to_owned(), body, ..Request::default() })
}

impl Step {
    fn detail(&mut self, at: usize, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let ("H" | "<" | "take", Action::Request(request) | Action::Begin(_, request)) = (word, &mut self.action) {
            match word {
                "H" => request.headers.push(rest.to_owned()),
                "<" => request.input = Some(rest.replace("\\n", "\n")),
                _ => request.lines = Some(rest.parse().map_err(|_| "`take` is followed by a number")?),
            }
            return Ok(());
        }
        let check = match word {
            "let" => {
                let (name, place) = rest.split_once(" = ").ok_or("`let NAME = PLACE`")?;
                Check::Let { name: name.trim().to_owned(), place: place.trim().to_owned() }
            }
            "shape" => Check::Shape { name: rest.to_owned() },
            "varies" => {
                self.checks.extend(rest.split(' ').map(|place| (at, Check::Varies { place: place.to_owned() })));
                return Ok(());
            }
            "differs" => {
                let (place, why) = rest.split_once(": ").ok_or("`differs PLACE: why`")?;
                Check::Differs { place: place.to_owned(), why: why.to_owned() }
            }
            _ => holds(line)?,
        };
        self.checks.push((at, check));
        Ok(())
    }
}

fn holds(line: &str) -> Result<Check, String> {
    const OPERATORS: [(&str, Operator); 8] = [
        (" = ", Operator::Is),
        (" != ", Operator::IsNot),
        (" ~ ", Operator::Like),
        (" has ", Operator::Has),
        (" lacks ", Operator::Lacks),
        (" is ", Operator::Type),
        (" length ", Operator::Length),
        (" >= ", Operator::AtLeast),
    ];
    if let Some(place) = line.strip_suffix(" absent") {
        return Ok(Check::Holds { place: place.to_owned(), operator: Operator::Absent, value: Value::Null });
    }
    let found = OPERATORS
        .into_iter()
        .filter_map(|(text, operator)| line.find(text).map(|at| (at, text, operator)))
        .min_by_key(|(at, ..)| *at)
        .ok_or("no operator")?;
    let (at, text, operator) = found;
    let value = line[at + text.len()..].trim();
    let value = match operator {
        Operator::Type => Value::String(value.to_owned()),
        _ if value.starts_with('$') => Value::String(value.to_owned()),
        _ => serde_json::from_str(value).map_err(|error| format!("the value is no JSON: {error}"))?,
    };
    Ok(Check::Holds { place: line[..at].trim().to_owned(), operator, value })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_script_is_read() {
        let script = Script::parse(
            "x",
            "# Title\n\n= GET /a | it is there\nknown: not yet\neventually GET /a {\"b\":1} -> 200\n  .c[0] = \"d -> e\"\n  let id = .c\n  varies .e .f\n",
        )
        .unwrap();
        let case = &script.cases[0];
        assert_eq!(
            (script.title.as_str(), case.subject.as_str(), case.says.as_str()),
            ("Title", "GET /a", "it is there")
        );
        assert_eq!(case.known.as_deref(), Some("not yet"));
        let step = &case.steps[0];
        assert!(step.eventually && step.expect == Some(200) && step.checks.len() == 4);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let refused = |text: &str| Script::parse("x", text).unwrap_err();
        assert!(refused("GET /a -> 200").starts_with("1: a case begins with"));
        assert!(refused("= a | b\nFETCH /a").starts_with("2: FETCH is neither a method"));
        assert!(refused("= a | b\nGET /a\n  .x 5").starts_with("3: no operator"));
    }
}
