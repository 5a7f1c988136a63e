//! Expansion, held against what BuildKit made of the same words.

use proptest::prelude::*;

use super::super::{Expander, split};
use super::*;

fn value(name: &str) -> Option<String> {
    match name {
        "a" => Some("1".to_owned()),
        "path" => Some("a/b/a.tar.gz".to_owned()),
        "spaced" => Some("x y".to_owned()),
        "empty" => Some(String::new()),
        _ => None,
    }
}

fn expand(word: &str) -> Result<String, String> {
    Expander::new('\\', &value).word(word)
}

#[test]
fn expands_as_buildkit_does() {
    for (word, expected) in [
        ("x$a", "x1"),
        ("${a}x", "1x"),
        ("$none.", "."),
        ("\\$a", "$a"),
        ("'$a'", "$a"),
        ("\"$a b\"", "1 b"),
        ("\"\\x\\\"\"", "\\x\""),
        ("${none:-two}", "two"),
        ("${empty:-two}", "two"),
        ("${empty-two}", ""),
        ("${a:+set}", "set"),
        ("${empty:+set}", ""),
        ("${empty+set}", "set"),
        ("${none:-${a}}", "1"),
        ("100$", "100$"),
        ("$$a", "a"),
        ("a$-b", "ab"),
        ("$12x", "x"),
        ("${path#*/}", "b/a.tar.gz"),
        ("${path##*/}", "a.tar.gz"),
        ("${path%.*}", "a/b/a.tar"),
        ("${path%%.*}", "a/b/a"),
        ("${path#x}", "a/b/a.tar.gz"),
        ("${path%.?z}", "a/b/a.tar"),
        ("${path/a/x}", "x/b/a.tar.gz"),
        ("${path//a/x}", "x/b/x.txr.gz"),
        ("${path//\\//-}", "a-b-a.tar.gz"),
        ("${path/${none:-b}/$a}", "a/1/a.tar.gz"),
        ("${path//./}", "a/b/atargz"),
        ("${path/n*/x}", "a/b/a.tar.gz"),
        ("${path#\\*}", "a/b/a.tar.gz"),
        ("${none#x}", ""),
    ] {
        assert_eq!(expand(word).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn refuses_in_buildkits_words() {
    for (word, reason) in [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("${b", "unsupported modifier (\u{fffd}) in substitution"),
        ("${b:?nope}", "b: nope"),
        ("${b?}", "b: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${b!x}", "unsupported modifier (!) in substitution"),
        ("${b:!x}", "unsupported modifier (:!) in substitution"),
        ("${}", "syntax error: bad substitution"),
        ("${", "syntax error: missing '}'"),
        ("${a:-b", "syntax error: missing '}'"),
        ("${a/b}", "syntax error: missing '/' in ${}"),
        ("${a%x", "syntax error: missing '}'"),
    ] {
        assert_eq!(expand(word), Err(format!("failed to process {word:?}: {reason}")), "{word}");
    }
}

#[test]
fn words_are_divided_after_their_values_are_in() {
    let mut expander = Expander::new('\\', &value);
    assert_eq!(expander.words("$spaced \"$spaced\" a\\ b'c d'").unwrap(), ["x", "y", "x y", "a bc d"]);
    assert_eq!(expander.words("$none").unwrap(), Vec::<String>::new());
    assert_eq!(expander.heredoc("'$a' \\$a \"${none}\"").unwrap(), "'1' $a \"\"");
    assert_eq!(expander.used().iter().collect::<Vec<_>>(), ["a", "spaced"]);
    assert_eq!(expander.unset().iter().collect::<Vec<_>>(), ["none"]);
}

#[test]
fn what_grows_too_long_is_refused() {
    let long = |name: &str| if name == "b" { None } else { Some("x".repeat(600_000)) };
    for word in ["${a//x/yy}", "$a$a", "\"$a$a\"", "${b:-$a$a}"] {
        let error = Expander::new('\\', &long).word(word).unwrap_err();
        assert!(error.ends_with("it comes to more than 1048576 bytes"), "{error}");
    }
    let deep = "${x:-".repeat(100) + &"}".repeat(100);
    assert!(expand(&deep).is_err());
}

proptest! {
    #[test]
    fn never_panics_and_stays_bounded(word in "[$\\{\\}a:'\"\\\\+?#%/*x -]{0,40}|\\PC{0,40}", escape in "[\\\\`]") {
        let escape = escape.chars().next().unwrap();
        let mut expander = Expander::new(escape, &value);
        if let Ok(out) = expander.word(&word) {
            prop_assert!(out.len() <= LONGEST);
        }
        let _ = expander.words(&word);
        let _ = expander.heredoc(&word);
        let _ = split(&word, escape);
    }

    #[test]
    fn text_without_variables_expands_to_itself_but_for_quotes(text in "[a-z0-9 /.=:,'\"]{0,60}") {
        if let Ok(out) = expand(&text) {
            let mut quote = None;
            let expected: String = text.chars().filter(|letter| match quote {
                None if "'\"".contains(*letter) => { quote = Some(*letter); false }
                Some(open) if open == *letter => { quote = None; false }
                _ => true,
            }).collect();
            prop_assert_eq!(out, expected);
        } else {
            prop_assert!(text.contains(['\'', '"']));
        }
    }

    // In the word of `${x-word}` BuildKit takes escapes away whatever is to be kept (`shell/lex.go`, `processStopOn`).
    #[test]
    fn nothing_is_lost_when_all_is_kept(text in "[a-z $\\{\\}'\"-]{0,40}|[a-z '\"\\\\-]{0,40}") {
        let lexer = Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new('\\') };
        if let Ok(read) = lexer.lex(&text, &|_| None) {
            prop_assert_eq!(read.text, text);
        }
    }
}
