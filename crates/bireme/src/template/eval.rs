//! Nodes and a value to text.

use std::cmp::Ordering;

use serde_json::Value;

use super::parse::{Command, Node, Operand, Pipeline};
use super::{Methods, TemplateError};

pub(super) struct Scope<'a> {
    root: &'a Value,
    methods: Methods<'a>,
    dot: Value,
    variables: Vec<(String, Value)>,
    /// Inside a condition a missing field is simply not there.
    lenient: bool,
}

type Answer<T> = Result<T, TemplateError>;

fn refuse<T>(text: impl Into<String>) -> Answer<T> {
    Err(TemplateError(text.into()))
}

impl<'a> Scope<'a> {
    pub(super) fn new(root: &'a Value, methods: Methods<'a>) -> Self {
        Self { root, methods, dot: root.clone(), variables: Vec::new(), lenient: false }
    }

    pub(super) fn render(&mut self, nodes: &[Node]) -> Answer<String> {
        let mut out = String::new();
        self.block(nodes, &mut out)?;
        Ok(out)
    }

    fn block(&mut self, nodes: &[Node], out: &mut String) -> Answer<()> {
        let depth = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(pipeline) => out.push_str(&show(&self.pipeline(pipeline)?, true)),
                Node::Assign { name, value } => {
                    let value = self.pipeline(value)?;
                    match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                        Some((_, slot)) => *slot = value,
                        None => self.variables.push((name.clone(), value)),
                    }
                }
                Node::If { test, then, otherwise } => {
                    let test = self.condition(test)?;
                    self.block(if truth(&test) { then } else { otherwise }, out)?;
                }
                Node::With { value, then, otherwise } => {
                    let value = self.condition(value)?;
                    if truth(&value) {
                        self.with_dot(value, then, out)?;
                    } else {
                        self.block(otherwise, out)?;
                    }
                }
                Node::Range { key, item, over, then, otherwise } => {
                    let pairs: Vec<(Value, Value)> = match self.condition(over)? {
                        Value::Null => Vec::new(),
                        Value::Array(items) => {
                            items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect()
                        }
                        Value::Object(map) => map.into_iter().map(|(key, item)| (Value::String(key), item)).collect(),
                        other => return refuse(format!("cannot range over {}", kind(&other))),
                    };
                    if pairs.is_empty() {
                        self.block(otherwise, out)?;
                    }
                    for (at, value) in pairs {
                        let depth = self.variables.len();
                        self.variables.extend(key.iter().map(|name| (name.clone(), at.clone())));
                        self.variables.extend(item.iter().map(|name| (name.clone(), value.clone())));
                        self.with_dot(value, then, out)?;
                        self.variables.truncate(depth);
                    }
                }
            }
        }
        self.variables.truncate(depth);
        Ok(())
    }

    fn with_dot(&mut self, dot: Value, nodes: &[Node], out: &mut String) -> Answer<()> {
        let before = std::mem::replace(&mut self.dot, dot);
        let answer = self.block(nodes, out);
        self.dot = before;
        answer
    }

    fn condition(&mut self, pipeline: &Pipeline) -> Answer<Value> {
        let before = std::mem::replace(&mut self.lenient, true);
        let answer = self.pipeline(pipeline);
        self.lenient = before;
        answer
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Answer<Value> {
        let mut value = None;
        for command in pipeline {
            value = Some(self.command(command, value)?);
        }
        Ok(value.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &Command, piped: Option<Value>) -> Answer<Value> {
        let mut args = Vec::with_capacity(command.len());
        for operand in &command[1..] {
            args.push(self.operand(operand)?);
        }
        args.extend(piped);
        match &command[0] {
            Operand::Function(name) => call(name, args),
            Operand::Fields(fields) if !args.is_empty() => {
                // A method: only the last word may be one, and only of the value itself.
                match fields.as_slice() {
                    [name] => (self.methods)(name, &args)
                        .map_or_else(|| refuse(format!("{name:?} is a field and takes no arguments")), Ok),
                    _ => refuse("a field takes no arguments"),
                }
            }
            operand if args.is_empty() => self.operand(operand),
            _ => refuse("a value takes no arguments"),
        }
    }

    fn operand(&mut self, operand: &Operand) -> Answer<Value> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => call(name, Vec::new()),
            Operand::Fields(fields) => self.fields(self.dot.clone(), fields),
            Operand::Variable(name, fields) => {
                let value = if name.is_empty() {
                    self.root.clone()
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

    fn fields(&self, mut value: Value, fields: &[String]) -> Answer<Value> {
        for field in fields {
            value = match value {
                Value::Object(mut map) => match map.remove(field) {
                    Some(value) => value,
                    None => match (self.methods)(field, &[]) {
                        Some(value) => value,
                        None if self.lenient => Value::Null,
                        None => {
                            let near = bireme_core::nearest::nearest(field, map.keys().map(String::as_str));
                            let near = near.map(|near| format!(": did you mean {near:?}?")).unwrap_or_default();
                            return refuse(format!("no field {field:?}{near}"));
                        }
                    },
                },
                Value::Null if self.lenient => Value::Null,
                other => return refuse(format!("cannot take field {field:?} of {}", kind(&other))),
            };
        }
        Ok(value)
    }
}

/// Prints a value as Go prints it.
fn show(value: &Value, outer: bool) -> String {
    match value {
        Value::Null => if outer { "<no value>" } else { "<nil>" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(|item| show(item, false)).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", show(value, false))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
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
            let text = text(0);
            let mut letters = text.chars();
            string(letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default())
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
        "print" => string(args.iter().map(|value| show(value, true)).collect()),
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
        "and" => {
            need(1)?;
            Ok(args.iter().find(|value| !truth(value)).or(args.last()).cloned().unwrap_or(Value::Null))
        }
        "or" => {
            need(1)?;
            Ok(args.iter().find(|value| truth(value)).or(args.last()).cloned().unwrap_or(Value::Null))
        }
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

fn index(value: Value, key: &Value) -> Answer<Value> {
    match (value, key) {
        (Value::Object(mut map), Value::String(key)) => Ok(map.remove(key).unwrap_or(Value::Null)),
        (Value::Array(mut items), Value::Number(at)) => match at.as_u64().map(|at| at as usize) {
            Some(at) if at < items.len() => Ok(items.swap_remove(at)),
            _ => refuse(format!("index {at} is out of range: there are {} elements", items.len())),
        },
        (Value::Null, _) => Ok(Value::Null),
        (value, key) => refuse(format!("cannot index {} with {}", kind(&value), kind(key))),
    }
}

/// `%s`, `%v`, `%d`, `%q`, `%t`, `%f`, `%x` and `%%`, with a width and `-`.
fn printf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let left = rest.next_if_eq(&'-').is_some();
        let mut width = 0usize;
        while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
            width = (width * 10 + digit as usize).min(1000);
            rest.next();
        }
        let mut precision = None;
        if rest.next_if_eq(&'.').is_some() {
            let mut digits = 0usize;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                digits = (digits * 10 + digit as usize).min(100);
                rest.next();
            }
            precision = Some(digits);
        }
        let verb = rest.next().unwrap_or('%');
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match (args.next(), verb) {
            (None, _) => format!("%!{verb}(MISSING)"),
            (Some(value), 'q') => Value::String(show(value, true)).to_string(),
            (Some(Value::Number(number)), 'x') => format!("{:x}", number.as_i64().unwrap_or(0)),
            (Some(Value::Number(number)), 'f') => {
                format!("{:.*}", precision.unwrap_or(6), number.as_f64().unwrap_or(0.0))
            }
            (Some(value), _) => match precision {
                Some(precision) => show(value, true).chars().take(precision).collect(),
                None => show(value, true),
            },
        };
        out.push_str(&if left { format!("{text:<width$}") } else { format!("{text:>width$}") });
    }
    out
}
