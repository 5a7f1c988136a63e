//! The compilation cache, and the short process that fills it.
//!
//! Code is compiled once per content and engine version, at check, never when a request waits for it. It is kept under
//! the digest of what was compiled, which is compared with the one that was asked for: whoever claims another's digest is
//! refused, and gets nothing into its place. The process that compiles has no privileges and no names: it reads one open
//! file and writes into another, whose content is then copied to a file that it never saw.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bireme_core::{ErrorKind, ExecError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, Semaphore};

use crate::protocol::{CompileAnswer, Facts, Refusal};

/// Longest time one compilation may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes that a compiling process may print: its answer names imports and exports, which it bounds itself.
const MOST_SAID: u64 = 1 << 20;

/// Most bytes of compiled code.
pub const MAX_CODE: u64 = 2 << 30;

/// Components that are remembered as sound; the rest is looked at again when it is next asked for.
const KNOWN: usize = 4096;

/// Compilations at once: each may take as much memory as [`memory_limit`] says.
const AT_ONCE: usize = 2;

/// Most bytes that one compilation may take: half of the machine's memory within reason. One GiB of it is what the
/// compiler's allocator sets aside when it starts.
fn memory_limit() -> u64 {
    const LEAST: u64 = 3 << 29;
    const MOST: u64 = 4 << 30;
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map_or(LEAST, |kib: u64| (kib << 10) / 2).clamp(LEAST, MOST)
}

/// The refusal of a component that takes more than `limit` bytes of memory to compile.
pub fn takes_too_much(limit: u64) -> Refusal {
    let text = format!(
        "compiling this component takes more than {} MiB of memory, the most that is allowed here; divide its largest \
         functions, or build it with optimisation for size",
        limit >> 20
    );
    Refusal::new(ErrorKind::Invalid, text)
}

/// A component that stands ready in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub facts: Facts,
    /// File name in the cache folder.
    pub code: String,
}

/// What lies beside the compiled code.
#[derive(Serialize, Deserialize)]
struct Record {
    facts: Facts,
    /// SHA-256 of the compiled code, in hexadecimal.
    code_sha256: String,
}

pub(crate) struct Cache {
    host: PathBuf,
    dir: PathBuf,
    /// Tells engine versions and settings apart whose code is not interchangeable.
    engine: OnceCell<String>,
    /// What was found sound since the daemon started.
    known: Mutex<HashMap<String, Compiled>>,
    /// One compilation of one content at a time.
    under_way: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    compiling: Semaphore,
}

impl Cache {
    pub(crate) fn new(host: PathBuf, dir: PathBuf) -> Self {
        let compiling = Semaphore::new(AT_ONCE);
        Self { host, dir, engine: OnceCell::new(), known: Mutex::default(), under_way: Mutex::default(), compiling }
    }

    /// The compiled form of the component at `path`, whose content has `digest`. Compiles it if need be.
    ///
    /// # Errors
    /// `Invalid` or `Unsupported` with a sentence when the component cannot run here.
    pub(crate) async fn get(&self, path: &Path, digest: &str) -> Result<Compiled, ExecError> {
        let plain = digest.strip_prefix("sha256:").unwrap_or(digest);
        if plain.len() != 64 || !plain.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ExecError::new(
                ErrorKind::Internal,
                format!("the digest {digest:?} of a component is malformed"),
            ));
        }
        if let Some(compiled) = self.lock_known().get(plain) {
            return Ok(compiled.clone());
        }
        let turn = {
            let mut under_way = self.under_way.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Whoever waits or works holds a turn: what nobody holds is over, however it ended.
            under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(under_way.entry(plain.to_owned()).or_default())
        };
        let _guard = turn.lock().await;
        if let Some(compiled) = self.lock_known().get(plain) {
            return Ok(compiled.clone());
        }
        let engine = self.engine.get_or_try_init(|| self.engine_key()).await?;
        let code = format!("{plain}-{engine}.cwasm");
        let facts = match self.stored(&code).await {
            Some(facts) => facts,
            None => self.compile(path, plain, &code).await?,
        };
        let compiled = Compiled { facts, code };
        let mut known = self.lock_known();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(plain.to_owned(), compiled.clone());
        drop(known);
        Ok(compiled)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens compiled code, to be handed to a host.
    ///
    /// # Errors
    /// Those of open(2): the file may have been removed.
    pub(crate) fn open(&self, compiled: &Compiled) -> std::io::Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.dir.join(&compiled.code), flags, Mode::empty())?)
    }

    /// Forgets a component whose compiled code a host refused, so that the next [`Cache::get`] compiles it anew.
    pub(crate) async fn discard(&self, compiled: &Compiled) {
        self.lock_known().retain(|_, known| known.code != compiled.code);
        for file in [self.dir.join(&compiled.code), self.record_path(&compiled.code)] {
            let _ = tokio::fs::remove_file(file).await;
        }
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Compiled>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn record_path(&self, code: &str) -> PathBuf {
        self.dir.join(Path::new(code).with_extension("json"))
    }

    /// What the cache holds under `code`, if it is whole.
    async fn stored(&self, code: &str) -> Option<Facts> {
        let record: Record = serde_json::from_slice(&tokio::fs::read(self.record_path(code)).await.ok()?).ok()?;
        let found = hash_file(self.dir.join(code)).await.ok()?;
        if found != record.code_sha256 {
            tracing::warn!(code, "compiled code in the cache is damaged; it is compiled anew");
            return None;
        }
        Some(record.facts)
    }

    /// Compiles the file at `path`, if its content has the digest `plain`.
    async fn compile(&self, path: &Path, plain: &str, code: &str) -> Result<Facts, ExecError> {
        let fail = |what: String, error: std::io::Error| ExecError::new(ErrorKind::Internal, what).caused_by(error);
        make_private(&self.dir)
            .map_err(|error| fail(format!("cannot make the cache folder {}", self.dir.display()), error))?;
        let source = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::open(source)?;
            let found = hash(&mut file)?;
            file.rewind()?;
            Ok((file, found))
        });
        let (source, found) = opened
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| fail(format!("cannot read the component {}", path.display()), error))?;
        if found != plain {
            let text = format!(
                "the component does not have the content that its digest sha256:{plain} names (it has sha256:{found}): it \
                 was damaged or exchanged; remove the image and get it again"
            );
            return Err(ExecError::new(ErrorKind::Invalid, text));
        }
        let unfinished = self.dir.join(format!("{code}.{}.tmp", std::process::id()));
        let compiled = self.compile_into(source, &unfinished).await;
        let (from, to) = (unfinished.clone(), self.dir.join(format!("{code}.{}.whole", std::process::id())));
        let whole = to.clone();
        let stored = match compiled {
            Ok(facts) => {
                let taken = tokio::task::spawn_blocking(move || take_over(&from, &to)).await;
                taken
                    .map_err(std::io::Error::other)
                    .flatten()
                    .map_err(|error| self.not_stored(error))
                    .map(|sum| (facts, sum))
            }
            Err(error) => Err(error),
        };
        let _ = tokio::fs::remove_file(&unfinished).await;
        let (facts, code_sha256) = match stored {
            Ok(stored) => stored,
            Err(error) => {
                let _ = tokio::fs::remove_file(&whole).await;
                return Err(error);
            }
        };
        let record = serde_json::to_vec(&Record { facts: facts.clone(), code_sha256 })
            .map_err(|error| fail("cannot write down what a component needs".to_owned(), error.into()))?;
        tokio::fs::rename(&whole, self.dir.join(code)).await.map_err(|error| self.not_stored(error))?;
        let unfinished = self.dir.join(format!("{code}.{}.json.tmp", std::process::id()));
        tokio::fs::write(&unfinished, record).await.map_err(|error| self.not_stored(error))?;
        tokio::fs::rename(&unfinished, self.record_path(code)).await.map_err(|error| self.not_stored(error))?;
        Ok(facts)
    }

    fn not_stored(&self, error: std::io::Error) -> ExecError {
        let text = format!("cannot store compiled code in {}", self.dir.display());
        ExecError::new(ErrorKind::Internal, text).caused_by(error)
    }

    async fn compile_into(&self, source: std::fs::File, out: &Path) -> Result<Facts, ExecError> {
        let limit = memory_limit();
        let mut command = Command::new(&self.host);
        command.arg("compile").arg(out).arg(limit.to_string()).stdin(source);
        let _turn = self.compiling.acquire().await;
        let output = run(command, "compile a component").await?;
        // What a Rust program says last when an allocation fails.
        if output.status.signal() == Some(libc::SIGABRT) && said(&output).contains("memory allocation of") {
            return Err(takes_too_much(limit).into());
        }
        match serde_json::from_slice::<CompileAnswer>(&succeeded(output, "compile a component")?) {
            Ok(CompileAnswer::Ready(facts)) => Ok(facts),
            Ok(CompileAnswer::Refused(refusal)) => Err(refusal.into()),
            Err(error) => {
                Err(ExecError::new(ErrorKind::Internal, "the compiler's answer is not understood").caused_by(error))
            }
        }
    }

    async fn engine_key(&self) -> Result<String, ExecError> {
        let mut command = Command::new(&self.host);
        command.arg("engine").stdin(Stdio::null());
        const ATTEMPT: &str = "ask for the engine version";
        let output = succeeded(run(command, ATTEMPT).await?, ATTEMPT)?;
        let key = String::from_utf8_lossy(&output).trim().to_owned();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ExecError::new(
                ErrorKind::Internal,
                format!("{} does not tell its version", self.host.display()),
            ));
        }
        self.drop_others(&key);
        Ok(key)
    }

    /// Removes what no engine with this key has made: code of other versions, and what was left unfinished.
    fn drop_others(&self, key: &str) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| is_code_of(name, key)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether `name` is that of compiled code, or of the record beside it, of the engine `key`.
fn is_code_of(name: &str, key: &str) -> bool {
    let stem = name.strip_suffix(".cwasm").or_else(|| name.strip_suffix(".json"));
    stem.and_then(|stem| stem.strip_suffix(key)?.strip_suffix('-'))
        .is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Makes a folder that is for its owner alone, also where it was for others before.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

/// Copies what the compiler wrote into a file that it never had open, and answers the SHA-256 of that. Whatever is left of
/// the compiler's process may go on writing to its own.
fn take_over(from: &Path, to: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let source = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(from)?;
    let _ = std::fs::remove_file(to);
    let mut whole = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(to)?;
    std::io::copy(&mut source.take(MAX_CODE), &mut whole)?;
    // A host opens it again, by its descriptor and as another user; nobody else comes into the folder.
    whole.set_permissions(std::fs::Permissions::from_mode(0o444))?;
    whole.rewind()?;
    hash(&mut whole)
}

fn hash(file: &mut std::fs::File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// Runs a short process of the host binary to its end.
async fn run(mut command: Command, attempt: &str) -> Result<Output, ExecError> {
    let host = command.as_std().get_program().to_string_lossy().into_owned();
    command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    tokio::time::timeout(TIMEOUT, output(&mut command))
        .await
        .map_err(|_| {
            let text = format!("cannot {attempt}: it took longer than {} seconds", TIMEOUT.as_secs());
            ExecError::new(ErrorKind::Invalid, text)
        })?
        .map_err(|error| {
            let text = format!("cannot {attempt}: {host} does not run; is Bireme installed completely?");
            ExecError::new(ErrorKind::Internal, text).caused_by(error)
        })
}

/// As [`Command::output`], with a bound on what the process prints: it has the bytes of strangers before it.
async fn output(command: &mut Command) -> std::io::Result<Output> {
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(read(stdout), read(stderr))?;
    Ok(Output { status: child.wait().await?, stdout, stderr })
}

/// # Errors
/// `InvalidData` for more than [`MOST_SAID`] bytes.
async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MOST_SAID + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > MOST_SAID {
        let text = format!("it prints more than {MOST_SAID} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// What the process printed, if it ended well.
fn succeeded(output: Output, attempt: &str) -> Result<Vec<u8>, ExecError> {
    if !output.status.success() {
        let text = format!("cannot {attempt}: its process ended with {}: {}", output.status, said(&output));
        return Err(ExecError::new(ErrorKind::Internal, text));
    }
    Ok(output.stdout)
}

async fn hash_file(path: PathBuf) -> std::io::Result<String> {
    tokio::task::spawn_blocking(move || hash(&mut std::fs::File::open(path)?)).await.map_err(std::io::Error::other)?
}
