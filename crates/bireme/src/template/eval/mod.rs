//! Nodes and a value to text: blocks, conditions, ranges, variables and fields.

mod functions;
mod structs;
mod values;

use serde_json::Value;

use self::functions::call;
use self::structs::{LISTS, MAPS, OPTIONAL, take};
use self::values::{elements, kind, truth};
use super::parse::{Command, Node, Operand, Pipeline};
use super::printf::show;
use super::{Methods, TemplateError};

/// Bytes that one template may make of one value: ranges inside ranges grow fast.
const MAX_OUTPUT: usize = 64 << 20;

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
