//! Values as text: Go's `fmt`, as far as templates reach it.

use serde_json::Value;

/// Prints a value as Go prints it. `outer`: by itself, not as a part of another.
pub(super) fn show(value: &Value, outer: bool) -> String {
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

/// Go's `Sprint`: a space between two neighbours of which neither is a string.
pub(super) fn print(args: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in args.iter().enumerate() {
        if at > 0 && !value.is_string() && !args[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&show(value, false));
    }
    out
}

/// The name of a value's type in Go, as well as JSON tells it.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(items) if items.iter().all(Value::is_string) => "[]string",
        Value::Array(_) => "[]interface {}",
        Value::Object(map) if map.values().all(Value::is_string) => "map[string]string",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// What stands between `%` and the verb.
#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
}

/// Widest field and longest precision: a template must not ask for a gigabyte of spaces.
const MAX_WIDTH: usize = 10_000;

/// Go's `Sprintf`. What does not fit its verb says so in the text, as in Go.
pub(super) fn printf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut used = 0;
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = rest.next_if(|c| matches!(c, '-' | '+' | '#' | ' ' | '0')) {
            match flag {
                '-' => spec.left = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                _ => spec.zero = true,
            }
        }
        let mut number = || {
            if rest.next_if_eq(&'*').is_some() {
                used += 1;
                return args.get(used - 1).and_then(Value::as_i64);
            }
            let mut digits = None;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                digits = Some((digits.unwrap_or(0) * 10 + i64::from(digit)).min(MAX_WIDTH as i64));
                rest.next();
            }
            digits
        };
        let width = number().unwrap_or(0).clamp(-(MAX_WIDTH as i64), MAX_WIDTH as i64);
        spec.left |= width < 0;
        spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(0);
        let precise = rest.next_if_eq(&'.').is_some();
        if precise {
            let mut digits = 0usize;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                digits = (digits * 10 + digit as usize).min(MAX_WIDTH);
                rest.next();
            }
            spec.precision = Some(digits);
        }
        match rest.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => {
                match args.get(used) {
                    None => out.push_str(&format!("%!{verb}(MISSING)")),
                    Some(value) => out.push_str(&verb_text(verb, value, &spec)),
                }
                used += 1;
            }
        }
    }
    if used < args.len() {
        let extra: Vec<String> =
            args[used..].iter().map(|value| format!("{}={}", type_name(value), show(value, false))).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn verb_text(verb: char, value: &Value, spec: &Spec) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let text = match (verb, value) {
        ('T', value) => type_name(value).to_owned(),
        ('v', Value::String(text)) if spec.sharp => quoted(text),
        ('v', Value::Number(number)) => return numeric(number, 'v', spec),
        ('v', value) => show(value, false),
        ('t', Value::Bool(value)) => value.to_string(),
        ('d' | 'f' | 'F' | 'e' | 'g' | 'x' | 'X' | 'o' | 'b' | 'c' | 'q' | 'U', Value::Number(number)) => {
            return numeric(number, verb, spec);
        }
        ('s', Value::String(text)) => cut(text, spec),
        ('q', Value::String(text)) => quoted(&cut(text, spec)),
        ('x', Value::String(text)) => hex::encode(text),
        ('X', Value::String(text)) => hex::encode_upper(text),
        // Verbs reach into lists and maps.
        (_, Value::Array(items)) => {
            let inner: Vec<String> = items.iter().map(|item| verb_text(verb, item, &Spec::default())).collect();
            format!("[{}]", inner.join(" "))
        }
        (_, Value::Object(map)) => {
            let plain = Spec::default();
            let pairs = map.iter().map(|(key, value)| {
                format!("{}:{}", verb_text(verb, &Value::from(key.as_str()), &plain), verb_text(verb, value, &plain))
            });
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        (_, Value::Null) => format!("%!{verb}(<nil>)"),
        (_, value) => format!("%!{verb}({}={})", type_name(value), show(value, false)),
    };
    pad(&text, spec)
}

fn cut(text: &str, spec: &Spec) -> String {
    spec.precision.map_or_else(|| text.to_owned(), |precision| text.chars().take(precision).collect())
}

fn pad(text: &str, spec: &Spec) -> String {
    let width = spec.width;
    if spec.left { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

fn numeric(number: &serde_json::Number, verb: char, spec: &Spec) -> String {
    let mismatch = |kind: &str| pad(&format!("%!{verb}({kind}={number})"), spec);
    let (negative, digits) = if let Some(whole) = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)) {
        let size = whole.unsigned_abs();
        let digits = match verb {
            'v' | 'd' => size.to_string(),
            'x' => format!("{}{size:x}", if spec.sharp { "0x" } else { "" }),
            'X' => format!("{}{size:X}", if spec.sharp { "0X" } else { "" }),
            'o' => format!("{}{size:o}", if spec.sharp { "0" } else { "" }),
            'b' => format!("{size:b}"),
            'c' | 'q' | 'U' => {
                let letter = u32::try_from(whole).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                let text = match verb {
                    'c' => letter.to_string(),
                    'q' => format!("'{letter}'"),
                    _ => format!("U+{size:04X}"),
                };
                return pad(&text, spec);
            }
            _ => return mismatch("int"),
        };
        (whole < 0, digits)
    } else {
        let float = number.as_f64().unwrap_or(0.0);
        let size = float.abs();
        let digits = match (verb, spec.precision) {
            ('v' | 'g', None) => size.to_string(),
            ('v' | 'g' | 'f' | 'F', precision) => format!("{size:.*}", precision.unwrap_or(6)),
            ('e', precision) => {
                // Go writes the exponent with a sign and two digits.
                let text = format!("{size:.*e}", precision.unwrap_or(6));
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or(0);
                format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
            }
            _ => return mismatch("float64"),
        };
        (float.is_sign_negative(), digits)
    };
    let sign = match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    if spec.zero && !spec.left {
        let width = spec.width.saturating_sub(sign.len());
        return format!("{sign}{digits:0>width$}");
    }
    pad(&format!("{sign}{digits}"), spec)
}
