//! Packages of Debian, of the machine's own suite or another one, unpacked into a folder and installed nowhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;

/// A suite, opened through an apt configuration of its own.
pub(crate) struct Suite {
    name: &'static str,
    apt: PathBuf,
}

impl Suite {
    /// Reads the suite's lists into the folder `apt`, from the mirror that the machine's own sources name.
    ///
    /// # Errors
    /// When the machine's apt sources name no mirror of Debian, or it does not answer.
    pub(crate) fn open(name: &'static str, apt: PathBuf) -> Result<Self> {
        let mirror = mirror().with_context(|| format!("no Debian mirror in apt's sources to take {name} from"))?;
        for part in ["state/lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(apt.join(part)).with_context(|| format!("cannot create {}", apt.display()))?;
        }
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        workspace::write(&apt.join("sources.list"), format!("deb [signed-by={keys}] {mirror} {name} main\n"))?;
        workspace::write(&apt.join("status"), "")?;
        let place = apt.display();
        workspace::write(
            &apt.join("apt.conf"),
            format!(
                "Dir::State \"{place}/state\";\nDir::State::status \"{place}/status\";\nDir::Cache \"{place}/cache\";\n\
                 Dir::Etc::SourceList \"{place}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
                 Dir::Etc::PreferencesParts \"/dev/null\";\nAPT::Sandbox::User \"root\";\n\
                 Acquire::Retries \"5\";\nAcquire::Languages \"none\";\nAcquire::Check-Valid-Until \"false\";\n"
            ),
        )?;
        let suite = Self { name, apt };
        workspace::run(suite.tool("apt-get").args(["-qq", "update"]))?;
        Ok(suite)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = workspace::program(name);
        command.env("APT_CONFIG", self.apt.join("apt.conf")).current_dir(self.apt.join("debs"));
        command
    }

    /// The first dependency of `package` whose name begins with `prefix`: for names that carry a version.
    pub(crate) fn depends(&self, package: &str, prefix: &str) -> Result<String> {
        let all = workspace::output(self.tool("apt-cache").args(["depends", package]))?;
        let found =
            all.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|name| name.starts_with(prefix));
        let suite = self.name;
        Ok(found.with_context(|| format!("{package} of Debian {suite} depends on no {prefix}*"))?.to_owned())
    }

    /// Fetches packages and unpacks them into `folder`; their scripts are not run.
    pub(crate) fn unpack(&self, packages: &[&str], folder: &Path) -> Result<()> {
        workspace::run(self.tool("apt-get").args(["-qq", "download"]).args(packages))?;
        unpack_all(&self.apt.join("debs"), folder)
    }

    /// Clears the lists away.
    pub(crate) fn close(self) -> Result<()> {
        fs::remove_dir_all(&self.apt).with_context(|| format!("cannot clear {} away", self.apt.display()))
    }
}

/// Unpacks a package of the machine's own suite into `folder`, and all that it depends on and the machine has not.
///
/// # Errors
/// When apt finds no such package; when it may not be asked, which is for root.
pub(crate) fn unpack_with_what_is_missing(package: &str, folder: &Path) -> Result<()> {
    let debs = folder.join("debs");
    fs::create_dir_all(debs.join("partial")).with_context(|| format!("cannot create {}", debs.display()))?;
    let archives = format!("Dir::Cache::archives={}", debs.display());
    let fetch = ["-qq", "-y", "install", "--download-only", "--no-install-recommends", "-o", &archives];
    // The lists may be older than what the mirror has.
    let fetched = workspace::run(workspace::program("apt-get").args(fetch).arg(package)).or_else(|_| {
        workspace::run(workspace::program("apt-get").args(["-qq", "update"]))?;
        workspace::run(workspace::program("apt-get").args(fetch).arg(package))
    });
    fetched?;
    unpack_all(&debs, folder)?;
    fs::remove_dir_all(&debs).with_context(|| format!("cannot clear {} away", debs.display()))
}

/// Unpacks every package in the folder `debs`, which is empty afterwards.
fn unpack_all(debs: &Path, folder: &Path) -> Result<()> {
    for deb in fs::read_dir(debs).context("cannot list the packages")? {
        let deb = deb.context("cannot list the packages")?.path();
        if deb.extension().is_some_and(|extension| extension == "deb") {
            workspace::run(workspace::program("dpkg-deb").arg("-x").arg(&deb).arg(folder))?;
            fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))?;
        }
    }
    Ok(())
}

/// Where this machine fetches Debian's packages, in either form of apt's sources.
fn mirror() -> Option<String> {
    let lists =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    std::iter::once(PathBuf::from("/etc/apt/sources.list"))
        .chain(lists)
        .filter_map(|list| fs::read_to_string(list).ok())
        .find_map(|text| mirror_in(&text))
}

fn mirror_in(sources: &str) -> Option<String> {
    sources
        .lines()
        .filter_map(|line| line.strip_prefix("URIs:").or_else(|| line.strip_prefix("deb ")))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn the_mirror_is_found_in_either_form() {
        let new = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://mirror.example/debian"));
        let old = "# deb http://old.example/debian x main\ndeb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(mirror_in("URIs: http://mirror.example/debian-security\n"), None);
    }
}
