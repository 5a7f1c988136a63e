//! The compilation cache, and the short process that fills it.
//!
//! Code is compiled once per content and engine version, at check, never when a request waits for it. The process that
//! compiles has no privileges: it writes into a temporary file that it was given open, which is then renamed into place.

use std::collections::HashMap;
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
            Arc::clone(under_way.entry(plain.to_owned()).or_default())
        };
        let guard = turn.lock().await;
        if let Some(compiled) = self.lock_known().get(plain) {
            return Ok(compiled.clone());
        }
        let engine = self.engine.get_or_try_init(|| self.engine_key()).await?;
        let code = format!("{}-{engine}.cwasm", &plain[..40]);
        let facts = match self.stored(&code).await {
            Some(facts) => facts,
            None => self.compile(path, &code).await?,
        };
        let compiled = Compiled { facts, code };
        self.lock_known().insert(plain.to_owned(), compiled.clone());
        drop(guard);
        self.under_way.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(plain);
        Ok(compiled)
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

    async fn compile(&self, path: &Path, code: &str) -> Result<Facts, ExecError> {
        let fail = |what: String, error: std::io::Error| ExecError::new(ErrorKind::Internal, what).caused_by(error);
        tokio::fs::create_dir_all(&self.dir)
            .await
            .map_err(|error| fail(format!("cannot make the cache folder {}", self.dir.display()), error))?;
        let unfinished = self.dir.join(format!("{code}.{}.tmp", std::process::id()));
        let result = self.compile_into(path, &unfinished).await;
        let facts = match result {
            Ok(facts) => facts,
            Err(error) => {
                let _ = tokio::fs::remove_file(&unfinished).await;
                return Err(error);
            }
        };
        let place = |error| fail(format!("cannot store compiled code in {}", self.dir.display()), error);
        let code_sha256 = hash_file(unfinished.clone()).await.map_err(place)?;
        let record = serde_json::to_vec(&Record { facts: facts.clone(), code_sha256 })
            .map_err(|error| fail("cannot write down what a component needs".to_owned(), error.into()))?;
        tokio::fs::rename(&unfinished, self.dir.join(code)).await.map_err(place)?;
        let unfinished = self.dir.join(format!("{code}.{}.json.tmp", std::process::id()));
        tokio::fs::write(&unfinished, record).await.map_err(place)?;
        tokio::fs::rename(&unfinished, self.record_path(code)).await.map_err(place)?;
        Ok(facts)
    }

    async fn compile_into(&self, path: &Path, out: &Path) -> Result<Facts, ExecError> {
        let limit = memory_limit();
        let mut command = Command::new(&self.host);
        command.arg("compile").arg(path).arg(out).arg(limit.to_string());
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
        command.arg("engine");
        const ATTEMPT: &str = "ask for the engine version";
        let output = succeeded(run(command, ATTEMPT).await?, ATTEMPT)?;
        let key = String::from_utf8_lossy(&output).trim().to_owned();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ExecError::new(
                ErrorKind::Internal,
                format!("{} does not tell its version", self.host.display()),
            ));
        }
        Ok(key)
    }
}

/// Runs a short process of the host binary to its end.
async fn run(mut command: Command, attempt: &str) -> Result<Output, ExecError> {
    let host = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    tokio::time::timeout(TIMEOUT, command.output())
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
    tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        std::io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
        Ok(hex::encode(hash.finalize()))
    })
    .await
    .map_err(std::io::Error::other)?
}
