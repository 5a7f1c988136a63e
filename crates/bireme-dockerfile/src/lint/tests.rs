//! What the linter does where it is not told all. What it says otherwise is in `tests/buildkit.rs`.

use super::*;
use crate::scope::{PlatformWords, predefined};

fn rules(text: &str, base: &dyn Fn(&str) -> Option<BaseImage>, ignored: Option<Ignored<'_>>) -> Vec<String> {
    rules_with(text, base, ignored, &BTreeMap::new())
}

fn rules_with(
    text: &str,
    base: &dyn Fn(&str) -> Option<BaseImage>,
    ignored: Option<Ignored<'_>>,
    build_args: &BTreeMap<String, String>,
) -> Vec<String> {
    let linux = PlatformWords { os: "linux", arch: "amd64", variant: "" };
    let predefined = predefined(linux, linux, None, build_args);
    let context = LintContext { build_args, predefined: &predefined, base, ignored };
    let (warnings, _) = lint(&Dockerfile::parse(text).unwrap(), &context).unwrap();
    warnings.into_iter().map(|warning| format!("{} {}", warning.lines.first, warning.rule)).collect()
}

#[test]
fn what_depends_on_an_unknown_image_is_not_judged() {
    let text = "FROM x AS a\nENV a=$b\nCMD c\nWORKDIR $d\nENV e f\nFROM scratch\nUSER $g\nFROM a\nUSER $h\n";
    assert_eq!(rules(text, &|_| None, None), ["5 LegacyKeyValueFormat", "7 UndefinedVar"]);
    let known = rules(text, &|_| Some(BaseImage::default()), None);
    assert_eq!(known.len(), 7, "{known:?}");
    // A shell of the image's own reads commands, so that nothing is said of them.
    let shell = |_: &str| Some(BaseImage { shell: true, ..BaseImage::default() });
    assert!(!rules(text, &shell, None).contains(&"3 JSONArgsRecommended".to_owned()));
}

#[test]
fn files_that_the_context_leaves_out_are_named() {
    let path = |path: &str| matches!(path, "foo" | "d/x");
    let text = "# check=experimental=CopyIgnoredFile\nFROM x\nCOPY foo ./d/../d//x bar /y/\nADD . http://h/foo /z/\n\
                COPY --from=x foo /\n";
    let ignored = Ignored { path: &path, exceptions: false, everything: false };
    let said = |ignored| rules(text, &|_| Some(BaseImage::default()), Some(ignored));
    assert_eq!(said(ignored), ["3 CopyIgnoredFile", "3 CopyIgnoredFile"]);
    assert_eq!(said(Ignored { everything: true, ..ignored }).len(), 3);
    assert!(said(Ignored { exceptions: true, ..ignored }).is_empty());
}

#[test]
fn options_of_the_build_go_before_those_of_the_file() {
    let text = "# check=skip=all\nFROM x AS Y\n";
    assert!(rules(text, &|_| None, None).is_empty());
    let build_args = [("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "skip=JSONArgsRecommended".to_owned())].into();
    assert_eq!(rules_with(text, &|_| None, None, &build_args), ["2 StageNameCasing"]);
}

#[test]
fn the_work_on_a_hostile_file_is_bounded() {
    let linux = PlatformWords { os: "linux", arch: "amd64", variant: "" };
    let build_args = BTreeMap::new();
    let predefined = predefined(linux, linux, None, &build_args);
    let context = LintContext { build_args: &build_args, predefined: &predefined, base: &|_| None, ignored: None };
    let value = "x".repeat(60_000);
    let names: String = (0..200).map(|number| format!("n{number:060}=1 ")).collect();
    let matched = format!("USER {}\n", "${a//*x*y/z}".repeat(2_000)).repeat(50);
    for text in [
        format!("FROM scratch\nENV a={value}\nENV a=$a$a$a$a\nENV a=$a$a$a$a\n{}", "USER $a$a$a\n".repeat(5_000)),
        format!("FROM scratch\nENV a={value}\n{matched}"),
        format!("FROM scratch\nENV {names}\n{}", format!("USER $n{}1\n", "0".repeat(61)).repeat(5_000)),
    ] {
        let found = found(&Dockerfile::parse(&text).unwrap(), &context).unwrap();
        assert!(found.full() && found.warnings.len() <= MOST_WARNINGS, "{}", &text[..60]);
        // One word may overstep it.
        assert!(found.cost <= 2 * MOST_COST, "{} for {}", found.cost, &text[..60]);
    }
}
