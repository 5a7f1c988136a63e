//! One record of comma-separated values, as `--mount` has it.
//!
//! Source: RFC 4180 as Go's `encoding/csv` reads it: quotes are doubled within quotes and stand at a field's ends alone.

/// Reads the fields of one line.
///
/// # Errors
/// In the words of BuildKit's reader.
pub(super) fn fields(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let column = |rest: &str| line.len() - rest.len() + 1;
        let after;
        match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if let Some(quote) = rest[..end].find('"') {
                    let column = column(rest) + quote;
                    return Err(format!("parse error on line 1, column {column}: bare \" in non-quoted-field"));
                }
                fields.push(rest[..end].to_owned());
                after = &rest[end..];
            }
            Some(quoted) => {
                let mut field = String::new();
                let mut quoted = quoted;
                loop {
                    let Some(end) = quoted.find('"') else {
                        let column = line.len() + 1;
                        return Err(format!(
                            "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
                        ));
                    };
                    field.push_str(&quoted[..end]);
                    quoted = &quoted[end + 1..];
                    match quoted.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            quoted = more;
                        }
                        None if quoted.is_empty() || quoted.starts_with(',') => break,
                        None => {
                            let column = column(quoted) - 1;
                            return Err(format!(
                                "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
                            ));
                        }
                    }
                }
                fields.push(field);
                after = quoted;
            }
        }
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn reads_quoted_fields() {
        assert_eq!(fields("a=b,c").unwrap(), ["a=b", "c"]);
        assert_eq!(fields("a,\"b=\"\"c,d\",,").unwrap(), ["a", "b=\"c,d", "", ""]);
        assert_eq!(
            fields("type=cache,target=a\"b").unwrap_err(),
            "parse error on line 1, column 20: bare \" in non-quoted-field"
        );
        assert!(fields("\"a\"b").unwrap_err().contains("in quoted-field"));
        assert!(fields("\"a").unwrap_err().contains("in quoted-field"));
        assert_eq!(fields("").unwrap_err(), "EOF");
    }
}
