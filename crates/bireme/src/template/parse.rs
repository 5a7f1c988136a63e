//! Text to nodes.

use serde_json::Value;

use super::TemplateError;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    Break,
    Continue,
    Declare { name: String, value: Pipeline },
    Assign { name: String, value: Pipeline },
    If { test: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { name: Option<String>, value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { key: Option<String>, item: Option<String>, over: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands joined by `|`: the value of each is the last argument of the next.
pub(super) type Pipeline = Vec<Command>;

/// One word and its arguments.
pub(super) type Command = Vec<Operand>;

#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// `.A.B`: fields from the value at hand; none is the value itself.
    Fields(Vec<String>),
    /// `$x.A.B`; an empty name is the value the template was applied to.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    /// `(pipeline).A`.
    Group(Pipeline, Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// `.A.B` or `.`.
    Fields(Vec<String>),
    Variable(String, Vec<String>),
    Literal(Value),
    Word(String),
    Open,
    /// `)` and the fields that follow it.
    Close(Vec<String>),
    Pipe,
    Declare,
    Assign,
    Comma,
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// Deepest nesting of blocks and of brackets.
const MAX_DEPTH: usize = 100;

fn refuse<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = pieces(text)?.into_iter();
    match block(&mut pieces, 0)? {
        (nodes, None) => Ok(nodes),
        (_, Some(tokens)) => refuse(format!("unexpected {{{{{}}}}}", word(&tokens).unwrap_or("else"))),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let mut before = &rest[..start];
        if trim {
            before = before.trim_start();
        }
        rest = &rest[start + 2..];
        if let Some(after) = rest.strip_prefix("- ") {
            before = before.trim_end();
            rest = after;
        }
        let end = close(rest).ok_or_else(|| TemplateError("an action is not closed with }}".to_owned()))?;
        let mut action = rest[..end].trim_end();
        trim = rest[..end].ends_with(" -") || rest[..end] == *"-";
        if trim {
            action = action.strip_suffix('-').unwrap_or(action);
        }
        rest = &rest[end + 2..];
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(action)?));
        }
    }
    let rest = if trim { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// Where the action ends: at the first `}}` outside quotes.
fn close(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 0;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

fn tokens(action: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = action;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let ident = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        match first {
            '(' => {
                tokens.push(Token::Open);
                rest = &rest[1..];
            }
            ')' => {
                let (fields, after) = fields(&rest[1..]);
                tokens.push(Token::Close(fields));
                rest = after;
            }
            '|' => {
                tokens.push(Token::Pipe);
                rest = &rest[1..];
            }
            ',' => {
                tokens.push(Token::Comma);
                rest = &rest[1..];
            }
            ':' if rest.starts_with(":=") => {
                tokens.push(Token::Declare);
                rest = &rest[2..];
            }
            '=' => {
                tokens.push(Token::Assign);
                rest = &rest[1..];
            }
            '.' => {
                let (fields, after) = fields(rest);
                tokens.push(Token::Fields(fields));
                rest = if after.len() == rest.len() { &rest[1..] } else { after };
            }
            '$' => {
                let end = ident(&rest[1..]) + 1;
                let (fields, after) = fields(&rest[end..]);
                tokens.push(Token::Variable(rest[1..end].to_owned(), fields));
                rest = after;
            }
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| TemplateError("a quote is not closed".to_owned()))?;
                tokens.push(Token::Literal(Value::String(rest[1..=end].to_owned())));
                rest = &rest[end + 2..];
            }
            '"' => {
                let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                match values.next() {
                    Some(Ok(text)) => {
                        let used = values.byte_offset();
                        tokens.push(Token::Literal(Value::String(text)));
                        rest = &rest[used..];
                    }
                    _ => return refuse("a quote is not closed"),
                }
            }
            c if c.is_ascii_digit() || c == '-' => {
                let end = rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(rest.len(), |at| at + 1);
                match serde_json::from_str(&rest[..end]) {
                    Ok(number) => tokens.push(Token::Literal(number)),
                    Err(_) => return refuse(format!("{:?} is not a number", &rest[..end])),
                }
                rest = &rest[end..];
            }
            c if c.is_alphabetic() => {
                let end = ident(rest);
                tokens.push(match &rest[..end] {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Null),
                    word => Token::Word(word.to_owned()),
                });
                rest = &rest[end..];
            }
            other => return refuse(format!("unexpected {other:?} in an action")),
        }
    }
}

/// `.A.B…` at the start of `text`, and what follows.
fn fields(text: &str) -> (Vec<String>, &str) {
    let mut fields = Vec::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix('.') {
        let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
        if end == 0 {
            break;
        }
        fields.push(after[..end].to_owned());
        rest = &after[end..];
    }
    (fields, rest)
}

fn word(tokens: &[Token]) -> Option<&str> {
    match tokens.first() {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    }
}

/// Nodes up to an `else` or `end` that is not ours, which is handed back.
fn block(
    pieces: &mut std::vec::IntoIter<Piece>,
    depth: usize,
) -> Result<(Vec<Node>, Option<Vec<Token>>), TemplateError> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Text(text) => nodes.push(Node::Text(text)),
            Piece::Action(tokens) => match word(&tokens) {
                Some("else" | "end") => return Ok((nodes, Some(tokens))),
                Some("if" | "with" | "range") => nodes.push(control(&tokens, pieces, depth + 1)?),
                Some("break") if tokens.len() == 1 => nodes.push(Node::Break),
                Some("continue") if tokens.len() == 1 => nodes.push(Node::Continue),
                _ => match tokens.as_slice() {
                    [Token::Variable(name, fields), Token::Declare, value @ ..] if fields.is_empty() => {
                        nodes.push(Node::Declare { name: name.clone(), value: pipeline(value)? });
                    }
                    [Token::Variable(name, fields), Token::Assign, value @ ..] if fields.is_empty() => {
                        nodes.push(Node::Assign { name: name.clone(), value: pipeline(value)? });
                    }
                    _ => nodes.push(Node::Print(pipeline(&tokens)?)),
                },
            },
        }
    }
    Ok((nodes, None))
}

fn control(tokens: &[Token], pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Node, TemplateError> {
    if depth > MAX_DEPTH {
        return refuse(format!("is nested deeper than {MAX_DEPTH} blocks"));
    }
    let keyword = word(tokens).unwrap_or_default().to_owned();
    let head = &tokens[1..];
    let (then, end) = block(pieces, depth)?;
    let otherwise = match end {
        None => return refuse("{{if}} or {{range}} without {{end}}"),
        Some(end) if word(&end) == Some("end") => Vec::new(),
        // `else if …` is an `if` inside the `else`, closed by the same `end`.
        Some(end) if end.len() > 1 => vec![control(&end[1..], pieces, depth + 1)?],
        Some(_) => match block(pieces, depth)? {
            (nodes, Some(end)) if word(&end) == Some("end") => nodes,
            _ => return refuse("{{else}} without {{end}}"),
        },
    };
    Ok(match keyword.as_str() {
        "if" => Node::If { test: pipeline(head)?, then, otherwise },
        "with" => match head {
            [Token::Variable(name, _), Token::Declare, value @ ..] => {
                Node::With { name: Some(name.clone()), value: pipeline(value)?, then, otherwise }
            }
            value => Node::With { name: None, value: pipeline(value)?, then, otherwise },
        },
        "range" => {
            let (key, item, over) = match head {
                [
                    Token::Variable(key, _),
                    Token::Comma,
                    Token::Variable(item, _),
                    Token::Declare | Token::Assign,
                    over @ ..,
                ] => (Some(key.clone()), Some(item.clone()), over),
                [Token::Variable(item, _), Token::Declare | Token::Assign, over @ ..] => {
                    (None, Some(item.clone()), over)
                }
                over => (None, None, over),
            };
            Node::Range { key, item, over: pipeline(over)?, then, otherwise }
        }
        other => return refuse(format!("unexpected {{{{else {other}}}}}")),
    })
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, TemplateError> {
    let mut tokens = tokens.iter();
    let (pipeline, closed) = commands(&mut tokens, 0)?;
    if closed.is_some() { refuse("unexpected )") } else { Ok(pipeline) }
}

fn commands(
    tokens: &mut std::slice::Iter<'_, Token>,
    depth: usize,
) -> Result<(Pipeline, Option<Vec<String>>), TemplateError> {
    let mut pipeline: Pipeline = Vec::new();
    let mut command: Command = Vec::new();
    let mut closed = None;
    while let Some(token) = tokens.next() {
        match token {
            Token::Fields(fields) => command.push(Operand::Fields(fields.clone())),
            Token::Variable(name, fields) => command.push(Operand::Variable(name.clone(), fields.clone())),
            Token::Literal(value) => command.push(Operand::Literal(value.clone())),
            Token::Word(name) => command.push(Operand::Function(name.clone())),
            Token::Open if depth > MAX_DEPTH => return refuse(format!("is nested deeper than {MAX_DEPTH} brackets")),
            Token::Open => match commands(tokens, depth + 1)? {
                (inner, Some(fields)) => command.push(Operand::Group(inner, fields)),
                (_, None) => return refuse("( is not closed"),
            },
            Token::Close(fields) => {
                closed = Some(fields.clone());
                break;
            }
            Token::Pipe => pipeline.push(std::mem::take(&mut command)),
            Token::Declare | Token::Assign | Token::Comma => return refuse("unexpected := or , in an action"),
        }
    }
    pipeline.push(command);
    if pipeline.iter().any(Vec::is_empty) {
        return refuse("an action or a side of | is empty");
    }
    Ok((pipeline, closed))
}
