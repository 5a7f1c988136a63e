//! `vm`: the stories of Linux containers, and those of component hosts that cgroups are for, on a machine with cgroup v2
//! alone, which this machine may not be.
//!
//! It is a virtual one, emulated, so it needs no privilege and no hardware: Debian's kernel, and everything else in the
//! archive that the kernel unpacks into memory. That it is bookworm's kernel, 6.1, also tries what newer ones have better
//! ways for.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::Value;

use crate::debian::{self, Suite};
use crate::{task_guests, task_images, workspace};

/// Left out of a run without arguments: what takes long and does not touch cgroups.
const LEFT_OUT: [&str; 3] = ["io::", "life::how_long_and_how_big", "life::many_are_created_at_once"];

/// What is run of the component hosts' stories without arguments: what the kernel counts differently there.
const OF_HOSTS: &str = "half_a_head_of_many_clients_ends_no_host";

/// The guests of those.
const GUESTS: [&str; 1] = ["probe"];

/// How long the machine may be up, in seconds. It takes a quarter of that where nothing else runs.
const LIMIT: &str = "600";

/// What the machine says when all is done, before the exit code.
const DONE: &str = "vm: the tests ended with ";

#[derive(Default, Parser)]
pub(crate) struct Args {
    /// Arguments for the tests: words that their names hold, `--exact`, `--skip WORD`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    tests: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !is_offered() {
        bail!("the virtual machine is an x86-64 one, from Debian's packages");
    }
    let built = Built::find()?;
    if !guests().iter().all(|guest| guest.exists()) {
        task_guests::run()?;
    }
    let kernel = kernel()?;
    let archive = workspace::made("vm/initrd");
    workspace::write(&archive, contents(&built, &kernel.overlay, &args.tests)?)?;
    let mut machine = emulator()?;
    machine
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "3072", "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&archive)
        .args(["-append", "console=ttyS0 loglevel=1 panic=-1 cgroup_no_v1=all"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut running = machine.spawn().context("cannot start the virtual machine")?;
    let console = running.stdout.take().context("the virtual machine has no console")?;
    let mut ended = None;
    for line in BufReader::new(console).split(b'\n') {
        let line = line.context("cannot read the console of the virtual machine")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        writeln!(std::io::stderr(), "{line}").context("cannot pass the console of the virtual machine on")?;
        ended = line.strip_prefix(DONE).map(str::to_owned).or(ended);
    }
    let status = running.wait().context("cannot wait for the virtual machine")?;
    match ended.as_deref() {
        Some("0") => Ok(()),
        Some(code) => bail!("the tests in the virtual machine ended with {code}"),
        None => {
            bail!("the virtual machine ended with {status} before its tests did (124: it took more than {LIMIT} s)")
        }
    }
}

/// Whether there are a kernel and an emulator for this machine's programs.
pub(crate) fn is_offered() -> bool {
    std::env::consts::ARCH == "x86_64" && workspace::has("apt-get")
}

/// What cargo has built, as the tests know it.
struct Built {
    runner: PathBuf,
    stories: PathBuf,
    units: PathBuf,
    host: PathBuf,
    host_stories: PathBuf,
    wasm_units: PathBuf,
}

impl Built {
    fn find() -> Result<Self> {
        let build = ["build", "--locked", "--workspace", "--all-targets", "--message-format", "json"];
        let said = workspace::output(&mut workspace::cargo(&build))?;
        let made: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let find = |package: &str, name: &str, test: bool| {
            let manifest = format!("crates/{package}/Cargo.toml");
            let made = made.iter().find_map(|made| {
                let fits = made["manifest_path"].as_str()?.ends_with(&manifest)
                    && made["target"]["name"] == name
                    && made["profile"]["test"] == test;
                fits.then(|| made["executable"].as_str().map(PathBuf::from))?
            });
            made.with_context(|| format!("cargo has not built {name}"))
        };
        Ok(Self {
            runner: find("bireme-runner", "bireme-runner", false)?,
            stories: find("bireme-runner", "containers", true)?,
            units: find("bireme-runner", "bireme-runner", true)?,
            host: find("bireme-wasm-host", "bireme-wasm-host", false)?,
            host_stories: find("bireme-wasm-host", "host", true)?,
            wasm_units: find("bireme-wasm", "bireme_wasm", true)?,
        })
    }
}

fn guests() -> [PathBuf; GUESTS.len()] {
    GUESTS.map(|name| workspace::made("guests").join(name).with_extension("wasm"))
}

struct Kernel {
    image: PathBuf,
    /// The one module that is needed.
    overlay: PathBuf,
}

fn kernel() -> Result<Kernel> {
    let folder = workspace::made("vm/kernel");
    workspace::once("kernel of the virtual machine", "bookworm", &folder.join("boot"), || {
        let suite = Suite::open("bookworm", workspace::made("vm/apt"))?;
        let package = suite.depends("linux-image-cloud-amd64", "linux-image-")?;
        suite.unpack(&[&package], &folder)?;
        suite.close()
    })?;
    let boot = folder.join("boot");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let image = fs::read_dir(&boot).context("the kernel has no folder")?.filter_map(name);
    let image = image.filter(|name| name.starts_with("vmlinuz-")).max().context("the package holds no kernel")?;
    let version = image.trim_start_matches("vmlinuz-");
    let overlay = folder.join("lib/modules").join(version).join("kernel/fs/overlayfs/overlay.ko");
    Ok(Kernel { image: boot.join(&image), overlay })
}

/// The machine's own emulator, or Debian's, unpacked and installed nowhere.
fn emulator() -> Result<std::process::Command> {
    const NAME: &str = "qemu-system-x86_64";
    let mut command = workspace::program("timeout");
    command.arg(LIMIT);
    if workspace::has(NAME) {
        command.arg(NAME);
        return Ok(command);
    }
    let folder = workspace::made("vm/qemu");
    let program = folder.join("usr/bin").join(NAME);
    workspace::once("emulator of the virtual machine", "qemu-system-x86", &program, || {
        debian::unpack_with_what_is_missing("qemu-system-x86", &folder)
    })?;
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
    let libraries = libraries.map(|name| folder.join(name).display().to_string()).join(":");
    command.arg(program).env("LD_LIBRARY_PATH", libraries);
    for data in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(folder.join(data));
    }
    Ok(command)
}

/// The first program in there.
///
/// The kernel's first root cannot be changed with pivot_root(2), as containers do; a mount of it over itself can. All sockets
/// together may have what a machine of 24 GiB lets them have (tcp_mem): a small one would bound them before a cgroup does.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin HOME=/root BIREME_GUESTS=/guests
if [ "$1" != again ]; then
    mount --bind / /again && cd /again && mount --move . / && exec chroot . /init again
fi
cd /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
insmod /overlay.ko
ip link set lo up
echo 572196 762931 1144392 > /proc/sys/net/ipv4/tcp_mem
grep -qw memory /sys/fs/cgroup/cgroup.controllers &&
    /tests/units --test-threads 2 devices:: &&
    /tests/wasm-units --test-threads 2 cgroup:: &&
    /tests/stories --test-threads 2 $(cat /arguments) &&
    /tests/host --test-threads 1 $(cat /arguments-of-hosts)
echo "vm: the tests ended with $?"
poweroff -f
"#;

/// The archive that the kernel unpacks into memory.
fn contents(built: &Built, overlay: &Path, tests: &[String]) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = Archive::default();
    for folder in ["again", "dev", "proc", "root", "sys"] {
        archive.folder(Path::new(folder));
    }
    archive.entry(Path::new("tmp"), 0o041_777, &[]);
    archive.file(Path::new("init"), 0o755, INIT.as_bytes());
    archive.file(Path::new("overlay.ko"), 0o644, &read(overlay)?);
    archive.file(Path::new("etc/passwd"), 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file(Path::new("etc/group"), 0o644, b"root:x:0:\n");
    let busybox = fs::canonicalize("/bin/busybox").context("no /bin/busybox: install the package busybox-static")?;
    archive.file(Path::new("bin/busybox"), 0o755, &read(&busybox)?);
    for tool in workspace::output(workspace::program(&busybox).arg("--list"))?.lines().filter(|tool| *tool != "busybox")
    {
        archive.entry(&Path::new("bin").join(tool), 0o120_777, b"busybox");
    }
    // The tests look for the runner and the host where they were built.
    let programs = [
        (&built.runner, built.runner.as_path()),
        (&built.stories, Path::new("tests/stories")),
        (&built.units, Path::new("tests/units")),
        (&built.host, built.host.as_path()),
        (&built.host_stories, Path::new("tests/host")),
        (&built.wasm_units, Path::new("tests/wasm-units")),
    ];
    let mut libraries = BTreeSet::new();
    for (program, at) in programs {
        archive.file(at, 0o755, &read(program)?);
        libraries.extend(task_images::libraries_of(program)?);
    }
    for library in libraries {
        archive.file(&library, 0o755, &read(&library)?);
    }
    for guest in guests() {
        let name = guest.file_name().context("a guest has no name")?;
        archive.file(&Path::new("guests").join(name), 0o644, &read(&guest)?);
    }
    let left_out = LEFT_OUT.iter().flat_map(|name| ["--skip".to_owned(), (*name).to_owned()]);
    let arguments = if tests.is_empty() { left_out.collect() } else { tests.to_vec() };
    archive.file(Path::new("arguments"), 0o644, arguments.join(" ").as_bytes());
    let of_hosts = if tests.is_empty() { vec![OF_HOSTS.to_owned()] } else { tests.to_vec() };
    archive.file(Path::new("arguments-of-hosts"), 0o644, of_hosts.join(" ").as_bytes());
    Ok(archive.end())
}

/// An archive in the form that the kernel reads. Source: cpio(5), "New ASCII Format".
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    fn folder(&mut self, path: &Path) {
        let all: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
        for folder in all.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
            if self.folders.insert(folder.clone()) {
                self.entry(&folder, 0o040_755, &[]);
            }
        }
    }

    /// A file, and the folders above it.
    fn file(&mut self, path: &Path, mode: u32, contents: &[u8]) {
        let path = path.strip_prefix("/").unwrap_or(path);
        self.folder(path.parent().unwrap_or(Path::new("")));
        self.entry(path, 0o100_000 | mode, contents);
    }

    fn entry(&mut self, path: &Path, mode: u32, contents: &[u8]) {
        let name = path.display().to_string();
        // Number, mode, user, group, links, time, size, two devices of two numbers, length of the name, a sum not used.
        let fields = [0, mode as usize, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        self.bytes
    }
}
