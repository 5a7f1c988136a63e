//! The arguments before the first FROM, and the ones that are there without being declared.
//!
//! Source: docs.docker.com/reference/dockerfile, "ARG"; github.com/moby/buildkit, `frontend/dockerfile/dockerfile2llb`,
//! `buildMetaArgs` and `defaultArgs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::dockerfile::Dockerfile;
use crate::error::{Lines, ParseError};
use crate::read;
use crate::words::Expander;

/// Variables that a stage may have; an image takes no more either.
pub(crate) const MOST_VARIABLES: usize = 10_000;

/// Variables in the order in which they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    pairs: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Variables {
    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| self.pairs[*place].1.as_str())
    }

    /// Sets one; it keeps its place if it has one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        match self.places.get(&name) {
            Some(place) => self.pairs[*place].1 = value.into(),
            None => {
                self.places.insert(name.clone(), self.pairs.len());
                self.pairs.push((name, value.into()));
            }
        }
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| name.as_str())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut variables = Self::default();
        pairs.into_iter().for_each(|(name, value)| variables.set(name, value));
        variables
    }
}

/// A platform as `os/arch[/variant]`.
#[derive(Clone, Copy, Debug)]
pub struct PlatformWords<'a> {
    /// `linux`, `wasi`.
    pub os: &'a str,
    /// `amd64`, `wasm`.
    pub arch: &'a str,
    /// `v8`; often empty.
    pub variant: &'a str,
}

/// What FROM may name without any ARG, and a stage by `ARG NAME` alone: the platforms and the target's name. Values that a
/// build gives go before them.
pub fn predefined(
    build: PlatformWords<'_>,
    target: PlatformWords<'_>,
    target_stage: Option<&str>,
    build_args: &BTreeMap<String, String>,
) -> Variables {
    let mut variables = Variables::default();
    for (side, platform) in [("BUILD", build), ("TARGET", target)] {
        let PlatformWords { os, arch, variant } = platform;
        let whole = [os, arch, variant].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        for (name, value) in
            [("PLATFORM", whole.as_str()), ("OS", os), ("OSVERSION", ""), ("ARCH", arch), ("VARIANT", variant)]
        {
            variables.set(format!("{side}{name}"), value);
        }
    }
    variables.set("TARGETSTAGE", target_stage.filter(|name| !name.is_empty()).unwrap_or("default"));
    for (name, value) in &mut variables.pairs {
        if let Some(given) = build_args.get(name) {
            value.clone_from(given);
        }
    }
    variables
}

/// The arguments before the first FROM.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// With those that are predefined: what is expanded in FROM, and what `ARG NAME` in a stage takes over.
    pub values: Variables,
    /// Those that the file declares, with a value or without.
    pub declared: BTreeMap<String, GlobalArgument>,
}

/// One that the file declares.
#[derive(Clone, Debug, Default)]
pub struct GlobalArgument {
    /// Given by the build, or its default.
    pub value: Option<String>,
    /// What a comment says of it.
    pub description: Option<String>,
    /// Where it is declared last.
    pub lines: Lines,
    /// Others that its default names.
    pub depends_on: BTreeSet<String>,
}

/// Reads the arguments before the first FROM.
///
/// # Errors
/// When a default cannot be expanded, or there are very many.
pub fn globals(
    file: &Dockerfile,
    predefined: &Variables,
    build_args: &BTreeMap<String, String>,
) -> Result<Globals, ParseError> {
    let mut globals = Globals { values: predefined.clone(), ..Globals::default() };
    for at in &file.globals {
        for argument in read::arguments(at)? {
            let mut depends_on = BTreeSet::new();
            let value = match (build_args.get(&argument.name), argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let value = |name: &str| globals.values.get(name).map(str::to_owned);
                    let mut expander = Expander::new(at.escape, &value);
                    let value = expander.word(&default).map_err(|reason| at.fault(reason))?;
                    depends_on.clone_from(expander.used());
                    // One that is declared again with itself keeps what it stood on before.
                    if depends_on.remove(&argument.name)
                        && let Some(old) = globals.declared.get(&argument.name)
                    {
                        depends_on.extend(old.depends_on.iter().cloned());
                    }
                    Some(value)
                }
                (None, None) => None,
            };
            if let Some(value) = &value {
                globals.values.set(argument.name.clone(), value.clone());
            }
            if globals.values.len() > MOST_VARIABLES {
                return Err(at.fault(format!("at most {MOST_VARIABLES} arguments stand before the first FROM")));
            }
            let description = argument.description;
            globals.declared.insert(argument.name, GlobalArgument { value, description, lines: at.lines, depends_on });
        }
    }
    Ok(globals)
}
