//! Instructions that change the configuration of an image alone.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use bireme_core::spec::Signal;

use super::healthcheck::healthcheck;
use super::{BuildArgs, Stage, given, too_much, within};
use crate::build::dockerfile::{self, Instruction};
use crate::build::onbuild;
use crate::build::words::split;
use crate::error::ImageError;
use crate::model::Empty;

/// Variables that an image may have, and ports that one instruction may name. A workload takes no more either.
const VARIABLES: usize = 10_000;
const PORTS: usize = 100_000;

/// Instructions that change the configuration of an image alone. Source: moby, `builder/dockerfile`, commit commands.
const CHANGES: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Stage {
    /// Carries out an instruction that makes no layer. `globals` are the arguments before the first FROM.
    pub(in crate::build) fn apply(
        &mut self,
        at: &Instruction,
        args: &BuildArgs,
        globals: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ImageError> {
        match at.keyword.as_str() {
            "ARG" => {
                for word in split(&at.rest, self.escape) {
                    let (name, default) = self.argument(at, args, &word)?;
                    let value = given(args, &name).or(default).or_else(|| globals.get(&name).cloned().flatten());
                    self.args.insert(name, value);
                    let sum: usize = self.args.values().flatten().map(String::len).sum();
                    too_much(at, sum)?;
                }
            }
            "ENV" => {
                let pairs = self.pairs(at, args)?;
                let env = &mut self.config.config.env;
                let named = |pair: &str| pair.split_once('=').map(|(name, _)| name.to_owned());
                let mut places: HashMap<String, usize> = HashMap::new();
                for (place, own) in env.iter().enumerate() {
                    named(own).map(|name| *places.entry(name).or_insert(place));
                }
                for (name, value) in pairs {
                    let pair = format!("{name}={value}");
                    match places.get(&name) {
                        Some(place) => env[*place] = pair,
                        None => {
                            places.insert(name, env.len());
                            env.push(pair);
                        }
                    }
                }
                if env.len() > VARIABLES {
                    return Err(at.fault(format!(
                        "the image would have {} variables, and at most {VARIABLES} are taken",
                        env.len()
                    )));
                }
            }
            "LABEL" => {
                let pairs = self.pairs(at, args)?;
                self.config.config.labels.extend(pairs);
            }
            "CMD" => {
                self.config.config.cmd = Some(self.command(at));
                self.cmd_set = true;
            }
            "ENTRYPOINT" => {
                self.config.config.entrypoint = Some(self.command(at));
                // A command of the base image is for the base image's entrypoint.
                if !self.cmd_set {
                    self.config.config.cmd = None;
                }
            }
            "SHELL" => {
                let shell = at.json().filter(|shell| !shell.is_empty());
                self.config.config.shell =
                    Some(shell.ok_or_else(|| at.fault("SHELL requires the arguments to be in JSON form"))?);
            }
            "USER" => self.config.config.user = self.single(at, args)?,
            "WORKDIR" => {
                let folder = self.single(at, args)?;
                self.config.config.working_dir = clean(&self.config.config.working_dir, &folder);
            }
            "EXPOSE" => {
                let mut ports = 0;
                for word in self.words(at, args)? {
                    ports += self.expose(at, &word)?;
                    if ports > PORTS {
                        return Err(at.fault(format!("it names more than {PORTS} ports: name each once")));
                    }
                }
            }
            "VOLUME" => {
                let paths = self.words(at, args)?;
                if paths.is_empty() {
                    return Err(at.fault("VOLUME requires at least one argument"));
                }
                for path in paths {
                    if path.trim().is_empty() {
                        return Err(at.fault("VOLUME specified can not be an empty string"));
                    }
                    self.config.config.volumes.insert(path, Empty {});
                }
            }
            "STOPSIGNAL" => {
                let signal = self.single(at, args)?;
                if Signal::parse(&signal).is_none() {
                    return Err(at.fault(format!("invalid signal: {signal}")));
                }
                self.config.config.stop_signal = Some(signal);
            }
            "ONBUILD" => {
                onbuild::read(at, &at.rest)?;
                self.config.config.on_build.push(at.rest.clone());
            }
            "MAINTAINER" => self.config.author = Some(at.rest.clone()),
            "HEALTHCHECK" => self.config.config.healthcheck = Some(healthcheck(at)?),
            keyword => return Err(at.lacking(keyword, "it is not known here")),
        }
        Ok(())
    }

    /// Carries out instructions that change the configuration alone.
    ///
    /// # Errors
    /// `Dockerfile` for those that are wrong or do more.
    pub(crate) fn change(&mut self, changes: &[String]) -> Result<(), ImageError> {
        for (at, line) in changes.iter().enumerate() {
            let instruction = dockerfile::instruction(at + 1, line.trim())?;
            if !CHANGES.contains(&instruction.keyword.as_str()) {
                return Err(instruction.fault(format!("{} is not a valid change command", instruction.keyword)));
            }
            self.apply(&instruction, &BuildArgs::new(), &BTreeMap::new())?;
        }
        Ok(())
    }

    /// Reads one `NAME[=default]` of ARG.
    fn argument(&self, at: &Instruction, args: &BuildArgs, word: &str) -> Result<(String, Option<String>), ImageError> {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(self.word(at, args, default)?)),
            None => (word, None),
        };
        if name.is_empty() {
            return Err(at.fault("ARG names can not be blank"));
        }
        Ok((name.to_owned(), default))
    }

    /// Reads `NAME=value …`, or the old `NAME value`.
    fn pairs(&self, at: &Instruction, args: &BuildArgs) -> Result<Vec<(String, String)>, ImageError> {
        let words = split(&at.rest, self.escape);
        if words.first().is_some_and(|first| !first.contains('=')) {
            let Some((name, value)) = at.rest.split_once(char::is_whitespace) else {
                return Err(at.fault(format!("{} must have two arguments: NAME=value", at.keyword)));
            };
            let value = self.word(at, args, value.trim_start())?;
            return Ok(vec![(self.word(at, args, name)?, value)]);
        }
        let (mut pairs, mut sum) = (Vec::new(), 0);
        for word in &words {
            let Some((name, value)) = word.split_once('=') else {
                return Err(
                    at.fault(format!("syntax error - can't find = in \"{word}\". Must be of the form: name=value"))
                );
            };
            let name = self.word(at, args, name)?;
            if name.is_empty() {
                return Err(at.fault(format!("{} names can not be blank", at.keyword)));
            }
            let value = within(at, &mut sum, self.word(at, args, value)?)?;
            pairs.push((name, value));
        }
        Ok(pairs)
    }

    fn single(&self, at: &Instruction, args: &BuildArgs) -> Result<String, ImageError> {
        // One argument, in which white space counts.
        let value = self.word(at, args, &at.rest)?;
        if value.is_empty() {
            return Err(at.fault(format!("{} requires exactly one argument", at.keyword)));
        }
        Ok(value)
    }

    /// Answers how many ports it was.
    fn expose(&mut self, at: &Instruction, word: &str) -> Result<usize, ImageError> {
        let bad = || at.fault(format!("invalid containerPort: {word}"));
        let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(at.fault(format!("invalid proto: {protocol}")));
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if first == 0 || first > last {
            return Err(bad());
        }
        for port in first..=last {
            self.config.config.exposed_ports.insert(format!("{port}/{protocol}"), Empty {});
        }
        Ok(usize::from(last - first) + 1)
    }
}

/// A path of WORKDIR on top of the one before, without `.` and `..`.
fn clean(before: &str, path: &str) -> String {
    let mut clean = PathBuf::from("/");
    for part in Path::new("/").join(before).join(path).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths() {
        for (before, path, after) in
            [("", "app", "/app"), ("/a", "b/../c", "/a/c"), ("/a", "/b/", "/b"), ("/a", "../../..", "/")]
        {
            assert_eq!(clean(before, path), after);
        }
    }
}
