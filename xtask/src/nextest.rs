//! The test runner: cargo-nextest, set up by `.config/nextest.toml`; and tests that passed only when tried again.
//!
//! No memory outlasts a run in CI, which begins with a fresh clone. So what is wrong with a flaky test is asked in the run
//! itself: it is tried a few times more, alone. One that fails again, with nothing beside it, fails the run; one that does
//! not was hindered by the machine, and is only named.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::process::Command;
use std::thread;

use anyhow::{Result, bail};

use crate::workspace;

/// The profile of CI, the only one that tries a failed test again. Its report is what flaky tests are read from.
pub(crate) const CI: &str = "ci";

/// How often a flaky test is tried alone.
const TRIES: usize = 3;

/// Whether it is installed; `cargo test` stands in where it is not.
pub(crate) fn is_there() -> bool {
    workspace::has("cargo-nextest")
}

/// A run of the tests of the whole workspace, in `profile`; with further `arguments`.
pub(crate) fn command(profile: &str, arguments: &[&str]) -> Command {
    // Places, two for each processor: `.config/nextest.toml` says what takes how many.
    let places = 2 * thread::available_parallelism().map_or(2, NonZero::get);
    let mut command = workspace::cargo(&["nextest", "run", "--profile", profile, "--locked", "--workspace"]);
    command.args(["--no-fail-fast", "--test-threads", &places.to_string()]).args(arguments);
    command
}

/// Tries those tests again that the last run in CI's profile called flaky.
///
/// # Errors
/// Names those that failed once more.
pub(crate) fn try_flaky_again() -> Result<()> {
    let report = workspace::read(&workspace::made("nextest").join(CI).join("junit.xml"))?;
    let mut wrong = Vec::new();
    for (binary, test) in flaky(&report) {
        eprintln!("x: FLAKY, tried alone: {binary} {test}");
        let only = format!("binary_id(={binary})");
        let again = || {
            workspace::run(&mut command(
                CI,
                &["--retries", "0", "--no-tests", "fail", "-E", &only, "--", "--exact", &test],
            ))
        };
        if (0..TRIES).any(|_| again().is_err()) {
            wrong.push(format!("{binary} {test}"));
        }
    }
    if !wrong.is_empty() {
        bail!("tests passed when tried again, and failed once more alone:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

/// Binary and name of each test in a report of JUnit's form that failed before it passed.
fn flaky(report: &str) -> BTreeSet<(String, String)> {
    report
        .split("<testcase ")
        .skip(1)
        .filter(|case| case.split("</testcase>").next().is_some_and(|case| case.contains("<flakyFailure")))
        .filter_map(|case| Some((attribute(case, "classname")?, attribute(case, "name")?)))
        .collect()
}

/// The value of an attribute of the tag that `text` begins with.
fn attribute(text: &str, name: &str) -> Option<String> {
    let start = format!("{name}=\"");
    let before = |at: usize| at == 0 || text[..at].ends_with(' ');
    let at = text.match_indices(&start).map(|(at, _)| at).find(|at| before(*at))? + start.len();
    let value = text[at..].split('"').next()?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(value.to_owned(), |value, (escaped, plain)| value.replace(escaped, plain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaky_tests_are_read_from_the_report() {
        let report = "<testsuites><testsuite name=\"t::api\">\
            <testcase name=\"steady\" classname=\"t::api\" time=\"0.1\"></testcase>\
            <testcase name=\"GET /a?b | it&apos;s &lt;there&gt;\" classname=\"t::api\" time=\"0.1\">\
            <flakyFailure timestamp=\"0\" message=\"no\">text</flakyFailure></testcase>\
            <testcase name=\"failed\" classname=\"t::api\"><failure>text</failure></testcase>\
            <testcase name=\"last\" classname=\"t::api\"/></testsuite></testsuites>";
        let expected = ("t::api".to_owned(), "GET /a?b | it's <there>".to_owned());
        assert_eq!(flaky(report), BTreeSet::from([expected]));
    }
}
