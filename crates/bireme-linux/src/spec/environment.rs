//! The environment of a container's processes.

use std::collections::HashMap;

use bireme_core::WorkloadSpec;

use crate::users::User;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of a process: Docker's defaults, the workload's, then `extra`; each name once. A name without a value
/// takes away what came before. Source: `ReplaceOrAppendEnvVars` of moby.
pub fn environment(spec: &WorkloadSpec, user: &User, tty: bool, extra: &[String]) -> Vec<String> {
    let hostname = format!("HOSTNAME={}", spec.hostname);
    let ours = [PATH, hostname.as_str()].into_iter().chain(tty.then_some("TERM=xterm"));
    let mut all: Vec<Option<&str>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for entry in ours.chain(spec.env.iter().chain(extra).map(String::as_str)) {
        let (name, value) = entry.split_once('=').map_or((entry, None), |(name, value)| (name, Some(value)));
        match (places.get(name), value) {
            (Some(at), Some(_)) => all[*at] = Some(entry),
            (None, Some(_)) => {
                places.insert(name, all.len());
                all.push(Some(entry));
            }
            (Some(at), None) => all[*at] = None,
            (None, None) => {}
        }
    }
    let mut all: Vec<String> = all.into_iter().flatten().filter(|entry| *entry != "HOME=").map(str::to_owned).collect();
    if !all.iter().any(|entry| entry.starts_with("HOME=")) {
        all.push(format!("HOME={}", user.home));
    }
    all
}
