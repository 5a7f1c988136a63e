//! Instructions that change the configuration of an image alone.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use bireme_core::spec::Signal;
use bireme_dockerfile::{Instruction, Keyword, Lines, read};

use super::{BuildArgs, Stage, fault, given, lacking, too_much};
use crate::error::ImageError;
use crate::model::{Empty, Healthcheck};

/// Variables that an image may have, and ports that one instruction may name. A workload takes no more either.
const VARIABLES: usize = 10_000;
const PORTS: usize = 100_000;

/// Instructions that change the configuration of an image alone. Source: moby, `builder/dockerfile`, commit commands.
const CHANGES: [Keyword; 11] = [
    Keyword::Cmd,
    Keyword::Entrypoint,
    Keyword::Env,
    Keyword::Expose,
    Keyword::Healthcheck,
    Keyword::Label,
    Keyword::Onbuild,
    Keyword::Stopsignal,
    Keyword::User,
    Keyword::Volume,
    Keyword::Workdir,
];

impl Stage {
    /// Carries out an instruction that makes no layer. `globals` are the arguments before the first FROM.
    pub(in crate::build) fn apply(
        &mut self,
        at: &Instruction,
        args: &BuildArgs,
        globals: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ImageError> {
        match at.keyword {
            Keyword::Arg => {
                for argument in read::arguments(at)? {
                    let default =
                        argument.default.as_deref().map(|default| self.word(at, args, default)).transpose()?;
                    let global = || globals.get(&argument.name).cloned().flatten();
                    let value = given(args, &argument.name).or(default).or_else(global);
                    self.args.insert(argument.name, value);
                    let sum: usize = self.args.values().flatten().map(String::len).sum();
                    too_much(at, sum)?;
                }
            }
            Keyword::Env => {
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
                    return Err(fault(
                        at,
                        format!("the image would have {} variables, and at most {VARIABLES} are taken", env.len()),
                    ));
                }
            }
            Keyword::Label => {
                let pairs = self.pairs(at, args)?;
                self.config.config.labels.extend(pairs);
            }
            Keyword::Cmd => {
                self.config.config.cmd = Some(self.command(at));
                self.cmd_set = true;
            }
            Keyword::Entrypoint => {
                self.config.config.entrypoint = Some(self.command(at));
                // A command of the base image is for the base image's entrypoint.
                if !self.cmd_set {
                    self.config.config.cmd = None;
                }
            }
            Keyword::Shell => self.config.config.shell = Some(read::shell(at)?),
            Keyword::User => self.config.config.user = self.single(at, args)?,
            Keyword::Workdir => {
                let folder = self.single(at, args)?;
                self.config.config.working_dir = clean(&self.config.config.working_dir, &folder);
            }
            Keyword::Expose => {
                let mut count = 0;
                for port in self.expanding(at, args, |expander| read::ports(at, expander))? {
                    count += usize::from(port.range.1 - port.range.0) + 1;
                    if count > PORTS {
                        return Err(fault(at, format!("it names more than {PORTS} ports: name each once")));
                    }
                    self.config.config.exposed_ports.extend(port.each().map(|port| (port, Empty {})));
                }
            }
            Keyword::Volume => {
                let paths = self.expanding(at, args, |expander| read::expand_volumes(at, expander))?;
                self.config.config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
            }
            Keyword::Stopsignal => {
                let signal = self.single(at, args)?;
                if Signal::parse(&signal).is_none() {
                    return Err(fault(at, format!("invalid signal: {signal}")));
                }
                self.config.config.stop_signal = Some(signal);
            }
            Keyword::Onbuild => self.config.config.on_build.push(read::onbuild(at)?),
            Keyword::Maintainer => self.config.author = Some(at.rest.clone()),
            Keyword::Healthcheck => {
                let check = read::healthcheck(at)?;
                self.config.config.healthcheck = Some(Healthcheck {
                    test: check.test,
                    interval: check.interval,
                    timeout: check.timeout,
                    start_period: check.start_period,
                    start_interval: check.start_interval,
                    retries: check.retries,
                });
            }
            Keyword::Add | Keyword::Copy | Keyword::From | Keyword::Run => {
                return Err(lacking(at, at.keyword.as_str(), "it changes more than the configuration"));
            }
        }
        Ok(())
    }

    /// Carries out instructions that change the configuration alone.
    ///
    /// # Errors
    /// `Dockerfile` for those that are wrong or do more.
    pub(crate) fn change(&mut self, changes: &[String]) -> Result<(), ImageError> {
        for (at, line) in changes.iter().enumerate() {
            let mut instruction = Instruction::parse(line.trim(), '\\')?;
            instruction.lines = Lines::single(at + 1);
            if !CHANGES.contains(&instruction.keyword) {
                return Err(fault(&instruction, format!("{} is not a valid change command", instruction.keyword)));
            }
            self.apply(&instruction, &BuildArgs::new(), &BTreeMap::new())?;
        }
        Ok(())
    }

    fn pairs(&self, at: &Instruction, args: &BuildArgs) -> Result<Vec<(String, String)>, ImageError> {
        let pairs = self.expanding(at, args, |expander| read::expand_pairs(at, expander))?;
        if pairs.iter().any(|(name, _)| name.is_empty()) {
            return Err(fault(at, format!("{} names can not be blank", at.keyword)));
        }
        too_much(at, pairs.iter().map(|(name, value)| name.len() + value.len()).sum())?;
        Ok(pairs)
    }

    fn single(&self, at: &Instruction, args: &BuildArgs) -> Result<String, ImageError> {
        // One argument, in which white space counts.
        let value = self.word(at, args, read::single(at)?)?;
        if value.is_empty() {
            return Err(fault(at, format!("{} requires exactly one argument", at.keyword)));
        }
        Ok(value)
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
