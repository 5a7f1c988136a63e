//! `frontend.outline`: what a target takes from outside: arguments, secrets, agents.
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/dockerfile2llb/outline.go` and `dispatchArg`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Answer, Location, json, table};
use crate::dockerfile::Dockerfile;
use crate::error::{Lines, ParseError};
use crate::graph::{self, Source};
use crate::instruction::Instruction;
use crate::keyword::Keyword;
use crate::lint::LintContext;
use crate::read::{self, MountKind};
use crate::scope::{self, GlobalArgument, Globals, Variables};
use crate::words::Expander;

#[derive(Serialize)]
struct Outline<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Needed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Needed>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Argument {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    location: Location,
    #[serde(skip)]
    line: usize,
}

#[derive(Serialize)]
struct Needed {
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
    #[serde(skip)]
    line: usize,
}

/// Answers the request for the stage of that number; `text` is what the file was read from.
///
/// # Errors
/// When the target cannot be built: see [`graph::needed`].
pub fn outline(file: &Dockerfile, text: &str, target: usize, context: &LintContext<'_>) -> Result<Answer, ParseError> {
    let globals = scope::globals(file, context.predefined, context.build_args)?;
    let value = |name: &str| globals.values.get(name).map(str::to_owned);
    graph::needed(file, target, &mut Expander::new(file.directives.escape, &value))?;
    let mut seen: Vec<Seen> = Vec::new();
    for stage in 0..file.stages.len() {
        let next = Seen::of(file, stage, &globals, context, &seen)?;
        seen.push(next);
    }
    let mut order = Vec::new();
    visit(&seen, target, &mut order);

    let mut args: Vec<Argument> = Vec::new();
    let (mut secrets, mut ssh): (Vec<Needed>, Vec<Needed>) = Default::default();
    for stage in order {
        let seen = &seen[stage];
        for name in seen.all_used() {
            let Some(info) = seen.arguments.get(&name).filter(|_| !args.iter().any(|arg| arg.name == name)) else {
                continue;
            };
            args.push(Argument {
                name,
                description: info.description.clone().unwrap_or_default(),
                value: info.value.clone().unwrap_or_default(),
                location: Location::of(&[info.lines]),
                line: info.lines.first,
            });
        }
        for (from, to) in [(&seen.secrets, &mut secrets), (&seen.ssh, &mut ssh)] {
            for (name, required, lines) in from {
                if !to.iter().any(|needed| needed.name == *name) {
                    let location = Location::of(&[*lines]);
                    to.push(Needed { name: name.clone(), required: *required, location, line: lines.first });
                }
            }
        }
    }
    args.sort_by_key(|arg| arg.line);
    secrets.sort_by_key(|needed| needed.line);
    ssh.sort_by_key(|needed| needed.line);
    let stage = &file.stages[target];
    let outline = Outline {
        name: stage.name.as_deref(),
        description: stage.description.as_deref(),
        args,
        secrets,
        ssh,
        sources: vec![STANDARD.encode(text)],
    };
    Ok(Answer { json: json(&outline), text: Some(shown(&outline)), status: None })
}

fn shown(outline: &Outline<'_>) -> String {
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<String>>();
    let mut out = String::new();
    if outline.name.is_some() || outline.description.is_some() {
        let mut rows = vec![row(&["TARGET:", outline.name.unwrap_or("(default)")])];
        rows.extend(outline.description.map(|description| row(&["DESCRIPTION:", description])));
        out += &(table(&rows, 1) + "\n");
    }
    if !outline.args.is_empty() {
        let mut rows = vec![row(&["BUILD ARG", "VALUE", "DESCRIPTION"])];
        rows.extend(outline.args.iter().map(|arg| row(&[&arg.name, &arg.value, &arg.description])));
        out += &(table(&rows, 3) + "\n");
    }
    for (title, all) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !all.is_empty() {
            let mut rows = vec![row(&[title, "REQUIRED"])];
            rows.extend(all.iter().map(|needed| row(&[&needed.name, if needed.required { "true" } else { "" }])));
            out += &(table(&rows, 3) + "\n");
        }
    }
    out
}

/// A stage, what it stands on, what it takes from.
fn visit(seen: &[Seen], stage: usize, order: &mut Vec<usize>) {
    if order.contains(&stage) {
        return;
    }
    order.push(stage);
    for next in seen[stage].base.iter().chain(&seen[stage].others) {
        visit(seen, *next, order);
    }
}

/// What is seen of one stage.
#[derive(Default)]
struct Seen {
    env: Variables,
    base: Option<usize>,
    others: BTreeSet<usize>,
    arguments: BTreeMap<String, GlobalArgument>,
    used: BTreeSet<String>,
    secrets: Vec<(String, bool, Lines)>,
    ssh: Vec<(String, bool, Lines)>,
}

impl Seen {
    fn of(
        file: &Dockerfile,
        stage: usize,
        globals: &Globals,
        context: &LintContext<'_>,
        before: &[Self],
    ) -> Result<Self, ParseError> {
        let value = |name: &str| globals.values.get(name).map(str::to_owned);
        let mut expander = Expander::new(file.directives.escape, &value);
        let mut seen = Self { arguments: globals.declared.clone(), ..Self::default() };
        for edge in graph::edges(file, stage, &mut expander)? {
            match (edge.to, edge.instruction) {
                (Source::Stage(to), None) => {
                    seen.base = Some(to);
                    seen.env = before[to].env.clone();
                }
                (Source::Stage(to), Some(_)) => {
                    seen.others.insert(to);
                }
                (Source::Other(name), None) => {
                    seen.env = (context.base)(&name).map(|image| image.env).unwrap_or_default();
                }
                (Source::Other(_), Some(_)) => {}
            }
        }
        graph::platform(file, stage, &mut expander)?;
        seen.used.extend(expander.used().iter().cloned());
        for at in &file.stages[stage].body {
            match at.keyword {
                Keyword::Arg => seen.declare(at, globals, context)?,
                Keyword::Env => {
                    let pairs = seen.expand(at, |expander| read::expand_pairs(at, expander))?;
                    pairs.into_iter().for_each(|(name, value)| seen.env.set(name, value));
                }
                Keyword::Run => seen.mounts(at)?,
                _ => {}
            }
        }
        Ok(seen)
    }

    fn expand<T>(
        &self,
        at: &Instruction,
        expand: impl FnOnce(&mut Expander<'_>) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        let value = |name: &str| self.env.get(name).map(str::to_owned);
        expand(&mut Expander::new(at.escape, &value))
    }

    fn declare(&mut self, at: &Instruction, globals: &Globals, context: &LintContext<'_>) -> Result<(), ParseError> {
        for argument in read::arguments(at)? {
            let name = argument.name;
            let given = context.build_args.get(&name).cloned();
            let inherited = globals.values.get(&name).filter(|_| given.is_none() && argument.default.is_none());
            let value = match (given, argument.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => {
                    let word = |expander: &mut Expander<'_>| expander.word(&default).map_err(|reason| at.fault(reason));
                    Some(self.expand(at, word)?)
                }
                (None, None) => inherited.map(str::to_owned),
            };
            if let Some(value) = &value {
                self.env.set(name.clone(), value.clone());
            }
            // One taken over from before the first FROM is shown as it is declared there.
            if inherited.is_none() {
                let info =
                    GlobalArgument { value, description: argument.description, lines: at.lines, ..Default::default() };
                self.arguments.insert(name.clone(), info);
            }
            self.used.insert(name);
        }
        Ok(())
    }

    fn mounts(&mut self, at: &Instruction) -> Result<(), ParseError> {
        let run = read::run(at)?;
        for mount in self.expand(at, |expander| read::mounts(at, &run, expander))? {
            let (all, name) = match mount.kind {
                MountKind::Secret => (&mut self.secrets, mount.secret_id()),
                MountKind::Ssh => (&mut self.ssh, mount.ssh_id()),
                _ => continue,
            };
            if !all.iter().any(|(known, ..)| known == name) {
                all.push((name.to_owned(), mount.required, at.lines));
            }
        }
        Ok(())
    }

    /// The arguments that are used, and those before the first FROM that their defaults name.
    fn all_used(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut open: Vec<&String> = self.used.iter().collect();
        while let Some(name) = open.pop() {
            if all.insert(name.clone()) {
                open.extend(self.arguments.get(name).iter().flat_map(|info| &info.depends_on));
            }
        }
        all
    }
}
