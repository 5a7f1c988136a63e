//! Spin's SQLite: `fermyon:spin/sqlite@2.0.0` and `spin:sqlite/sqlite@3`. The databases are files of the engine's own, as
//! key-value stores are.
//!
//! The statements are a stranger's. None of them reaches another file or sets a limit. One that nobody waits for any more ends
//! at SQLite's next step; the functions that may take long within one step are ours, or held to short patterns and values.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use memchr::memmem;
use parking_lot::Mutex;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Batch, Connection, ErrorCode};
use tokio::sync::Semaphore;
use wasmtime::component::{Access, Accessor, FutureReader, HasSelf, Resource, StreamReader};

use super::bindings::concurrent::spin::sqlite::sqlite as v3;
use super::bindings::sync::fermyon::spin2_0_0::sqlite as v2;
use super::rows::streams;
use crate::account::{Account, Charge, Payer};
use crate::embedded::{LARGEST, OF_STORE, blocking, open_bounded};
use crate::guest::Guest;
use crate::stock::Place;

/// Steps of SQLite's machine between two looks whether anybody still waits.
const STEPS: i32 = 10_000;
/// Bytes that SQLite may have in memory, for all databases of a process.
const HEAP: i64 = 64 << 20;
/// Bytes of one value, or of a row.
const LONGEST: i32 = 16 << 20;
/// Bytes of a pattern of LIKE and GLOB, which take a call within a call for each wildcard.
const PATTERN: i32 = 1000;
/// Bytes that it takes to remember what was paid for a value.
const OF_CHARGE: usize = size_of::<Option<Charge>>();
/// What a statement may ask or set of the database: nothing of how it is kept or how large it may be.
const PRAGMAS: [&str; 20] = [
    "application_id",
    "case_sensitive_like",
    "collation_list",
    "compile_options",
    "data_version",
    "defer_foreign_keys",
    "foreign_key_check",
    "foreign_key_list",
    "foreign_keys",
    "freelist_count",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "page_count",
    "recursive_triggers",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];

/// A connection as a guest has it.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Database(Arc<Open>);

struct Open {
    /// Until it is closed.
    connection: Mutex<Option<Connection>>,
    /// One at a time: calls wait for it here, and not each in a thread.
    turn: Arc<Semaphore>,
    /// Whoever asked last has gone.
    given_up: Arc<AtomicBool>,
    /// Those of the component that may be under way at once.
    statements: Arc<Semaphore>,
    /// The write-ahead log, which no limit of SQLite is about.
    log: PathBuf,
    /// Of its files.
    _places: Vec<Place>,
}

impl Drop for Open {
    /// The last connection to a database that is closed takes over what is in the log, and waits for the disk.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.get_mut().take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(connection));
        }
    }
}

/// Why something was not done.
#[derive(Debug)]
enum Failure {
    AccessDenied,
    Full,
    Other(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::AuthorizationForStatementDenied) => Self::Other(NOT_OFFERED.to_owned()),
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Why a statement is refused.
const NOT_OFFERED: &str = "the statement is not offered: ATTACH, DETACH, VACUUM, virtual tables, extensions, and pragmas that say how a \
                           database is kept are not (docs/spin.md); leave it out";
/// Why several are.
const ONE_AT_A_TIME: &str = "there are several statements: send each by itself";

/// Has a statement end when this is dropped before it was told that the statement has.
struct Waiting<'a>(Option<&'a AtomicBool>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(given_up) = self.0 {
            given_up.store(true, Relaxed);
        }
    }
}

fn may(context: AuthContext<'_>) -> Authorization {
    let allowed = match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } | AuthAction::CreateVtable { .. } => false,
        AuthAction::Pragma { pragma_name, .. } => PRAGMAS.contains(&pragma_name.to_ascii_lowercase().as_str()),
        AuthAction::Function { function_name } => !function_name.eq_ignore_ascii_case("load_extension"),
        _ => true,
    };
    if allowed { Authorization::Allow } else { Authorization::Deny }
}

fn open_file(file: PathBuf, given_up: Arc<AtomicBool>) -> rusqlite::Result<Connection> {
    let mut connection = open_bounded(&file)?;
    // What would become a file beside the database, in a folder that nobody may write to.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Of all databases of the process: what a statement sorts, say.
    connection.pragma_update(None, "hard_heap_limit", HEAP)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN)?;
    add_functions(&connection)?;
    connection.authorizer(Some(may))?;
    connection.progress_handler(STEPS, Some(move || given_up.load(Relaxed)))?;
    Ok(connection)
}

/// In place of SQLite's own, which look for a text at each place of another: these take as long as both are.
fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("instr", 2, flags, |context| {
        let (whole, part) = (context.get_raw(0), context.get_raw(1));
        let both_are_bytes = matches!((whole, part), (ValueRef::Blob(_), ValueRef::Blob(_)));
        let (Some(whole), Some(part)) = (bytes_of(whole), bytes_of(part)) else { return Ok(None) };
        let found = memmem::find(&whole, &part);
        // Counted in characters, but for blobs.
        let counted =
            |at: usize| if both_are_bytes { at } else { String::from_utf8_lossy(&whole[..at]).chars().count() };
        Ok(Some(found.map_or(0, |at| counted(at) as i64 + 1)))
    })?;
    connection.create_scalar_function("replace", 3, flags, |context| {
        let texts = (bytes_of(context.get_raw(0)), bytes_of(context.get_raw(1)), bytes_of(context.get_raw(2)));
        let (Some(whole), Some(from), Some(to)) = texts else { return Ok(None) };
        let mut text = Vec::with_capacity(whole.len());
        let mut rest = &whole[..];
        while !from.is_empty()
            && let Some(at) = memmem::find(rest, &from)
        {
            text.extend_from_slice(&rest[..at]);
            text.extend_from_slice(&to);
            rest = &rest[at + from.len()..];
            if text.len() > LONGEST as usize {
                return Err(rusqlite::Error::UserFunctionError("string or blob too big".into()));
            }
        }
        text.extend_from_slice(rest);
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    })
}

/// A value as text or bytes; `None` for NULL.
fn bytes_of(value: ValueRef<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(Cow::Owned(number.to_string().into_bytes())),
        ValueRef::Real(number) => Some(Cow::Owned(format!("{number:?}").into_bytes())),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Cow::Borrowed(bytes)),
    }
}

/// What a statement answers: the names of its columns, its rows, and what is paid for them.
type Answer = (Vec<String>, Vec<Vec<Value>>, Vec<Option<Charge>>);

impl Database {
    async fn open(account: &Arc<Account>, name: &str) -> Result<Self, Failure> {
        let component = &account.component;
        if !component.spec.bireme.databases.contains(name) {
            let text = format!("bireme: the database {name} is not permitted; add it to bireme.sqlite");
            component.log.note(&text);
            return Err(Failure::AccessDenied);
        }
        let mut places = Vec::with_capacity(OF_STORE);
        for _ in 0..OF_STORE {
            let place = account.descriptor();
            places.push(
                place.ok_or_else(|| Failure::Other("the component has as many files open as it may".to_owned()))?,
            );
        }
        let (file, given_up) = (component.embedded.database(name), Arc::new(AtomicBool::new(false)));
        let mut log = file.clone().into_os_string();
        log.push("-wal");
        let (log, statements) = (PathBuf::from(log), Arc::clone(&component.statements));
        let flag = Arc::clone(&given_up);
        let opened = blocking(move || open_file(file, flag).map_err(|error| error.to_string()));
        let connection = Mutex::new(Some(opened.await.map_err(Failure::Other)?));
        let turn = Arc::new(Semaphore::new(1));
        Ok(Self(Arc::new(Open { connection, turn, given_up, statements, log, _places: places })))
    }

    /// Runs `work` on a thread, which gives up when nobody waits any more.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<Result<T, String>> + Send + 'static,
    ) -> Result<T, Failure> {
        let open = Arc::clone(&self.0);
        let turn = Arc::clone(&open.turn).acquire_owned().await.map_err(|error| Failure::Other(error.to_string()))?;
        let statements = Arc::clone(&open.statements);
        let thread = statements.acquire_owned().await.map_err(|error| Failure::Other(error.to_string()))?;
        // Nothing of an earlier call runs any more.
        self.0.given_up.store(false, Relaxed);
        let mut waiting = Waiting(Some(&self.0.given_up));
        let done = blocking(move || {
            let (_turn, _thread) = (turn, thread);
            open.connection.lock().as_mut().map(work).ok_or_else(|| "the connection is closed".to_owned())
        });
        let done = done.await;
        waiting.0 = None;
        done.map_err(Failure::Other)??.map_err(Failure::Other)
    }

    async fn execute(&self, statement: String, parameters: Vec<Value>, payer: Payer) -> Result<Answer, Failure> {
        // As long as somebody reads what was there before, nothing of it is taken over into the database.
        if std::fs::metadata(&self.0.log).is_ok_and(|log| log.len() > LARGEST as u64) {
            return Err(Failure::Full);
        }
        self.with(move |connection| {
            // One by one: what looks for the end of all of them calls itself for each.
            let mut all = Batch::new(connection, &statement);
            let Some(mut prepared) = all.next()? else { return Ok(Ok((Vec::new(), Vec::new(), Vec::new()))) };
            if all.next()?.is_some() {
                return Ok(Err(ONE_AT_A_TIME.to_owned()));
            }
            let columns: Vec<String> = prepared.column_names().map(str::to_owned).collect();
            let (count, mut charges) = (columns.len(), Vec::new());
            let (mut rows, mut found) = (prepared.query(rusqlite::params_from_iter(parameters))?, Vec::new());
            while let Some(row) = rows.next()? {
                let mut values = Vec::with_capacity(count);
                for column in 0..count {
                    let value = row.get_ref(column)?;
                    let length = match value {
                        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
                        _ => 0,
                    };
                    match payer.pay(length + size_of::<Value>() + OF_CHARGE) {
                        Ok(charge) => charges.push(charge),
                        Err(text) => return Ok(Err(text)),
                    }
                    values.push(Value::try_from(value).map_err(|error| {
                        rusqlite::Error::FromSqlConversionFailure(column, value.data_type(), Box::new(error))
                    })?);
                }
                found.push(values);
            }
            Ok(Ok((columns, found, charges)))
        })
        .await
    }
}

fn find(guest: &mut Guest, connection: &Resource<Database>) -> Result<Database, Failure> {
    guest.held(connection).map_err(Failure::Other)
}

/// Conversions to the types of one version.
macro_rules! version {
    ($v:ident) => {
        impl From<Failure> for $v::Error {
            fn from(failure: Failure) -> Self {
                match failure {
                    Failure::AccessDenied => Self::AccessDenied,
                    Failure::Full => Self::DatabaseFull,
                    Failure::Other(text) => Self::Io(text),
                }
            }
        }

        impl From<$v::Value> for Value {
            fn from(value: $v::Value) -> Self {
                match value {
                    $v::Value::Integer(number) => Self::Integer(number),
                    $v::Value::Real(number) => Self::Real(number),
                    $v::Value::Text(text) => Self::Text(text),
                    $v::Value::Blob(bytes) => Self::Blob(bytes),
                    $v::Value::Null => Self::Null,
                }
            }
        }

        impl From<Value> for $v::Value {
            fn from(value: Value) -> Self {
                match value {
                    Value::Integer(number) => Self::Integer(number),
                    Value::Real(number) => Self::Real(number),
                    Value::Text(text) => Self::Text(text),
                    Value::Blob(bytes) => Self::Blob(bytes),
                    Value::Null => Self::Null,
                }
            }
        }

        impl From<Answer> for $v::QueryResult {
            fn from((columns, rows, _charges): Answer) -> Self {
                let row = |values: Vec<Value>| $v::RowResult { values: values.into_iter().map(Into::into).collect() };
                Self { columns, rows: rows.into_iter().map(row).collect() }
            }
        }

        impl $v::Host for Guest {}
    };
}
version!(v2);
version!(v3);

impl Guest {
    async fn open_database(&mut self, name: &str) -> Result<Resource<Database>, Failure> {
        let database = Database::open(&self.account, name).await?;
        self.table.push(database).map_err(|error| Failure::Other(error.to_string()))
    }

    async fn ask_database<V: Into<Value>>(
        &mut self,
        connection: &Resource<Database>,
        statement: String,
        parameters: Vec<V>,
    ) -> Result<Answer, Failure> {
        let (database, payer) = (find(self, connection)?, Payer::new(&self.account));
        database.execute(statement, parameters.into_iter().map(Into::into).collect(), payer).await
    }
}

impl v2::HostConnection for Guest {
    async fn open(&mut self, database: String) -> Result<Resource<Database>, v2::Error> {
        Ok(self.open_database(&database).await?)
    }

    async fn execute(
        &mut self,
        connection: Resource<Database>,
        statement: String,
        parameters: Vec<v2::Value>,
    ) -> Result<v2::QueryResult, v2::Error> {
        Ok(self.ask_database(&connection, statement, parameters).await?.into())
    }

    async fn drop(&mut self, connection: Resource<Database>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

/// A number that the connection knows; 0 where it is none.
async fn number<T: Send + Default + 'static>(
    database: Result<Database, Failure>,
    read: impl FnOnce(&Connection) -> T + Send + 'static,
) -> T {
    match database {
        Ok(database) => database.with(move |connection| Ok(Ok(read(connection)))).await.unwrap_or_default(),
        Err(_) => T::default(),
    }
}

impl v3::HostConnection for Guest {
    async fn open(&mut self, database: String) -> Result<Resource<Database>, v3::Error> {
        Ok(self.open_database(&database).await?)
    }

    async fn execute(
        &mut self,
        connection: Resource<Database>,
        statement: String,
        parameters: Vec<v3::Value>,
    ) -> Result<v3::QueryResult, v3::Error> {
        Ok(self.ask_database(&connection, statement, parameters).await?.into())
    }

    async fn last_insert_rowid(&mut self, connection: Resource<Database>) -> i64 {
        number(find(self, &connection), Connection::last_insert_rowid).await
    }

    async fn changes(&mut self, connection: Resource<Database>) -> u64 {
        number(find(self, &connection), Connection::changes).await
    }

    fn drop(&mut self, connection: Resource<Database>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

fn find3<T: Send>(guest: &Accessor<T, HasSelf<Guest>>, connection: &Resource<Database>) -> Result<Database, Failure> {
    guest.with(|mut access| find(access.get(), connection))
}

impl<T: Send> v3::HostConnectionWithStore<T> for HasSelf<Guest> {
    async fn open_async(guest: &Accessor<T, Self>, database: String) -> Result<Resource<Database>, v3::Error> {
        let account = guest.with(|mut access| Arc::clone(&access.get().account));
        let opened = Database::open(&account, &database).await?;
        let pushed = guest.with(|mut access| access.get().table.push(opened));
        Ok(pushed.map_err(|error| Failure::Other(error.to_string()))?)
    }

    async fn execute_async(
        guest: &Accessor<T, Self>,
        connection: Resource<Database>,
        statement: String,
        parameters: Vec<v3::Value>,
    ) -> wasmtime::Result<
        Result<(Vec<String>, StreamReader<v3::RowResult>, FutureReader<Result<(), v3::Error>>), v3::Error>,
    > {
        let payer = guest.with(|mut access| Payer::new(&access.get().account));
        let answer = match find3(guest, &connection) {
            Ok(database) => database.execute(statement, parameters.into_iter().map(Into::into).collect(), payer).await,
            Err(failure) => Err(failure),
        };
        let (columns, rows, charges) = match answer {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(failure.into())),
        };
        let rows: Vec<_> = v3::QueryResult::from((Vec::new(), rows, Vec::new())).rows;
        guest.with(|mut access: Access<'_, T, Self>| {
            let (rows, end) = streams(&mut access, rows, charges)?;
            Ok(Ok((columns, rows, end)))
        })
    }

    async fn last_insert_rowid_async(guest: &Accessor<T, Self>, connection: Resource<Database>) -> i64 {
        number(find3(guest, &connection), Connection::last_insert_rowid).await
    }

    async fn changes_async(guest: &Accessor<T, Self>, connection: Resource<Database>) -> u64 {
        number(find3(guest, &connection), Connection::changes).await
    }
}
