//! The compilation cache, and the short process that fills it.
//!
//! Code is compiled once per content and engine version, when its image comes in or else at
//! create, never when a request waits for it. It is kept under
//! the digest of what was compiled, which is compared with the one that was asked for: whoever claims another's digest is
//! refused, and gets nothing into its place. The process that compiles has no privileges and no names: it reads one open
//! file and writes into another, whose content is then copied to a file that it never saw.

mod process;

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bireme_core::{ErrorKind, ExecError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use crate::memory;
use crate::places::{PATIENCE, Places, share};
use crate::protocol::{CompileAnswer, Facts, Refusal};
use process::{processor_time, run, said, succeeded};

/// Longest time one compilation may take, on a machine however busy.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Seconds of processor time that one compilation may take, on all its threads.
pub const MOST_PROCESSOR_TIME: u64 = 600;
/// Most bytes of compiled code.
pub const MAX_CODE: u64 = 2 << 30;

/// Most bytes that are kept of what one component imports and exports. The compiler bounds its names to a quarter of a MiB,
/// as long as it is itself.
const MOST_FACTS: usize = 1 << 20;

/// Bytes that `facts` take, roughly.
fn cost(facts: &Facts) -> usize {
    facts.imports.iter().chain(&facts.exports).map(|name| name.len() + size_of::<String>()).sum()
}

/// Components that are remembered as sound; the rest is looked at again when it is next asked for.
const KNOWN: usize = 4096;

/// How long a component that takes too much to compile is refused for that without another attempt, and how many are.
const REFUSED: Duration = Duration::from_secs(15 * 60);
const MOST_REFUSED: usize = 1024;

/// Code that was compiled so long ago, for a component that no image has, is removed.
const UNUSED: Duration = Duration::from_secs(60 * 60);

/// [`share`] of this machine.
fn share_of_machine() -> (usize, u64) {
    match memory::of_machine() {
        u64::MAX => share(0),
        total => share(total),
    }
}

/// How sentences begin about what is worth no second attempt.
const TAKES_TOO_MUCH: &str = "compiling this component takes more than";

/// The refusal of a component that takes more than `limit` bytes of memory to compile.
pub fn takes_too_much(limit: u64) -> Refusal {
    let text = format!(
        "{TAKES_TOO_MUCH} {} MiB of memory, the most that is allowed here; divide its largest functions, or build it with \
         optimisation for size",
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
    /// What took too long or too much memory to compile, since when, and what was said of it.
    refused: Mutex<HashMap<String, (Instant, String)>>,
    /// One compilation of one content at a time.
    under_way: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    places: Places,
}

impl Cache {
    pub(crate) fn new(host: PathBuf, dir: PathBuf) -> Self {
        let places = Places::new(share_of_machine().0);
        Self {
            host,
            dir,
            engine: OnceCell::new(),
            known: Mutex::default(),
            refused: Mutex::default(),
            under_way: Mutex::default(),
            places,
        }
    }

    /// The compiled form of the component at `path`, whose content has `digest`. Compiles it if need be.
    ///
    /// # Errors
    /// `Invalid` or `Unsupported` with a sentence when the component cannot run here.
    pub(crate) async fn get(&self, path: &Path, digest: &str) -> Result<Compiled, ExecError> {
        self.get_telling(path, digest, &|| ()).await
    }

    /// As [`Cache::get`]; calls `begins` once when the component is compiled for this call, or for another one that this
    /// one waits for.
    pub(crate) async fn get_telling(
        &self,
        path: &Path,
        digest: &str,
        begins: &(dyn Fn() + Send + Sync),
    ) -> Result<Compiled, ExecError> {
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
        let turn = self.turn(plain);
        let mut told = false;
        let _guard = match turn.try_lock() {
            Ok(guard) => guard,
            Err(_) => {
                told = true;
                begins();
                turn.lock().await
            }
        };
        if let Some(compiled) = self.lock_known().get(plain) {
            return Ok(compiled.clone());
        }
        if let Some(text) = self.refused_before(plain) {
            return Err(ExecError::new(ErrorKind::Invalid, text));
        }
        let engine = self.engine.get_or_try_init(|| self.engine_key()).await?;
        let code = format!("{plain}-{engine}.cwasm");
        let facts = match self.stored(&code).await {
            Some(facts) => facts,
            None => {
                if !told {
                    begins();
                }
                self.compile(path, plain, &code).await.inspect_err(|error| self.remember_refusal(plain, error))?
            }
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

    /// Removes code of components whose digests are not among `kept`, unless it was compiled within the last hour.
    pub(crate) async fn retain(&self, kept: &HashSet<String>) {
        let Some(engine) = self.engine.get().cloned() else { return };
        let (dir, kept) = (self.dir.clone(), kept.clone());
        let found = tokio::task::spawn_blocking(move || unused(&dir, &engine, &kept)).await;
        for (plain, path) in found.unwrap_or_default() {
            // Whoever is about to use it has its turn, and finds it gone after ours.
            let turn = self.turn(&plain);
            let Ok(_guard) = turn.try_lock() else { continue };
            self.lock_known().remove(&plain);
            if let Err(error) = tokio::fs::remove_file(&path).await {
                tracing::warn!(path = %path.display(), %error, "code of a component that no image has cannot be removed");
            }
        }
    }

    /// What is held by whoever compiles this content.
    fn turn(&self, plain: &str) -> Arc<AsyncMutex<()>> {
        let mut under_way = self.under_way.lock();
        // Whoever waits or works holds a turn: what nobody holds is over, however it ended.
        under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(under_way.entry(plain.to_owned()).or_default())
    }

    /// Why this content was refused a while ago, so that asking again and again does not keep the machine busy.
    fn refused_before(&self, plain: &str) -> Option<String> {
        let mut refused = self.refused.lock();
        refused.retain(|_, (since, _)| since.elapsed() < REFUSED);
        let (_, text) = refused.get(plain)?;
        Some(format!(
            "{text} (it was tried less than {} minutes ago and is not tried again until then)",
            REFUSED.as_secs() / 60
        ))
    }

    fn remember_refusal(&self, plain: &str, error: &ExecError) {
        if error.message().starts_with(TAKES_TOO_MUCH) {
            let mut refused = self.refused.lock();
            if refused.len() < MOST_REFUSED {
                refused.insert(plain.to_owned(), (Instant::now(), error.message().to_owned()));
            }
        }
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

    fn lock_known(&self) -> parking_lot::MutexGuard<'_, HashMap<String, Compiled>> {
        self.known.lock()
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
        let began = Instant::now();
        tracing::info!(component = plain, "compiling a component");
        // Whoever gives up leaves neither.
        let unfinished = Aside(self.dir.join(format!("{code}.{}.tmp", std::process::id())));
        let whole = Aside(self.dir.join(format!("{code}.{}.whole", std::process::id())));
        let facts = self.compile_into(source, &unfinished.0).await?;
        let (from, to) = (unfinished.0.clone(), whole.0.clone());
        let taken = tokio::task::spawn_blocking(move || take_over(&from, &to)).await;
        let code_sha256 = taken.map_err(std::io::Error::other).flatten().map_err(|error| self.not_stored(error))?;
        tracing::info!(component = plain, took = ?began.elapsed(), "compiled a component");
        let record = serde_json::to_vec(&Record { facts: facts.clone(), code_sha256 })
            .map_err(|error| fail("cannot write down what a component needs".to_owned(), error.into()))?;
        tokio::fs::rename(&whole.0, self.dir.join(code)).await.map_err(|error| self.not_stored(error))?;
        let unfinished = Aside(self.dir.join(format!("{code}.{}.json.tmp", std::process::id())));
        tokio::fs::write(&unfinished.0, record).await.map_err(|error| self.not_stored(error))?;
        tokio::fs::rename(&unfinished.0, self.record_path(code)).await.map_err(|error| self.not_stored(error))?;
        Ok(facts)
    }

    fn not_stored(&self, error: std::io::Error) -> ExecError {
        let text = format!("cannot store compiled code in {}", self.dir.display());
        ExecError::new(ErrorKind::Internal, text).caused_by(error)
    }

    async fn compile_into(&self, source: std::fs::File, out: &Path) -> Result<Facts, ExecError> {
        let (_, limit) = share_of_machine();
        let mut command = Command::new(&self.host);
        command.arg("compile").arg(out).arg(limit.to_string()).stdin(source);
        let mut place = self.places.take().await;
        let pid = AtomicU32::new(0);
        // Whatever of the two is dropped ends: the process is killed.
        let output = tokio::select! {
            output = run(command, "compile a component", TIMEOUT, &pid) => output?.ok_or_else(too_busy)?,
            () = place.until_others_need_it(|| processor_time(pid.load(Ordering::Relaxed))) => return Err(gives_way()),
        };
        if output.status.signal() == Some(libc::SIGXCPU) {
            return Err(takes_too_long());
        }
        // What a Rust program says last when an allocation fails.
        if output.status.signal() == Some(libc::SIGABRT) && said(&output).contains("memory allocation of") {
            return Err(takes_too_much(limit).into());
        }
        match serde_json::from_slice::<CompileAnswer>(&succeeded(output, "compile a component")?) {
            Ok(CompileAnswer::Ready(facts)) if cost(&facts) <= MOST_FACTS => Ok(facts),
            Ok(CompileAnswer::Ready(_)) => {
                Err(ExecError::new(ErrorKind::Internal, "the compiler names more imports and exports than it may"))
            }
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
        let output = run(command, ATTEMPT, TIMEOUT, &AtomicU32::new(0)).await?.ok_or_else(|| {
            let text = format!("cannot {ATTEMPT}: {} does not answer", self.host.display());
            ExecError::new(ErrorKind::Internal, text)
        })?;
        let output = succeeded(output, ATTEMPT)?;
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

/// The files of code that was compiled a while ago, of components whose digests are not among `kept`; with the digests.
fn unused(dir: &Path, engine: &str, kept: &HashSet<String>) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_code_of(name, engine)) else { continue };
        let plain = &name[..64];
        let made = entry.metadata().and_then(|about| about.modified()).ok();
        let old = made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age >= UNUSED);
        if old && !kept.contains(&format!("sha256:{plain}")) {
            found.push((plain.to_owned(), entry.path()));
        }
    }
    found
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

/// A file that is not in its place yet: removed when this is dropped, if it is still there.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
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

fn takes_too_long() -> ExecError {
    let text =
        format!("{TAKES_TOO_MUCH} {MOST_PROCESSOR_TIME} seconds of processor time; divide its largest functions");
    ExecError::new(ErrorKind::Invalid, text)
}

fn too_busy() -> ExecError {
    let minutes = TIMEOUT.as_secs() / 60;
    let text =
        format!("this component was not compiled within {minutes} minutes: the machine is busy; try again later");
    ExecError::new(ErrorKind::Unavailable, text)
}

fn gives_way() -> ExecError {
    let text = format!(
        "compiling this component has taken {} seconds of processor time, others wait for theirs, and another long compilation has the place \
         for such; try again when they are done",
        PATIENCE.as_secs()
    );
    ExecError::new(ErrorKind::Unavailable, text)
}

async fn hash_file(path: PathBuf) -> std::io::Result<String> {
    tokio::task::spawn_blocking(move || hash(&mut std::fs::File::open(path)?)).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_too_much_is_not_tried_again_at_once() {
        let cache = Cache::new(PathBuf::new(), PathBuf::new());
        cache.remember_refusal("a", &takes_too_long());
        cache.remember_refusal("b", &takes_too_much(1 << 30).into());
        cache.remember_refusal("c", &ExecError::new(ErrorKind::Invalid, "it imports what is not offered"));
        for (digest, refused) in [("a", true), ("b", true), ("c", false), ("d", false)] {
            assert_eq!(cache.refused_before(digest).is_some(), refused, "{digest}");
        }
        assert!(
            cache.refused_before("a").unwrap().starts_with("compiling this component takes more than 600 seconds of")
        );
        for digest in 0..2 * MOST_REFUSED {
            cache.remember_refusal(&digest.to_string(), &takes_too_long());
        }
        assert!(cache.refused.lock().len() <= MOST_REFUSED);
    }

    #[tokio::test]
    async fn code_that_no_image_has_goes_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let [kept, gone, new] = ["a", "b", "c"].map(|digit| digit.repeat(64));
        let hour_ago = std::time::SystemTime::now() - UNUSED;
        for (digest, made) in [(&kept, hour_ago), (&gone, hour_ago), (&new, std::time::SystemTime::now())] {
            for suffix in ["cwasm", "json"] {
                let file = std::fs::File::create(dir.path().join(format!("{digest}-0e.{suffix}"))).unwrap();
                file.set_modified(made).unwrap();
            }
        }
        let cache = Cache::new(PathBuf::new(), dir.path().to_owned());
        let images = HashSet::from([format!("sha256:{kept}")]);
        cache.retain(&images).await;
        let count = || std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(count(), 6, "whose code it is, is not known before an engine was asked for its version");
        cache.engine.set("0e".to_owned()).unwrap();
        let turn = cache.turn(&gone);
        let held = turn.try_lock().unwrap();
        cache.retain(&images).await;
        assert_eq!(count(), 6, "somebody is about to use it");
        drop(held);
        cache.retain(&images).await;
        assert_eq!(count(), 4);
        assert!(!dir.path().join(format!("{gone}-0e.cwasm")).exists());
    }
}
