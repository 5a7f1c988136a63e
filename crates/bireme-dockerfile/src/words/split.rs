//! Dividing an instruction into words that are not expanded yet.

/// Splits at white space outside quotes; quotes and escapes stay. Pairs of ENV, LABEL and ARG are divided so.
///
/// Source: github.com/moby/buildkit, `frontend/dockerfile/parser/line_parsers.go`, `parseWords`.
pub fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    // `""` is a word.
    let mut quoted = false;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match quote {
            None if letter.is_whitespace() => {
                if quoted || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                quoted = false;
                continue;
            }
            None if letter == '\'' || letter == '"' => {
                quote = Some(letter);
                quoted = true;
            }
            Some(open) if open == letter => quote = None,
            _ => {}
        }
        if letter == escape && quote != Some('\'') {
            // One at the very end is for nothing.
            if let Some(next) = letters.next() {
                word.extend([letter, next]);
            }
        } else {
            word.push(letter);
        }
    }
    if quoted || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_and_escapes_hold_words_together() {
        assert_eq!(split("a='x y' b=\"1 2\" c=\\ d", '\\'), ["a='x y'", "b=\"1 2\"", "c=\\ d"]);
        assert_eq!(split("a=`\" b \"\"", '`'), ["a=`\"", "b", "\"\""]);
        assert_eq!(split(" a\\", '\\'), ["a"]);
        assert_eq!(split("", '\\'), Vec::<String>::new());
    }
}
