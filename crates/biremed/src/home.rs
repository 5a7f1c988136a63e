//! Which exec root a data root was used with.
//!
//! Workloads outlive the daemon, and how they are found again lies in the exec root. A daemon that is given another one
//! would find none of them, and run each a second time on the same layers and volumes.
//!
//! ```text
//! <data_root>/used-with     device and number of the data root, so that a copy is told from it
//!                           the instance
//!                           the exec root
//! ```

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

const FILE: &str = "used-with";

/// What a daemon noted of itself.
#[derive(Debug, PartialEq, Eq)]
struct Noted {
    /// Device and number of the data root.
    identity: (u64, u64),
    instance: String,
    exec_root: PathBuf,
}

impl Noted {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (device, number) = lines.next()?.split_once(' ')?;
        let identity = (device.parse().ok()?, number.parse().ok()?);
        let instance = lines.next()?.to_owned();
        Some(Self { identity, instance, exec_root: lines.next()?.into() })
    }

    fn text(&self) -> String {
        let (device, number) = self.identity;
        format!("{device} {number}\n{}\n{}\n", self.instance, self.exec_root.display())
    }
}

/// Notes that this data root is used with `exec_root` by the engine called `instance`.
///
/// # Errors
/// When `runs` says that workloads of the engine that had this data root before still run, and they are another's to find.
pub(crate) fn claim(
    data_root: &Path,
    exec_root: &Path,
    instance: &str,
    runs: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let path = data_root.join(FILE);
    let about = std::fs::metadata(data_root).with_context(|| format!("cannot look at {}", data_root.display()))?;
    let now = Noted {
        identity: (about.dev(), about.ino()),
        instance: instance.to_owned(),
        exec_root: exec_root.canonicalize().unwrap_or_else(|_| exec_root.to_owned()),
    };
    let before = std::fs::read_to_string(&path).ok().and_then(|text| Noted::parse(&text));
    match before {
        Some(before) if before == now => return Ok(()),
        Some(before)
            if before.identity == now.identity && before.instance != now.instance && runs(&before.instance) =>
        {
            bail!(
                "workloads of the data root {} still run, and how to find them lies in the exec root {} it was used with: start with that (--exec-root) and the same path of the data root, or stop them there first; in their cgroups, bireme-{}, they can be ended by hand",
                data_root.display(),
                before.exec_root.display(),
                before.instance
            );
        }
        _ => {}
    }
    let new = path.with_extension("new");
    // A full disk is no reason not to start.
    let noted = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let noted = noted.and_then(|mut file| file.write_all(now.text().as_bytes()));
    if let Err(error) = noted.and_then(|()| std::fs::rename(&new, &path)) {
        tracing::warn!(path = %path.display(), %error, "the exec root of this data root is not noted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_exec_root_is_taken_when_nothing_runs_or_by_a_copy() {
        let temp = tempfile::tempdir().unwrap();
        let [data, copy, one, other] = ["data", "copy", "one", "other"].map(|name| {
            let folder = temp.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        });
        let running = |instance: &str| instance == "aaaa0000";
        claim(&data, &one, "aaaa0000", running).unwrap();
        claim(&data, &one, "aaaa0000", running).unwrap();
        let refused = claim(&data, &other, "bbbb0000", running).unwrap_err().to_string();
        assert!(refused.contains(one.to_str().unwrap()) && refused.contains("bireme-aaaa0000"), "{refused}");
        std::fs::copy(data.join(FILE), copy.join(FILE)).unwrap();
        claim(&copy, &other, "cccc0000", running).unwrap();
        claim(&data, &other, "bbbb0000", |_| false).unwrap();
        claim(&data, &one, "aaaa0000", running).unwrap();
        std::fs::write(data.join(FILE), "nonsense").unwrap();
        claim(&data, &other, "bbbb0000", running).unwrap();
    }
}
