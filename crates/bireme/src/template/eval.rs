//! Nodes and a value to text.

use std::cmp::Ordering;

use serde_json::Value;

use super::parse::{Command, Node, Operand, Pipeline};
use super::printf::{print, printf, show};
use super::{Methods, TemplateError};

/// Fields of Docker's types that are maps: a key that is not in them is no mistake. Every other object is a struct,
/// whose fields are known. Source: moby's `api/types`.
const MAPS: &[&str] = &[
    "Annotations",
    "Attributes",
    "AuxiliaryAddresses",
    "Containers",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "GenericResources",
    "IndexConfigs",
    "Labels",
    "LogOpts",
    "Networks",
    "OnBuild",
    "Options",
    "PortBindings",
    "Ports",
    "Runtimes",
    "Status",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "networks",
    "stats",
];

/// Fields that are lists: nothing in their place is an empty one.
const LISTS: &[&str] = &[
    "Aliases",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "MaskedPaths",
    "Mounts",
    "ReadonlyPaths",
    "RepoDigests",
    "RepoTags",
    "SecurityOpt",
    "Shell",
    "Ulimits",
    "VolumesFrom",
];

/// Fields that the engine leaves out when they are empty.
const OPTIONAL: &[&str] = &["Health", "Healthcheck", "MacAddress", "Shell", "StopTimeout", "UsageData"];

/// A value, and whether it is one of those maps.
#[derive(Clone, Debug, Default)]
struct Held {
    value: Value,
    map: bool,
}

impl From<Value> for Held {
    fn from(value: Value) -> Self {
        Self { value, map: false }
    }
}

/// What a block ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

pub(super) struct Scope<'a> {
    root: &'a Value,
    methods: Methods<'a>,
    dot: Held,
    variables: Vec<(String, Held)>,
    /// Inside a condition a missing field is simply not there.
    lenient: bool,
}

type Answer<T> = Result<T, TemplateError>;

fn refuse<T>(text: impl Into<String>) -> Answer<T> {
    Err(TemplateError(text.into()))
}

impl<'a> Scope<'a> {
    pub(super) fn new(root: &'a Value, methods: Methods<'a>) -> Self {
        Self { root, methods, dot: root.clone().into(), variables: Vec::new(), lenient: false }
    }

    pub(super) fn render(&mut self, nodes: &[Node]) -> Answer<String> {
        let mut out = String::new();
        self.block(nodes, &mut out)?;
        Ok(out)
    }

    fn block(&mut self, nodes: &[Node], out: &mut String) -> Answer<Flow> {
        let depth = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            if out.len() > MAX_OUTPUT {
                return refuse(format!("makes more than {MAX_OUTPUT} bytes"));
            }
            flow = match node {
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
                Node::Text(text) => {
                    out.push_str(text);
                    Flow::On
                }
                Node::Print(pipeline) => {
                    out.push_str(&show(&self.pipeline(pipeline)?.value, true));
                    Flow::On
                }
                Node::Declare { name, value } => {
                    let value = self.pipeline(value)?;
                    self.variables.push((name.clone(), value));
                    Flow::On
                }
                Node::Assign { name, value } => {
                    let value = self.pipeline(value)?;
                    match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                        Some((_, slot)) => *slot = value,
                        None => return refuse(format!("undefined variable \"${name}\": declare it with :=")),
                    }
                    Flow::On
                }
                Node::If { test, then, otherwise } => {
                    let test = self.condition(test)?;
                    self.block(if truth(&test.value) { then } else { otherwise }, out)?
                }
                Node::With { name, value, then, otherwise } => {
                    let value = self.condition(value)?;
                    let depth = self.variables.len();
                    self.variables.extend(name.iter().map(|name| (name.clone(), value.clone())));
                    let flow = if truth(&value.value) {
                        self.with_dot(value, then, out)?
                    } else {
                        self.block(otherwise, out)?
                    };
                    self.variables.truncate(depth);
                    flow
                }
                Node::Range { key, item, over, then, otherwise } => {
                    let pairs = elements(self.condition(over)?.value)?;
                    if pairs.is_empty() {
                        self.block(otherwise, out)?
                    } else {
                        self.range(key.as_ref(), item.as_ref(), pairs, then, out)?;
                        Flow::On
                    }
                }
            };
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(depth);
        Ok(flow)
    }

    fn range(
        &mut self,
        key: Option<&String>,
        item: Option<&String>,
        pairs: Vec<(Value, Value)>,
        nodes: &[Node],
        out: &mut String,
    ) -> Answer<()> {
        for (at, value) in pairs {
            let depth = self.variables.len();
            self.variables.extend(key.map(|name| (name.clone(), at.into())));
            self.variables.extend(item.map(|name| (name.clone(), value.clone().into())));
            let flow = self.with_dot(value.into(), nodes, out)?;
            self.variables.truncate(depth);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn with_dot(&mut self, dot: Held, nodes: &[Node], out: &mut String) -> Answer<Flow> {
        let before = std::mem::replace(&mut self.dot, dot);
        let answer = self.block(nodes, out);
        self.dot = before;
        answer
    }

    fn condition(&mut self, pipeline: &Pipeline) -> Answer<Held> {
        let before = std::mem::replace(&mut self.lenient, true);
        let answer = self.pipeline(pipeline);
        self.lenient = before;
        answer
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Answer<Held> {
        let mut held: Option<Held> = None;
        for command in pipeline {
            held = Some(self.command(command, held.map(|held| held.value))?);
        }
        Ok(held.unwrap_or_default())
    }

    fn command(&mut self, command: &Command, piped: Option<Value>) -> Answer<Held> {
        if let Operand::Function(name) = &command[0]
            && matches!(name.as_str(), "and" | "or")
        {
            return self.either(name, &command[1..], piped);
        }
        let mut args = Vec::with_capacity(command.len());
        for operand in &command[1..] {
            args.push(self.operand(operand)?.value);
        }
        args.extend(piped);
        match &command[0] {
            Operand::Function(name) => call(name, args).map(Held::from),
            Operand::Fields(fields) if !args.is_empty() => {
                // A method: only the last word may be one, and only of the value itself.
                match fields.as_slice() {
                    [name] => (self.methods)(name, &args)
                        .map(Held::from)
                        .map_or_else(|| refuse(format!("{name:?} is a field and takes no arguments")), Ok),
                    _ => refuse("a field takes no arguments"),
                }
            }
            operand if args.is_empty() => self.operand(operand),
            _ => refuse("a value takes no arguments"),
        }
    }

    /// `and` and `or` look at an argument only when those before it do not decide.
    fn either(&mut self, name: &str, operands: &[Operand], piped: Option<Value>) -> Answer<Held> {
        let mut last = None;
        for operand in operands {
            let held = self.operand(operand)?;
            if truth(&held.value) == (name == "or") {
                return Ok(held);
            }
            last = Some(held);
        }
        match piped.map(Held::from).or(last) {
            Some(held) => Ok(held),
            None => refuse(format!("{name} needs 1 argument")),
        }
    }

    fn operand(&mut self, operand: &Operand) -> Answer<Held> {
        match operand {
            Operand::Literal(value) => Ok(value.clone().into()),
            Operand::Function(name) => call(name, Vec::new()).map(Held::from),
            Operand::Fields(fields) => self.fields(self.dot.clone(), fields),
            Operand::Variable(name, fields) => {
                let value = if name.is_empty() {
                    self.root.clone().into()
                } else {
                    match self.variables.iter().rev().find(|(known, _)| known == name) {
                        Some((_, value)) => value.clone(),
                        None => return refuse(format!("variable ${name} is not set")),
                    }
                };
                self.fields(value, fields)
            }
            Operand::Group(pipeline, fields) => {
                let value = self.pipeline(pipeline)?;
                self.fields(value, fields)
            }
        }
    }

    fn fields(&self, held: Held, fields: &[String]) -> Answer<Held> {
        let Held { mut value, mut map } = held;
        let mut before = "";
        for field in fields {
            let mut gone = false;
            value = match value {
                Value::Object(mut object) => match take(&mut object, field, map) {
                    Some(value) => value,
                    None => match (self.methods)(field, &[]) {
                        Some(value) => value,
                        None if map => {
                            gone = true;
                            Value::Null
                        }
                        None if self.lenient || OPTIONAL.contains(&field.as_str()) => Value::Null,
                        None if MAPS.contains(&field.as_str()) => Value::Object(serde_json::Map::new()),
                        None => {
                            let near = bireme_core::nearest::nearest(field, object.keys().map(String::as_str));
                            let near = near.map(|near| format!(": did you mean {near:?}?")).unwrap_or_default();
                            return refuse(format!("no field {field:?}{near}"));
                        }
                    },
                },
                // What follows a key that is not there is not there either.
                Value::Null if map || self.lenient => {
                    gone = map;
                    Value::Null
                }
                Value::Null => return refuse(format!("nil pointer evaluating {field:?}")),
                other => return refuse(format!("cannot take field {field:?} of {}", kind(&other))),
            };
            map = gone || MAPS.contains(&field.as_str()) || (before, field.as_str()) == ("LogConfig", "Config");
            if map && !gone && value.is_null() {
                value = Value::Object(serde_json::Map::new());
            } else if value.is_null() && LISTS.contains(&field.as_str()) {
                value = Value::Array(Vec::new());
            }
            before = field;
        }
        Ok(Held { value, map })
    }
}

/// A field of an object. Those of structs may be asked for as Go spells them: `ID` for `Id`.
fn take(object: &mut serde_json::Map<String, Value>, field: &str, map: bool) -> Option<Value> {
    if let Some(value) = object.remove(field) {
        return Some(value);
    }
    let same = |key: &&String| key[..1] == field[..1] && key.eq_ignore_ascii_case(field);
    let spelt = object.keys().find(|key| !map && key.is_char_boundary(1) && field.is_char_boundary(1) && same(key));
    let spelt = spelt.cloned()?;
    object.remove(&spelt)
}

/// Bytes that one template may make of one value: ranges inside ranges grow fast.
const MAX_OUTPUT: usize = 64 << 20;
/// Most rounds of a range over a number.
const MAX_ROUNDS: u64 = 1_000_000;

/// What a range goes through: positions or keys, and values.
fn elements(value: Value) -> Answer<Vec<(Value, Value)>> {
    Ok(match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect(),
        Value::Object(map) => map.into_iter().map(|(key, item)| (Value::String(key), item)).collect(),
        Value::Number(number) if number.is_i64() || number.is_u64() => match number.as_u64() {
            Some(rounds) if rounds > MAX_ROUNDS => return refuse(format!("range over {rounds} is too long")),
            rounds => (0..rounds.unwrap_or(0)).map(|at| (Value::from(at), Value::from(at))).collect(),
        },
        other => return refuse(format!("cannot range over {}", kind(&other))),
    })
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn call(name: &str, args: Vec<Value>) -> Answer<Value> {
    let text = |at: usize| args.get(at).map(|value| show(value, true)).unwrap_or_default();
    let count = |at: usize| args.get(at).and_then(Value::as_u64).unwrap_or(0) as usize;
    let need = |least: usize| {
        if args.len() < least {
            refuse(format!("{name} needs {least} argument{}", if least == 1 { "" } else { "s" }))
        } else {
            Ok(())
        }
    };
    let string = |text: String| Ok(Value::String(text));
    match name {
        "json" => {
            need(1)?;
            string(args[0].to_string())
        }
        "lower" => string(text(0).to_lowercase()),
        "upper" => string(text(0).to_uppercase()),
        "title" => {
            // Every word, as Go's `strings.Title`.
            let mut inside = false;
            let capital = text(0).chars().fold(String::new(), |mut out, letter| {
                if inside {
                    out.push(letter)
                } else {
                    out.extend(letter.to_uppercase())
                }
                inside = letter.is_alphanumeric() || letter == '_' || letter == '\'';
                out
            });
            string(capital)
        }
        "join" => {
            need(2)?;
            let items = args[0].as_array().map(Vec::as_slice).unwrap_or_default();
            string(items.iter().map(|item| show(item, true)).collect::<Vec<_>>().join(&text(1)))
        }
        "split" => {
            need(2)?;
            Ok(text(0).split(&text(1)).map(Value::from).collect())
        }
        "pad" => {
            need(3)?;
            string(format!("{}{}{}", " ".repeat(count(1).min(1000)), text(0), " ".repeat(count(2).min(1000))))
        }
        "truncate" => {
            need(2)?;
            string(text(0).chars().take(count(1)).collect())
        }
        "print" => string(print(&args)),
        "println" => string(args.iter().map(|value| show(value, true)).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => {
            need(1)?;
            string(printf(&text(0), &args[1..]))
        }
        "len" => {
            need(1)?;
            match &args[0] {
                Value::String(text) => Ok(text.len().into()),
                Value::Array(items) => Ok(items.len().into()),
                Value::Object(map) => Ok(map.len().into()),
                other => refuse(format!("{} has no length", kind(other))),
            }
        }
        "index" => {
            need(1)?;
            let mut args = args.into_iter();
            let mut value = args.next().unwrap_or(Value::Null);
            for key in args {
                value = index(value, &key)?;
            }
            Ok(value)
        }
        "slice" => {
            need(1)?;
            let length = match &args[0] {
                Value::Array(items) => items.len(),
                _ => text(0).chars().count(),
            };
            let from = count(1);
            let to = if args.len() > 2 { count(2) } else { length };
            if from > to || to > length {
                return refuse(format!("slice {from}:{to} is out of range: the length is {length}"));
            }
            match &args[0] {
                Value::Array(items) => Ok(Value::Array(items[from..to].to_vec())),
                _ => string(text(0).chars().skip(from).take(to - from).collect()),
            }
        }
        "not" => {
            need(1)?;
            Ok(Value::Bool(!truth(&args[0])))
        }
        "html" => string(
            print(&args)
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&#34;")
                .replace('\'', "&#39;"),
        ),
        "eq" => {
            need(2)?;
            Ok(Value::Bool(args[1..].iter().any(|other| compare(&args[0], other) == Some(Ordering::Equal))))
        }
        "ne" | "lt" | "le" | "gt" | "ge" => {
            need(2)?;
            let order = compare(&args[0], &args[1]);
            Ok(Value::Bool(match name {
                "ne" => order != Some(Ordering::Equal),
                "lt" => order == Some(Ordering::Less),
                "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                "gt" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }))
        }
        other => refuse(format!("function {other:?} is not known")),
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(Ordering::Equal),
    }
}

/// What Go has for a key that is not in a map: nothing, of the kind that the others are.
fn zero(map: &serde_json::Map<String, Value>) -> Value {
    match map.values().next() {
        None | Some(Value::String(_)) => Value::String(String::new()),
        Some(Value::Array(_) | Value::Null) => Value::Array(Vec::new()),
        Some(Value::Number(_)) => Value::from(0),
        Some(Value::Bool(_)) => Value::Bool(false),
        Some(Value::Object(_)) => Value::Null,
    }
}

fn index(value: Value, key: &Value) -> Answer<Value> {
    match (value, key) {
        (Value::Object(mut map), Value::String(key)) => Ok(map.remove(key).unwrap_or_else(|| zero(&map))),
        (Value::Array(mut items), Value::Number(at)) => match at.as_u64().map(|at| at as usize) {
            Some(at) if at < items.len() => Ok(items.swap_remove(at)),
            _ => refuse(format!("index {at} is out of range: there are {} elements", items.len())),
        },
        (Value::Null, _) => Ok(Value::Null),
        (value, key) => refuse(format!("cannot index {} with {}", kind(&value), kind(key))),
    }
}
