//! `deny`: licences, sources and advisories of every dependency, by cargo-deny and `deny.toml`.

use anyhow::Result;

use crate::workspace;

/// The release of cargo-deny that `deny.toml` is written for.
const VERSION: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
    let folder = workspace::made("setup/cargo-deny");
    let program = folder.join("bin/cargo-deny");
    workspace::once("cargo-deny", VERSION, &program, || {
        let root = folder.to_string_lossy().into_owned();
        workspace::run(&mut workspace::cargo(&[
            "install",
            "--quiet",
            "--debug",
            "--locked",
            "--root",
            &root,
            "cargo-deny",
            "--version",
            VERSION,
        ]))
    })?;
    // Advisories need a database that is fetched with git, which a machine with registries only does not reach.
    workspace::run(workspace::program(program).args(["check", "bans", "licenses", "sources"]))
}
