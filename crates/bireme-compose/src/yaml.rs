//! YAML text → nodes that know their file and line. Anchors, merge keys and the tags `!reset` and `!override` are
//! settled or kept here; size, depth and the growth by aliases are bounded.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use crate::error::{ComposeError, Place};

/// Longest file that is read, in bytes.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Most values a file may have once its aliases are expanded.
const MAX_NODES: usize = 200_000;
const MAX_DEPTH: usize = 64;

pub(crate) type Map = BTreeMap<String, Node>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// What an override does with what it overrides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    #[default]
    Merge,
    /// `!reset`: take it away.
    Reset,
    /// `!override`: put this in its place.
    Override,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) mark: Mark,
    pub(crate) file: Arc<Path>,
    pub(crate) line: usize,
}

/// Equal when they say the same, wherever they stand.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    /// The same place and mark with another value.
    pub(crate) fn with(&self, value: Value) -> Self {
        Self { value, mark: self.mark, file: Arc::clone(&self.file), line: self.line }
    }

    /// A part made from this one: same place, no mark.
    pub(crate) fn part(&self, value: Value) -> Self {
        Self { value, mark: Mark::Merge, file: Arc::clone(&self.file), line: self.line }
    }

    pub(crate) fn text(&self, text: impl Into<String>) -> Self {
        self.part(Value::Text(text.into()))
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    /// How many values there are in it, itself included.
    pub(crate) fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(map) => map.values().map(Self::count).sum(),
            _ => 0,
        }
    }

    /// What kind of value this is, for refusals.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// A scalar as text, as `environment` and labels take it; `None` for nothing, a list or a mapping.
    pub(crate) fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(value.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(crate) fn place(&self, key: impl Into<String>) -> Box<Place> {
        Box::new(Place { file: Some(self.file.to_path_buf()), line: Some(self.line), key: key.into() })
    }

    pub(crate) fn invalid(&self, key: impl Into<String>, reason: impl Into<String>) -> ComposeError {
        ComposeError::Invalid { place: self.place(key), reason: reason.into() }
    }

    pub(crate) fn unsupported(&self, key: impl Into<String>, reason: impl Into<String>) -> ComposeError {
        ComposeError::Unsupported { place: self.place(key), reason: reason.into() }
    }
}

/// A list or mapping that is still open.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<(String, usize)>,
    /// What `<<` brought: below every key of its own.
    merged: Vec<Node>,
    size: usize,
}

/// Reads every document of `bytes`.
///
/// # Errors
/// Not YAML, not UTF-8, or beyond a limit.
pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Vec<Node>, ComposeError> {
    let file: Arc<Path> = Arc::from(path);
    let refuse = |line: Option<usize>, reason: String| ComposeError::Invalid {
        place: Box::new(Place { file: Some(path.to_path_buf()), line, key: String::new() }),
        reason,
    };
    if bytes.len() > MAX_BYTES {
        return Err(refuse(
            None,
            format!("is {} bytes long, more than the {MAX_BYTES} that are read; split it with include", bytes.len()),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        refuse(Some(line), "is not UTF-8; save it in that encoding".to_owned())
    })?;
    let mut parser = Parser::new_from_str(text.trim_start_matches('\u{feff}'));
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, (Node, usize)> = HashMap::new();
    let mut total = 0usize;
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| refuse(Some(error.marker().line()), format!("is not YAML: {}", error.info())))?;
        let line = span.start.line();
        let fail = |reason: &str| refuse(Some(line), reason.to_owned());
        let node = |value, mark| Node { value, mark, file: Arc::clone(&file), line };
        let (done, anchor, size) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let (mark, forced) = mark_of(tag.as_deref()).map_err(|reason| fail(&reason))?;
                let plain = matches!(style, ScalarStyle::Plain) && !forced;
                let value = if plain { plain_scalar(&text) } else { Value::Text(text.into_owned()) };
                (node(value, mark), anchor, 1)
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if open.len() >= MAX_DEPTH => {
                let _ = (anchor, tag);
                return Err(fail("is nested more than 64 levels deep; flatten it"));
            }
            Event::SequenceStart(anchor, tag) => {
                let (mark, _) = mark_of(tag.as_deref()).map_err(|reason| fail(&reason))?;
                open.push(Open {
                    node: node(Value::List(Vec::new()), mark),
                    anchor,
                    key: None,
                    merged: Vec::new(),
                    size: 1,
                });
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                let (mark, _) = mark_of(tag.as_deref()).map_err(|reason| fail(&reason))?;
                open.push(Open {
                    node: node(Value::Map(Map::new()), mark),
                    anchor,
                    key: None,
                    merged: Vec::new(),
                    size: 1,
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut closed) = open.pop() else { continue };
                merge_keys(&mut closed).map_err(|reason| fail(&reason))?;
                (closed.node, closed.anchor, closed.size)
            }
            Event::Alias(id) => match anchors.get(&id) {
                Some((target, size)) => (target.clone(), 0, *size),
                None => {
                    return Err(fail(
                        "has an alias to a value that contains it, or to none; name an anchor (&x) above it",
                    ));
                }
            },
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {
                continue;
            }
        };
        total += size;
        if total > MAX_NODES {
            return Err(fail(
                "has more than 200000 values once its aliases are expanded; use fewer aliases of aliases",
            ));
        }
        if anchor != 0 {
            anchors.insert(anchor, (done.clone(), size));
        }
        match open.last_mut() {
            None => documents.push(done),
            Some(parent) => {
                parent.size += size;
                add(parent, done, line).map_err(|reason| fail(&reason))?;
            }
        }
    }
    Ok(documents)
}

fn add(parent: &mut Open, child: Node, line: usize) -> Result<(), String> {
    match (&mut parent.node.value, parent.key.take()) {
        (Value::List(items), _) => items.push(child),
        (Value::Map(_), None) => {
            let key = match (child.scalar(), &child.value) {
                (Some(key), _) => key,
                (None, Value::Null) => "null".to_owned(),
                _ => return Err("has a key that is not a string; write KEY: VALUE".to_owned()),
            };
            parent.key = Some((key, line));
        }
        (Value::Map(_), Some((key, _))) if key == "<<" => match child.value {
            Value::List(items) => parent.merged.extend(items),
            _ => parent.merged.push(child),
        },
        (Value::Map(map), Some((key, line))) => {
            // The line of the key is what a person looks for, not that of the first nested value.
            let child = Node { line, ..child };
            if map.insert(key.clone(), child).is_some() {
                return Err(format!("has the key {key:?} twice in one mapping; remove one of them"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Puts what `<<` brought below the mapping's own keys; an earlier one wins over a later one.
fn merge_keys(closed: &mut Open) -> Result<(), String> {
    for merged in std::mem::take(&mut closed.merged) {
        let (Value::Map(from), Value::Map(into)) = (merged.value, &mut closed.node.value) else {
            return Err("has a merge key (<<) whose value is not a mapping or a list of mappings; give it an alias to a mapping".to_owned());
        };
        for (key, value) in from {
            into.entry(key).or_insert(value);
        }
    }
    Ok(())
}

/// The mark, and whether the tag makes the scalar a string.
fn mark_of(tag: Option<&Tag>) -> Result<(Mark, bool), String> {
    let Some(tag) = tag else { return Ok((Mark::Merge, false)) };
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        ("!", "reset") => Ok((Mark::Reset, false)),
        ("!", "override") => Ok((Mark::Override, false)),
        ("tag:yaml.org,2002:", "str") => Ok((Mark::Merge, true)),
        ("tag:yaml.org,2002:", _) => Ok((Mark::Merge, false)),
        ("!", "") | ("", "!") => Ok((Mark::Merge, true)),
        (handle, suffix) => Err(format!("has the unknown tag {handle}{suffix}; !reset and !override are known")),
    }
}

/// The core schema, with the octals (`0440`) and separators (`1_000`) that Compose's reader takes from YAML 1.1.
pub(crate) fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Value::Text(text.to_owned());
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let (sign, unsigned) = match digits.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let radix = |prefixes: &[&str], radix| {
        prefixes
            .iter()
            .find_map(|prefix| unsigned.strip_prefix(prefix))
            .and_then(|rest| i64::from_str_radix(rest, radix).ok())
    };
    let whole = if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
        radix(&["0x", "0X"], 16)
            .or_else(|| radix(&["0o", "0O"], 8))
            .or_else(|| radix(&["0b", "0B"], 2))
            .or_else(|| {
                Some(unsigned)
                    .filter(|rest| rest.len() > 1 && rest.starts_with('0'))
                    .and_then(|rest| i64::from_str_radix(rest, 8).ok())
            })
            .or_else(|| unsigned.parse().ok().filter(|_| unsigned == "0" || !unsigned.starts_with('0')))
    } else {
        None
    };
    if let Some(whole) = whole {
        return Value::Int(sign * whole);
    }
    let is_float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    match digits.parse::<f64>() {
        Ok(value) if is_float && value.is_finite() => Value::Float(value),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Result<Node, String> {
        parse(text.as_bytes(), Path::new("f.yaml")).map(|mut all| all.remove(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn scalars_have_the_types_compose_gives_them() {
        let check = |text: &str, value: Value| assert_eq!(one(text).unwrap().value, value, "{text}");
        check("0440", Value::Int(0o440));
        check("0x10", Value::Int(16));
        check("1_000", Value::Int(1000));
        check("1.5", Value::Float(1.5));
        check("'1'", Value::Text("1".into()));
        check("!!str 1", Value::Text("1".into()));
        check("yes", Value::Text("yes".into()));
        check("1.2.3.4", Value::Text("1.2.3.4".into()));
        check("8080:80", Value::Text("8080:80".into()));
        check("10m", Value::Text("10m".into()));
        check("-", Value::List(vec![one("~").unwrap()]));
        check("09", Value::Float(9.0));
    }

    #[test]
    fn merge_keys_stay_below_own_keys() {
        let node = one("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 9\n").unwrap();
        assert_eq!(node.get("c"), Some(&one("{x: 9, y: 2, z: 4}").unwrap()));
        assert_eq!(node.get("c").unwrap().line, 3);
    }

    #[test]
    fn refusals_name_the_line() {
        let check = |text: &str, expected: &str| assert_eq!(one(text).map(|_| ()), Err(expected.to_owned()));
        check("a: 1\na: 2\n", "f.yaml:2: has the key \"a\" twice in one mapping; remove one of them");
        check(
            "a: &x [*x]\n",
            "f.yaml:1: has an alias to a value that contains it, or to none; name an anchor (&x) above it",
        );
        check("a: !wat 1\n", "f.yaml:1: has the unknown tag !wat; !reset and !override are known");
        let deep = "[".repeat(70) + &"]".repeat(70);
        check(&deep, "f.yaml:1: is nested more than 64 levels deep; flatten it");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(one(&bomb).unwrap_err().contains("200000"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-a-z0-9:&*!<>{}\\[\\]#|?%@`'\"\\n ,~$]{0,80}") {
            let _ = parse(text.as_bytes(), Path::new("f.yaml"));
        }
    }
}
