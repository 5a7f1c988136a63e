//! Real servers of databases and messages for the tests, each on a port of its own below a temporary folder.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::until;

/// A server that ends with its test.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(command: &mut Command) {
    let done = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {} {said}", String::from_utf8_lossy(&done.stdout));
}

/// A folder that `user`, as whom a server runs, may write to.
fn folder_of(user: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("bwt-server").tempdir().unwrap();
    run(Command::new("chown").arg(user).arg(folder.path()));
    folder
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(command: &mut Command, port: u16, folder: tempfile::TempDir) -> Server {
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let error = log.try_clone().unwrap();
    let process = command.stdin(Stdio::null()).stdout(log).stderr(error).spawn().unwrap();
    let mut server = Server { process, port, folder };
    until("a server that listens", || {
        let ended = server.process.try_wait().unwrap();
        let log = || std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
        assert!(ended.is_none(), "{command:?} ended: {}", log());
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    server
}

/// The programs of PostgreSQL, which stand in a folder of their version.
fn postgres_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (./x setup)").flatten();
    let newest = versions.map(|entry| entry.path()).max().unwrap();
    newest.join("bin").join(name)
}

/// A certificate for `localhost` and 127.0.0.1 that certifies itself: the certificate and its key.
pub(crate) fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    (certificate, key)
}

/// PostgreSQL with a password by SCRAM for the user `me`, and TLS.
pub(crate) fn postgres() -> Server {
    let (folder, port) = (folder_of("postgres"), free_port());
    let (data, password) = (folder.path().join("data"), folder.path().join("password"));
    std::fs::write(&password, "p@ss").unwrap();
    run(Command::new("runuser")
        .args(["-u", "postgres", "--"])
        .arg(postgres_program("initdb"))
        .args(["--username=me", "--auth=scram-sha-256", "--no-sync", "--locale=C.UTF-8", "--pwfile"])
        .arg(&password)
        .arg("-D")
        .arg(&data));
    let (certificate, key) = certificate(folder.path());
    run(Command::new("chown").arg("postgres").args([&certificate, &key]));
    let mut command = Command::new("runuser");
    command
        .args(["-u", "postgres", "--"])
        .arg(postgres_program("postgres"))
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(folder.path());
    command.args(["-p", &port.to_string(), "-c", "fsync=off", "-c", "ssl=on"]);
    command.arg("-c").arg(format!("ssl_cert_file={}", certificate.display()));
    command.arg("-c").arg(format!("ssl_key_file={}", key.display()));
    start(&mut command, port, folder)
}

/// MariaDB with a password for the user `me`, a database `base`, and TLS.
pub(crate) fn mariadb() -> Server {
    let (folder, port) = (folder_of("mysql"), free_port());
    let data = folder.path().join("data");
    run(Command::new("mariadb-install-db")
        .args(["--no-defaults", "--user=mysql", "--skip-test-db", "--auth-root-authentication-method=normal"])
        .arg(format!("--datadir={}", data.display())));
    let (certificate, key) = certificate(folder.path());
    run(Command::new("chown").arg("mysql").args([&certificate, &key]));
    let setup = folder.path().join("setup.sql");
    std::fs::write(
        &setup,
        "CREATE DATABASE base;\nCREATE USER me IDENTIFIED BY 'p@ss';\nGRANT ALL ON base.* TO me;\nGRANT PROCESS ON *.* TO me;\n",
    )
    .unwrap();
    run(Command::new("chown").arg("mysql").arg(&setup));
    let mut command = Command::new("mariadbd");
    command.args([
        "--no-defaults",
        "--user=mysql",
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--innodb-flush-log-at-trx-commit=0",
    ]);
    let path = |name: &str, path: &Path| format!("--{name}={}", path.display());
    command.args([
        path("datadir", &data),
        path("init-file", &setup),
        path("ssl-cert", &certificate),
        path("ssl-key", &key),
    ]);
    command.args([
        path("socket", &folder.path().join("socket")),
        path("ssl-ca", &certificate),
        format!("--port={port}"),
    ]);
    start(&mut command, port, folder)
}

/// Mosquitto with a password for the user `me` where `with_password`.
pub(crate) fn mosquitto(with_password: bool) -> Server {
    let (folder, port) = (folder_of("mosquitto"), free_port());
    let passwords = folder.path().join("passwords");
    let mut text = format!("listener {port} 127.0.0.1\nallow_anonymous {}\n", !with_password);
    if with_password {
        run(Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&passwords).args(["me", "p@ss"]));
        run(Command::new("chown").arg("mosquitto").arg(&passwords));
        text.push_str(&format!("password_file {}\n", passwords.display()));
    }
    let file = folder.path().join("mosquitto.conf");
    std::fs::write(&file, text).unwrap();
    start(Command::new("mosquitto").arg("-c").arg(&file), port, folder)
}
