//! The grammar, by behaviour. What BuildKit says of some hundred files is in `tests/buildkit.rs`.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn body(text: &str) -> Vec<Instruction> {
    parse(&format!("FROM a\n{text}")).stages.remove(0).body
}

#[test]
fn joins_lines_and_drops_comments() {
    let text = "# escape=`\n# a comment\nARG V=1\nFROM --platform=wasi/wasm scratch AS Base\nENV a=1 `\n  # not me\n\n  \
                b=2\ncopy --from=x a b `\n c/\n";
    let file = parse(text);
    assert_eq!(file.directives.escape, '`');
    assert_eq!(file.globals[0].text, "ARG V=1");
    assert_eq!(
        (file.globals[0].comments.as_slice(), file.globals[0].lines),
        (&["a comment".to_owned()][..], Lines::single(3))
    );
    let stage = &file.stages[0];
    assert_eq!((stage.name.as_deref(), stage.from.name.as_deref()), (Some("base"), Some("Base")));
    assert_eq!((stage.from.image.as_str(), stage.from.platform.as_deref()), ("scratch", Some("wasi/wasm")));
    assert_eq!(stage.body[0].rest.split_whitespace().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!((stage.body[1].keyword, stage.body[1].lines), (Keyword::Copy, Lines { first: 9, last: 10 }));
    assert_eq!((stage.body[1].written.as_str(), stage.lines), ("copy", Lines { first: 4, last: 10 }));
}

#[test]
fn every_way_to_end_a_line_reads_the_same() {
    let unix = parse("FROM a\nRUN b \\\n  c\nCMD [\"d\"]\n");
    for text in [
        "\u{feff}FROM a\r\nRUN b \\\r\n  c\r\nCMD [\"d\"]\r\n",
        "FROM a\nRUN b \\ \t\n  c\nCMD [\"d\"]",
        "  FROM a\n\tRUN b \\\n# x\n  c\n \tCMD [\"d\"] \n",
    ] {
        let read = parse(text);
        let of = |file: &Dockerfile| file.instructions().map(|at| at.text.clone()).collect::<Vec<_>>();
        assert_eq!(of(&read), of(&unix), "{text:?}");
    }
    assert_eq!(body("RUN a \\\\\nRUN b").len(), 2);
    assert_eq!(body("RUN a # \\\n b")[0].rest, "a #  b");
    assert_eq!(body("RUN a \\")[0].rest, "a");
    assert_eq!(body("# a \\\nRUN b").len(), 1);
}

#[test]
fn directives_stand_before_all_else() {
    assert_eq!(
        parse("#Syntax = a/b:1 x \n# check=skip=all\nFROM a").directives,
        Directives { syntax: Some("a/b:1 x".to_owned()), escape: '\\', check: Some("skip=all".to_owned()) }
    );
    for text in
        ["# x\n# escape=`\nFROM a", "\n# escape=`\nFROM a", "#!/x\n# escape=`\nFROM a", "# foo=a\n# escape=`\nFROM a"]
    {
        assert_eq!(parse(text).directives.escape, '\\', "{text}");
    }
    assert_eq!(parse("  # escape=`\nFROM a").directives.escape, '`');
}

#[test]
fn reads_heredocs() {
    let read = &body("RUN <<EOF cat <<-'X Y' \\\n  > /z\n$a\n\tEOF\nEOF\n\tb\n\tX Y\nRUN b")[..];
    let [first, second] = read else { panic!("{read:?}") };
    assert_eq!((first.text.as_str(), first.lines), ("RUN <<EOF cat <<-'X Y'   > /z", Lines { first: 2, last: 8 }));
    let docs: Vec<_> =
        first.heredocs.iter().map(|doc| (doc.name.as_str(), doc.content.as_str(), doc.text(), doc.expand)).collect();
    assert_eq!(
        docs,
        [("EOF", "$a\n\tEOF\n", "$a\n\tEOF\n".to_owned(), true), ("X Y", "\tb\n", "b\n".to_owned(), false)]
    );
    assert_eq!(second.lines, Lines::single(9));
    assert_eq!(body("COPY <<a <<\"b\" /x/\n1\r\na\r\n2\nb\n")[0].heredocs[0].content, "1\r\n");
    assert_eq!(body("ONBUILD RUN <<EOF\nx\nEOF")[0].heredocs[0].content, "x\n");
    assert!(body("RUN [\"a\", \"<<EOF\"]")[0].heredocs.is_empty());
}

#[test]
fn bounds_hold() {
    let many = "FROM a\n".repeat(MOST_STAGES + 1);
    assert!(Dockerfile::parse(&many).unwrap_err().message.ends_with("a Dockerfile has at most 256 stages: divide it"));
    let many = format!("FROM a\n{}", "USER b\n".repeat(MOST_INSTRUCTIONS));
    assert!(Dockerfile::parse(&many).unwrap_err().message.contains("at most 10000 instructions"));
    let long = format!("FROM a\nRUN {}\n", "x".repeat(70_000));
    let error = Dockerfile::parse(&long).unwrap_err();
    assert_eq!(
        (error.message.as_str(), error.line()),
        ("dockerfile line greater than max allowed size of 65535", Some(2))
    );
}

proptest! {
    #[test]
    fn never_panics_and_keeps_lines_in_bounds(
        text in "(?s)((FROM|ENV|COPY|RUN|ONBUILD|HEALTHCHECK|#|<<|EOF|--mount=|\\\\|\\[|\"|\n| |a|=|\\PC){0,40}|.{0,80})"
    ) {
        let last = text.split('\n').count();
        let in_bounds = |lines: &Lines| 1 <= lines.first && lines.first <= lines.last && lines.last <= last;
        match Dockerfile::parse(&format!("FROM a\n{text}")) {
            Ok(file) => {
                let mut before = 0;
                for at in file.instructions() {
                    prop_assert!(at.lines.first > before && at.lines.last <= last + 1, "{at:?}");
                    before = at.lines.last;
                }
            }
            Err(error) => prop_assert!(error.lines.iter().all(|lines| lines.first <= lines.last && lines.last <= last + 1)),
        }
        if let Err(error) = Dockerfile::parse(&text) {
            prop_assert!(error.lines.iter().all(in_bounds), "{error:?}");
        }
        // As the fuzz target does it.
        crate::fuzz::dockerfile(&text);
        crate::fuzz::dockerfile(&format!("FROM a\n{text}"));
    }
}
