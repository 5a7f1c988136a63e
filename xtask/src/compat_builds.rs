//! The section of `docs/compatibility.md` on builds: the corpus of `tests/builds`, on Docker's newest engine and on ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::task_compat::escaped;
use crate::{task_oracle, workspace};

/// One case of the corpus.
pub(crate) struct Case {
    says: String,
    /// By client: why ours does not build it as Docker's engine does; `None` where it does.
    clients: BTreeMap<String, Option<String>>,
}

/// Builds the corpus on both engines.
///
/// # Errors
/// When Docker's engine does not make what is kept as its own; when ours differs in what nobody has written down.
pub(crate) fn run() -> Result<BTreeMap<String, Case>> {
    task_oracle::start_newest()?;
    let report = workspace::made("compat-builds");
    if report.exists() {
        fs::remove_dir_all(&report).with_context(|| format!("cannot clear {}", report.display()))?;
    }
    fs::create_dir_all(&report).with_context(|| format!("cannot create {}", report.display()))?;
    task_oracle::build_corpus(false, &[])?;
    let run = ["nextest", "run", "--locked", "--workspace", "--no-fail-fast", "--test", task_oracle::BUILDS];
    // What fails here is in the report as well; the page is written all the same.
    let ended = workspace::run(workspace::cargo(&run).env("BIREME_TEST_REPORT", &report));
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for file in fs::read_dir(&report).context("cannot list the report")? {
        let told: Value = serde_json::from_str(&workspace::read(&file.context("cannot list the report")?.path())?)?;
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let case = cases.entry(text("case")).or_insert(Case { says: text("says"), clients: BTreeMap::new() });
        let same = told["same"] == true;
        case.clients.insert(text("client"), if same { None } else { Some(text("why")) });
    }
    if cases.is_empty() {
        ended?;
    }
    Ok(cases)
}

/// How many builds there are, and how many of them are the same.
pub(crate) fn count(cases: &BTreeMap<String, Case>) -> (usize, usize) {
    let all = || cases.values().flat_map(|case| case.clients.values());
    (all().count(), all().filter(|why| why.is_none()).count())
}

/// The builds that differ without a reason written down.
pub(crate) fn complaints(cases: &BTreeMap<String, Case>) -> Vec<String> {
    let of = |(name, case): (&String, &Case)| -> Vec<String> {
        let wrong = case.clients.iter().filter(|(_, why)| why.as_ref().is_some_and(String::is_empty));
        wrong.map(|(client, _)| format!("{name}::{client}")).collect()
    };
    cases.iter().flat_map(of).collect()
}

/// The table.
pub(crate) fn section(cases: &BTreeMap<String, Case>) -> String {
    let mut page = String::from(
        "\n## Builds\n\nThe Dockerfiles of [tests/builds](../tests/builds), built by real clients: `docker build` with the newest \
         buildx, with buildx 0.13.1 (`buildx-old`) and without it (`classic`), `docker buildx bake`, `docker compose build` without \
         and with buildx (`compose-bake`). What is compared: exit code, configuration, history, files with modes and owners. \
         Docker's engine is 28.5.2 or newer here, with the image store of containerd.\n\n\
         | case | what is expected | built by | Docker | Bireme |\n|---|---|---|---|---|\n",
    );
    for (name, case) in cases {
        let clients: Vec<&str> = case.clients.keys().map(String::as_str).collect();
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (client, why) in &case.clients {
            if let Some(why) = why {
                reasons.entry(why).or_default().push(client);
            }
        }
        let answer: Vec<String> = reasons
            .iter()
            .map(|(why, of)| match (why.is_empty(), of.len() == clients.len()) {
                (true, true) => "**no**".to_owned(),
                (true, false) => format!("**no** by {}", of.join(", ")),
                (false, true) => format!("no: {why}"),
                (false, false) => format!("no by {}: {why}", of.join(", ")),
            })
            .collect();
        let answer = if answer.is_empty() { "yes".to_owned() } else { answer.join("; ") };
        let (says, answer) = (escaped(&case.says), escaped(&answer));
        let _ = writeln!(page, "| `{name}` | {says} | {} | yes | {answer} |", clients.join(", "));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_which_clients_differ_and_why() {
        let clients =
            [("buildx", None), ("classic", Some("no such step".to_owned())), ("compose", Some(String::new()))];
        let clients = clients.map(|(client, why)| (client.to_owned(), why)).into();
        let cases = BTreeMap::from([("a".to_owned(), Case { says: "one | two".to_owned(), clients })]);
        let page = section(&cases);
        let row = page.lines().last().unwrap_or_default();
        assert_eq!(
            row,
            "| `a` | one \\| two | buildx, classic, compose | yes | **no** by compose; no by classic: no such step |"
        );
        assert_eq!(count(&cases), (3, 1));
        assert_eq!(complaints(&cases), ["a::compose"]);
    }
}
