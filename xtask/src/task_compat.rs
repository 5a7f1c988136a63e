//! `compat`: the request scripts of `tests/api` against Docker's own engine and against ours, and the page that shows what
//! came of it; with the corpus of builds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use bireme_testing::Engine;
use bireme_testing::conformance::{self, Outcome, Run};

use crate::compat_builds::{self, Case};
use crate::{task_oracle, workspace};

const PAGE: &str = "docs/compatibility.md";

/// Where the scripts whose cases are flags of `docker run` begin.
const FLAGS: &str = "docker run ";

#[derive(clap::Parser)]
pub(crate) struct Args {
    /// Show the tables only, and leave the page and the kept answers of Docker's engine as they are
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let scripts = conformance::scripts().map_err(|error| anyhow!(error))?;
    let kept = conformance::folder().join("shapes");
    let scratch = workspace::made("compat-shapes");
    let shapes = if args.dry_run { &scratch } else { &kept };
    std::fs::create_dir_all(shapes)?;

    workspace::run(&mut workspace::cargo(&["build", "--locked", "--workspace", "--all-targets"]))?;
    task_oracle::start()?;
    let began = Instant::now();
    let socket = task_oracle::socket();
    let docker = Run { socket: &socket, shapes, reference: true };
    let mut theirs = conformance::run(&docker, &scripts);
    eprintln!("x: Docker's engine: {} cases in {:.0} s", theirs.len(), began.elapsed().as_secs_f64());
    // It refuses one prune beside another, and tells of memory that ran out late on a busy machine: with less beside them, the
    // scripts pass that are right.
    for _ in 0..2 {
        theirs.retain(|outcome| outcome.failure.is_some());
        let failed: Vec<_> =
            scripts.iter().filter(|one| theirs.iter().any(|outcome| outcome.script == one.name)).cloned().collect();
        if failed.is_empty() {
            break;
        }
        let again = conformance::run(&docker, &failed);
        theirs.retain(|one| {
            again.iter().any(|other| {
                (&other.script, other.case.line()) == (&one.script, one.case.line()) && other.failure.is_some()
            })
        });
    }
    let wrong: Vec<String> = theirs.iter().filter_map(|outcome| told(outcome, outcome.failure.as_ref()?)).collect();
    if !wrong.is_empty() {
        bail!("Docker's own engine does not pass, so these cases are wrong:\n{}", wrong.join("\n"));
    }

    let engine = Engine::start();
    for image in ["busybox", "alpine"] {
        engine.load(image);
    }
    let began = Instant::now();
    let ours = conformance::run(&Run { socket: &engine.socket(), shapes, reference: false }, &scripts);
    eprintln!("x: Bireme: {} cases in {:.0} s", ours.len(), began.elapsed().as_secs_f64());
    engine.finish();

    let builds = compat_builds::run()?;

    let page =
        page(&ours, &builds, &scripts.iter().map(|script| (script.name.clone(), script.title.clone())).collect());
    match args.dry_run {
        true => println!("{page}"),
        false => workspace::write(&workspace::root().join(PAGE), &page)?,
    }
    let mut complaints: Vec<String> = ours.iter().filter_map(Outcome::complaint).collect();
    complaints.extend(compat_builds::complaints(&builds));
    if !complaints.is_empty() {
        bail!("{} cases are not as the scripts say:\n{}", complaints.len(), complaints.join("\n"));
    }
    Ok(())
}

fn told(outcome: &Outcome, failure: &str) -> Option<String> {
    let case = &outcome.case;
    Some(format!("{}.api:{}: {} | {}\n    {failure}", outcome.script, case.line(), case.subject, case.says))
}

/// The page: a summary, then a table for each script. Every case shown passes on Docker's engine.
fn page(ours: &[Outcome], builds: &BTreeMap<String, Case>, titles: &BTreeMap<String, String>) -> String {
    let mut page = String::from(
        "# Compatibility with Docker's engine\n\n\
         Written by `./x compat`, which runs the request scripts of [tests/api](../tests/api) against Docker's own engine \
         (26.1.5) and against Bireme, on the same machine with the same images. Docker's engine passes every case: a case that it \
         fails is a wrong case. In the column of Bireme, *yes* is the same answer; what differs on purpose, or does not work yet, \
         says so.\n\n",
    );
    let passed = |outcome: &&Outcome| outcome.failure.is_none();
    let groups = [("endpoints", false), ("flags of `docker run` and `docker create`", true)];
    page.push_str("| | cases | the same | known to differ |\n|---|---|---|---|\n");
    for (name, flags) in groups {
        let of = ours.iter().filter(|outcome| outcome.case.subject.starts_with(FLAGS) == flags);
        let (all, same) = (of.clone().count(), of.filter(passed).count());
        let _ = writeln!(page, "| {name} | {all} | {same} | {} |", all - same);
    }
    let (all, same) = compat_builds::count(builds);
    let _ = writeln!(page, "| builds | {all} | {same} | {} |", all - same);
    let mut script = "";
    for outcome in ours {
        if outcome.script != script {
            script = &outcome.script;
            let title = titles.get(script).map_or(script, String::as_str);
            let flags = outcome.case.subject.starts_with(FLAGS);
            let subject = if flags { "flag" } else { "endpoint" };
            let _ =
                write!(page, "\n## {title}\n\n| {subject} | what is expected | Docker | Bireme |\n|---|---|---|---|\n");
        }
        let case = &outcome.case;
        let subject = case.subject.strip_prefix(FLAGS).unwrap_or(&case.subject);
        let answer = match (&outcome.failure, &case.known) {
            (None, _) if outcome.differs.is_empty() => "yes".to_owned(),
            (None, _) => format!("yes, but for {}", outcome.differs.join("; ")),
            (Some(_), Some(why)) => format!("no: {why}"),
            (Some(_), None) => "**no**".to_owned(),
        };
        let _ = writeln!(page, "| `{subject}` | {} | yes | {} |", escaped(&case.says), escaped(&answer));
    }
    page.push_str(&compat_builds::section(builds));
    page
}

/// A text as a cell of a table.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}
