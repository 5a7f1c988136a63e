//! A session with a PostgreSQL server: how it is made, asked, and made as new.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};

use futures::TryStreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio_postgres::config::{ChannelBinding, Host, SslMode, TargetSessionAttrs};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, Statement};
use tokio_rustls::rustls::ClientConfig;

use super::frames::{Measured, Told};
use super::value::{self, Raw};
use crate::account::{Charge, Payer};
use crate::component::{self, Component};
use crate::host::bindings::concurrent::spin::postgres4_2_0::postgres::{
    Column, DbError, DbValue, Error, ParameterValue, QueryError,
};
use crate::host::net::Target;
use crate::host::resp::longest_message;
use crate::host::server::{CONNECT, LONGEST_ADDRESS, Stream};

const SCHEME: &str = "postgres";
const DEFAULT_PORT: u16 = 5432;
/// What a client sends to ask for TLS: its length, and a number that is no version. Source: "SSLRequest" in PostgreSQL's
/// documentation, "Message Formats".
const ASK_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Makes a session as new. The last tells whether the guest prepared statements by SQL.
const AS_NEW: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); \
                      DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; \
                      SELECT name FROM pg_prepared_statements WHERE from_sql LIMIT 1";

pub(super) struct Session {
    client: Client,
    /// A statement was sent, and not all of its answer was read.
    is_busy: bool,
    /// Why the connection broke, which the client is not told by its library.
    fault: Arc<OnceLock<String>>,
    server: Arc<Told>,
    way: Way,
    /// Dropped with the session: the task that reads from the server ends then.
    _end: oneshot::Sender<Infallible>,
}

/// Where the server is, for asking it to end a statement.
struct Way {
    component: Weak<Component>,
    host: String,
    peer: Option<SocketAddr>,
    /// Of a connection with TLS: the server may know no other.
    tls: Option<Arc<ClientConfig>>,
}

/// What a statement answers: its columns, its rows, and what is paid for them.
pub(super) struct Answer {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<DbValue>>,
    pub charges: Vec<Option<Charge>>,
}

impl Session {
    /// Connects to the first server of `address` that answers. `is_own` is whether `tls` trusts whom the guest names.
    ///
    /// # Errors
    /// `ConnectionFailed` with a sentence. The address, which may hold a password, is not in it.
    pub(super) async fn connect(
        component: &Arc<Component>,
        address: &str,
        tls: &Arc<ClientConfig>,
        is_own: bool,
    ) -> Result<Self, Error> {
        let failed = Error::ConnectionFailed;
        let malformed = |error| failed(format!("the address is not that of a PostgreSQL server: {error}"));
        if address.len() > LONGEST_ADDRESS {
            return Err(failed(format!("the address has more than {LONGEST_ADDRESS} bytes")));
        }
        let mut config: Config = address.parse().map_err(malformed)?;
        if is_own && config.get_ssl_mode() == SslMode::Prefer {
            // Whoever says whom to trust does not mean to go on without.
            config.ssl_mode(SslMode::Require);
        }
        if config.get_channel_binding() == ChannelBinding::Require {
            return Err(failed("channel_binding=require is not offered: leave it out".to_owned()));
        }
        if config.get_user().is_none() {
            return Err(failed("the address names no user (postgres://USER:PASSWORD@HOST/DATABASE)".to_owned()));
        }
        if !config.get_hostaddrs().is_empty() {
            return Err(failed("hostaddr is not offered: name the host alone".to_owned()));
        }
        let mut last = "the address names no host (postgres://USER:PASSWORD@HOST/DATABASE)".to_owned();
        for (number, host) in config.get_hosts().iter().enumerate() {
            let Host::Tcp(host) = host else {
                last = "sockets of the filesystem are not offered: name a host".to_owned();
                continue;
            };
            let ports = config.get_ports();
            let port = ports.get(number).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            let host = host.trim_matches(['[', ']']);
            match Self::connect_to(component, &config, host, port, tls).await {
                Ok(session) => match session.fits(config.get_target_session_attrs()).await {
                    true => return Ok(session),
                    false => last = format!("{host} is not as target_session_attrs asks"),
                },
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    async fn connect_to(
        component: &Arc<Component>,
        config: &Config,
        host: &str,
        port: u16,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, String> {
        let target = Target { scheme: SCHEME, host, port };
        let mut stream = Stream::connect(component, target).await?;
        let mode = config.get_ssl_mode();
        if mode != SslMode::Disable {
            let asked = tokio::time::timeout(CONNECT, ask_for_tls(&mut stream)).await;
            let is_offered = asked.map_err(|_| format!("{host} does not answer"))?;
            let plain = mode == SslMode::Prefer;
            stream = match is_offered.map_err(|error| format!("{host}: {error}"))? {
                Offer::Yes => match stream.secure(host, tls).await {
                    Ok(stream) => stream,
                    // As it would be with a server that does not offer it.
                    Err(_) if plain => Stream::connect(component, target).await?,
                    Err(error) => return Err(error),
                },
                Offer::No if plain => stream,
                Offer::Refused if plain => Stream::connect(component, target).await?,
                Offer::No | Offer::Refused => {
                    return Err(format!("{host} does not offer TLS, which sslmode=require asks for"));
                }
            };
        }
        let mut config = config.clone();
        config.ssl_mode(SslMode::Disable);
        let (peer, is_secured) = (stream.peer().ok(), stream.is_secured());
        let server = Arc::new(Told::default());
        let measured = Measured::new(stream, longest_message(component.memory_limit) as usize, Arc::clone(&server));
        let made = tokio::time::timeout(CONNECT, config.connect_raw(measured, NoTls)).await;
        let (client, connection) =
            made.map_err(|_| format!("{host} does not answer"))?.map_err(|error| told(&error))?;
        let (end, ended) = oneshot::channel::<Infallible>();
        let fault = Arc::new(OnceLock::new());
        let broken = Arc::clone(&fault);
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                // Told before the connection is dropped, by which the client knows that it broke.
                done = &mut connection => drop(done.map_err(|error| broken.set(told(&error)))),
                // The client says good-bye, which a server that sends without end would never read.
                _ = ended => drop(tokio::time::timeout(CONNECT, connection).await),
            }
        });
        let tls = is_secured.then(|| Arc::clone(tls));
        let way = Way { component: Arc::downgrade(component), host: host.to_owned(), peer, tls };
        Ok(Self { client, is_busy: false, fault, server, way, _end: end })
    }

    /// Whether the server is one to write to, or to read from, as the address asks.
    ///
    /// Source: PostgreSQL's documentation, "Parameter Key Words".
    async fn fits(&self, wanted: TargetSessionAttrs) -> bool {
        let is_read_only = match wanted {
            TargetSessionAttrs::ReadWrite => false,
            TargetSessionAttrs::ReadOnly => true,
            _ => return true,
        };
        let asked = tokio::time::timeout(CONNECT, self.client.simple_query("SHOW transaction_read_only")).await;
        let Ok(Ok(said)) = asked else { return false };
        said.iter().any(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0) == Some(if is_read_only { "on" } else { "off" }),
            _ => false,
        })
    }

    /// Runs a statement and reads all of its rows, for which `payer` pays.
    pub(super) async fn query(
        &mut self,
        statement: &str,
        parameters: &[ParameterValue],
        payer: &Payer,
    ) -> Result<Answer, Error> {
        let (prepared, parameters) = self.prepare(statement, parameters).await?;
        let columns = prepared
            .columns()
            .iter()
            .map(|column| Column { name: column.name().to_owned(), data_type: value::data_type(column.type_()) });
        let columns: Vec<Column> = columns.collect();
        let types: Vec<Type> = prepared.columns().iter().map(|column| column.type_().clone()).collect();
        let mut answer = Answer { columns, rows: Vec::new(), charges: Vec::new() };
        self.is_busy = true;
        let rows = self.client.query_raw(&prepared, parameters).await;
        let mut rows = std::pin::pin!(rows.map_err(|error| self.failed(&error))?);
        while let Some(row) = rows.try_next().await.map_err(|error| self.failed(&error))? {
            let mut values = Vec::with_capacity(types.len());
            for (column, ty) in types.iter().enumerate() {
                let raw: Option<Raw<'_>> =
                    row.try_get(column).map_err(|error| Error::ValueConversionFailed(told(&error)))?;
                let length = raw.as_ref().map_or(0, |raw| raw.0.len());
                let too_much = |text| Error::QueryFailed(QueryError::Text(text));
                let paid = payer.pay(length + size_of::<DbValue>() + size_of::<Option<Charge>>());
                answer.charges.push(paid.map_err(too_much)?);
                let (more, refused) = (RefCell::new(Vec::new()), Cell::new(false));
                let pay = |bytes| match payer.pay(bytes) {
                    Ok(charge) => {
                        more.borrow_mut().push(charge);
                        Ok(())
                    }
                    Err(text) => {
                        refused.set(true);
                        Err(text)
                    }
                };
                let value = value::decode(ty, raw.map(|raw| raw.0), &pay);
                values.push(
                    value.map_err(
                        |text| {
                            if refused.get() { too_much(text) } else { Error::ValueConversionFailed(text) }
                        },
                    )?,
                );
                answer.charges.append(&mut more.into_inner());
            }
            answer.rows.push(values);
        }
        self.is_busy = false;
        Ok(answer)
    }

    /// Runs a statement; answers how many rows it changed.
    pub(super) async fn execute(&mut self, statement: &str, parameters: &[ParameterValue]) -> Result<u64, Error> {
        let (prepared, parameters) = self.prepare(statement, parameters).await?;
        self.is_busy = true;
        let done = self.client.execute_raw(&prepared, parameters).await;
        self.is_busy = false;
        done.map_err(|error| self.query_failed(&error))
    }

    async fn prepare(
        &mut self,
        statement: &str,
        parameters: &[ParameterValue],
    ) -> Result<(Statement, Vec<value::Encoded>), Error> {
        self.is_busy = true;
        self.server.begin();
        let prepared = self.client.prepare(statement).await;
        self.is_busy = false;
        let prepared = prepared.map_err(|error| self.query_failed(&error))?;
        let types = prepared.params();
        if types.len() != parameters.len() {
            let (wanted, given) = (types.len(), parameters.len());
            return Err(Error::BadParameter(format!(
                "the statement takes {wanted} parameters, and {given} were given"
            )));
        }
        let encoded = parameters.iter().zip(types).enumerate().map(|(at, (value, ty))| {
            value::encode(value, ty).map_err(|why| Error::BadParameter(format!("parameter {}: {why}", at + 1)))
        });
        let encoded = encoded.collect::<Result<_, _>>()?;
        Ok((prepared, encoded))
    }

    /// The server ended the statement by itself.
    fn failed(&mut self, error: &tokio_postgres::Error) -> Error {
        self.is_busy = false;
        self.query_failed(error)
    }

    fn query_failed(&self, error: &tokio_postgres::Error) -> Error {
        match self.fault.get().filter(|_| error.is_closed()) {
            Some(fault) => Error::QueryFailed(QueryError::Text(fault.clone())),
            None => query_failed(error),
        }
    }
}

impl component::Session for Session {
    fn is_at_rest(&self) -> bool {
        !self.is_busy && !self.client.is_closed() && self.server.may_go_on()
    }

    async fn reset(&mut self) -> bool {
        self.server.begin();
        // By itself: what follows is one transaction.
        if self.client.batch_execute("ROLLBACK").await.is_err() {
            return false;
        }
        // All that DISCARD ALL does but for prepared statements: the client knows types by some of its own.
        let Ok(said) = self.client.simple_query(AS_NEW).await else { return false };
        // The locks answer with a row. Another is a statement that the guest prepared by SQL.
        said.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count() == 1
    }

    /// Source: "Canceling Requests in Progress" in PostgreSQL's documentation: by a connection of its own.
    async fn abandon(self) {
        if !self.is_busy || self.client.is_closed() {
            return;
        }
        let token = self.client.cancel_token();
        let Self { client, way: Way { component, host, peer, tls }, .. } = self;
        // Its place among the descriptors is needed.
        drop(client);
        let (Some(component), Some(peer)) = (component.upgrade(), peer) else { return };
        let Ok(mut stream) = Stream::again(&component, peer, &host).await else { return };
        if let Some(tls) = tls {
            if !matches!(ask_for_tls(&mut stream).await, Ok(Offer::Yes)) {
                return;
            }
            let Ok(secured) = stream.secure(&host, &tls).await else { return };
            stream = secured;
        }
        let _ = token.cancel_query_raw(stream, NoTls).await;
    }
}

/// What a server says to the question for TLS.
enum Offer {
    Yes,
    No,
    /// With an error, as servers of before TLS do, and those that have no place for one more.
    Refused,
}

/// Asks whether the server goes on with TLS.
async fn ask_for_tls(stream: &mut Stream) -> std::io::Result<Offer> {
    stream.write_all(&ASK_FOR_TLS).await?;
    match stream.read_u8().await? {
        b'S' => Ok(Offer::Yes),
        b'N' => Ok(Offer::No),
        b'E' => Ok(Offer::Refused),
        other => {
            Err(std::io::Error::other(format!("it does not speak PostgreSQL: it answers with the byte {other:#04x}")))
        }
    }
}

/// An error with what is behind it, which the library tells apart.
fn told(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn query_failed(error: &tokio_postgres::Error) -> Error {
    let text = told(error);
    let Some(known) = error.as_db_error() else { return Error::QueryFailed(QueryError::Text(text)) };
    let extras = [
        ("column", known.column().map(str::to_owned)),
        ("constraint", known.constraint().map(str::to_owned)),
        ("datatype", known.datatype().map(str::to_owned)),
        ("file", known.file().map(str::to_owned)),
        ("hint", known.hint().map(str::to_owned)),
        ("line", known.line().map(|line| line.to_string())),
        ("routine", known.routine().map(str::to_owned)),
        ("schema", known.schema().map(str::to_owned)),
        ("table", known.table().map(str::to_owned)),
        ("where_", known.where_().map(str::to_owned)),
    ];
    Error::QueryFailed(QueryError::DbError(DbError {
        as_text: text,
        severity: known.severity().to_owned(),
        code: known.code().code().to_owned(),
        message: known.message().to_owned(),
        detail: known.detail().map(str::to_owned),
        extras: extras.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(),
    }))
}
