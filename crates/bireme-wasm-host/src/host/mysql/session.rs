//! A session with a MySQL or MariaDB server: how it is made, asked, and made as new.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use mysql_common::constants::{CapabilityFlags, ColumnType, StatusFlags};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{
    AuthPlugin, AuthSwitchRequest, Column, ComStmtExecuteRequestBuilder, ErrPacket, HandshakePacket, HandshakeResponse,
    SslRequest, StmtPacket,
};
use mysql_common::proto::{Binary, MySerialize as _, Text};
use mysql_common::row::{Row, RowDeserializer};
use mysql_common::value::{ServerSide, Value};

use super::address::Address;
use super::packets::Packets;
use crate::account::{Charge, Payer};
use crate::component::{self, Component};
use crate::host::net::Target;
use crate::host::resp::longest_message;
use crate::host::server::{CONNECT, Stream};

/// What this client can do: nothing of several statements at once, and no files that a server may ask for.
const CAPABILITIES: CapabilityFlags = CapabilityFlags::CLIENT_PROTOCOL_41
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_LONG_PASSWORD)
    .union(CapabilityFlags::CLIENT_LONG_FLAG)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_MULTI_RESULTS)
    .union(CapabilityFlags::CLIENT_PS_MULTI_RESULTS);
/// Commands. Source: "Command Phase" in MySQL's internals.
const COM_INIT_DB: u8 = 0x02;
const COM_QUERY: u8 = 0x03;
const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_CLOSE: u8 = 0x19;
const COM_RESET_CONNECTION: u8 = 0x1f;
/// First bytes of answers.
const OK: u8 = 0x00;
const MORE_AUTHENTICATION: u8 = 0x01;
const WANTS_FILE: u8 = 0xfb;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// The error of a statement that cannot be prepared (`ER_UNSUPPORTED_PS`).
const NOT_PREPARED: u16 = 1295;
/// Answers of `caching_sha2_password`, and the question for the server's key.
const FAST: u8 = 3;
const FULL: u8 = 4;
const ASK_FOR_KEY: u8 = 2;
/// Most bytes of a server's key, in PEM form: those of 4,096 bits have 800.
const LONGEST_KEY: usize = 1024;
/// Most rounds of authentication.
const ROUNDS: usize = 8;

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Failure {
    Connection(String),
    Parameter(String),
    /// The server says so.
    Query(u16, String),
    Other(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Connection(text)
    }
}

pub(super) struct Session {
    packets: Packets,
    capabilities: CapabilityFlags,
    /// The server's number for it.
    id: u32,
    /// A statement was sent, and not all of its answer was read.
    is_busy: bool,
    /// To have the server end a statement.
    peer: Option<SocketAddr>,
    address: Arc<Address>,
    component: Weak<Component>,
}

/// What a statement answers: its columns, its rows, and what is paid for them.
#[derive(Default)]
pub(super) struct Answer {
    pub columns: Arc<[Column]>,
    pub rows: Vec<Vec<Value>>,
    pub charges: Vec<Option<Charge>>,
}

impl Session {
    /// # Errors
    /// `Connection` with a sentence.
    pub(super) async fn connect(component: &Arc<Component>, address: Arc<Address>) -> Result<Self, Failure> {
        let target = Target { scheme: "mysql", host: &address.host, port: address.port };
        Self::begin(component, &address, Stream::connect(component, target).await?).await
    }

    async fn begin(component: &Arc<Component>, address: &Arc<Address>, stream: Stream) -> Result<Self, Failure> {
        let made = tokio::time::timeout(2 * CONNECT, Self::shake_hands(component, address, stream)).await;
        made.map_err(|_| Failure::Connection(format!("{} does not answer", address.host)))?.map_err(|failure| {
            let (Failure::Connection(text) | Failure::Parameter(text) | Failure::Query(_, text) | Failure::Other(text)) =
                failure;
            Failure::Connection(text)
        })
    }

    async fn shake_hands(component: &Arc<Component>, address: &Arc<Address>, stream: Stream) -> Result<Self, Failure> {
        let peer = stream.peer().ok();
        let limit = longest_message(component.memory_limit) as usize;
        let mut packets = Packets::new(stream, limit);
        let greeting = packets.read().await?;
        if greeting.first() == Some(&ERROR) {
            return Err(server_error(&greeting, CapabilityFlags::empty()));
        }
        if !is_sound(&greeting) {
            return Err(out_of_turn());
        }
        let greeting: HandshakePacket<'_> = ParseBuf(&greeting).parse(())?;
        let mut capabilities = CAPABILITIES & greeting.capabilities();
        if !capabilities.contains(CapabilityFlags::CLIENT_PROTOCOL_41) {
            return Err(Failure::Connection("the server is older than MySQL 4.1".to_owned()));
        }
        if address.is_secured {
            if !greeting.capabilities().contains(CapabilityFlags::CLIENT_SSL) {
                return Err(Failure::Connection("the server does not offer TLS, which ssl-mode asks for".to_owned()));
            }
            capabilities |= CapabilityFlags::CLIENT_SSL;
            if address.database.is_some() {
                capabilities |= CapabilityFlags::CLIENT_CONNECT_WITH_DB;
            }
            // What follows says so again.
            let ask = SslRequest::new(capabilities, limit as u32, greeting.default_collation());
            packets.write(&serialized(|into| ask.serialize(into))).await?;
            let (stream, next) = packets.into_stream()?;
            packets = Packets::going_on(stream.secure(&address.host, &component.tls).await?, next, limit);
        }
        let plugin = match greeting.auth_plugin().map(AuthPlugin::into_owned) {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            // Where it is another, the server says what it wants.
            _ => AuthPlugin::MysqlNativePassword,
        };
        let nonce = greeting.nonce();
        let response = HandshakeResponse::new(
            plugin.gen_data(Some(&address.password), &nonce).map(|data| data.into_owned().to_vec()),
            greeting.server_version_parsed().unwrap_or((5, 7, 0)),
            Some(address.user.as_bytes()),
            address.database.as_deref().map(str::as_bytes),
            Some(plugin.clone()),
            capabilities,
            None,
            limit as u32,
        );
        packets.write(&serialized(|into| response.serialize(into))).await?;
        let (id, address, component) = (greeting.connection_id(), Arc::clone(address), Arc::downgrade(component));
        let mut session = Self { packets, capabilities, id, is_busy: false, peer, address, component };
        session.authenticate(plugin, nonce).await?;
        Ok(session)
    }

    /// Answers what the server asks until it says that the client is who it says.
    ///
    /// Source: "Authentication Methods" in MySQL's internals.
    async fn authenticate(&mut self, mut plugin: AuthPlugin<'static>, mut nonce: Vec<u8>) -> Result<(), Failure> {
        for _ in 0..ROUNDS {
            let packet = self.packets.read().await?;
            match packet.split_first() {
                Some((&OK, _)) => return Ok(()),
                Some((&ERROR, _)) => return Err(server_error(&packet, self.capabilities)),
                Some((&END, rest)) if !rest.is_empty() => {
                    let switch: AuthSwitchRequest<'_> = ParseBuf(&packet).parse(())?;
                    (plugin, nonce) = (switch.auth_plugin().into_owned(), switch.plugin_data().to_vec());
                    let is_offered = match plugin {
                        AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword => true,
                        AuthPlugin::MysqlClearPassword => self.packets.stream().is_secured(),
                        _ => false,
                    };
                    if !is_offered {
                        let name = String::from_utf8_lossy(plugin.as_bytes()).into_owned();
                        return Err(Failure::Connection(format!(
                            "the server asks for {name}, which is not offered here; give the user a password of \
                             caching_sha2_password or mysql_native_password"
                        )));
                    }
                    let data = plugin.gen_data(Some(&self.address.password), &nonce);
                    self.packets.write(&data.map(|data| data.into_owned().to_vec()).unwrap_or_default()).await?;
                }
                Some((&MORE_AUTHENTICATION, [FAST])) => {}
                Some((&MORE_AUTHENTICATION, [FULL])) if plugin == AuthPlugin::CachingSha2Password => {
                    self.send_password(&nonce).await?;
                }
                _ => return Err(Failure::Connection("the server answers out of turn".to_owned())),
            }
        }
        Err(Failure::Connection("the server asks again and again who this is".to_owned()))
    }

    /// Sends the password as `caching_sha2_password` has it: as it is by TLS, and else by the server's key.
    async fn send_password(&mut self, nonce: &[u8]) -> Result<(), Failure> {
        let mut password = self.address.password.clone().into_bytes();
        password.push(0);
        if self.packets.stream().is_secured() {
            return Ok(self.packets.write(&password).await?);
        }
        self.packets.write(&[ASK_FOR_KEY]).await?;
        let packet = self.packets.read().await?;
        let malformed = || Failure::Connection("the server sends a key that is none".to_owned());
        let key = match packet.split_first() {
            Some((&MORE_AUTHENTICATION, key)) if key.len() <= LONGEST_KEY => key.to_vec(),
            Some((&ERROR, _)) => return Err(server_error(&packet, self.capabilities)),
            _ => return Err(malformed()),
        };
        for (byte, mask) in password.iter_mut().zip(nonce.iter().cycle()) {
            *byte ^= mask;
        }
        // The library panics on what is no key.
        let sealed = tokio::task::spawn_blocking(move || mysql_common::crypto::encrypt(&password, &key)).await;
        Ok(self.packets.write(&sealed.map_err(|_| malformed())?).await?)
    }

    /// Runs a statement and reads all of its rows, for which `payer` pays. Of several answers the first is kept.
    pub(super) async fn query(
        &mut self,
        statement: &str,
        parameters: &[Value],
        payer: &Payer,
    ) -> Result<Answer, Failure> {
        if self.is_busy {
            let text = "the answer before was not read to its end: open another connection";
            return Err(Failure::Other(text.to_owned()));
        }
        self.is_busy = true;
        let prepared = match self.prepare(statement).await {
            Ok(prepared) => prepared,
            Err(Failure::Query(NOT_PREPARED, _)) if parameters.is_empty() => {
                return self.ask(&command(COM_QUERY, statement.as_bytes()), false, payer).await;
            }
            Err(failure) => return Err(failure),
        };
        let (id, wanted) = (prepared.statement_id(), usize::from(prepared.num_params()));
        let answer = if wanted == parameters.len() {
            let (request, is_long) = ComStmtExecuteRequestBuilder::new(id).build(parameters);
            if is_long {
                Err(Failure::Parameter("the parameters have more than 16 MiB together".to_owned()))
            } else {
                self.ask(&serialized(|into| request.serialize(into)), true, payer).await
            }
        } else {
            let given = parameters.len();
            Err(Failure::Parameter(format!("the statement takes {wanted} parameters, and {given} were given")))
        };
        if matches!(answer, Ok(_) | Err(Failure::Query(..) | Failure::Parameter(_))) {
            // Nothing is answered to this. Where it cannot be sent, what was done is done all the same.
            self.is_busy = true;
            self.packets.begin();
            self.is_busy = self.packets.write(&command(COM_STMT_CLOSE, &id.to_le_bytes())).await.is_err();
        }
        answer
    }

    async fn prepare(&mut self, statement: &str) -> Result<StmtPacket, Failure> {
        self.packets.begin();
        self.packets.write(&command(COM_STMT_PREPARE, statement.as_bytes())).await?;
        let packet = self.packets.read().await?;
        if packet.first() == Some(&ERROR) {
            self.is_busy = false;
            return Err(server_error(&packet, self.capabilities));
        }
        let prepared: StmtPacket = ParseBuf(&packet).parse(())?;
        // Descriptions of parameters and of columns, each with an end.
        for count in [prepared.num_params(), prepared.num_columns()] {
            if count > 0 {
                for _ in 0..=count {
                    self.packets.read().await?;
                }
            }
        }
        Ok(prepared)
    }

    /// Sends a command and reads its answers.
    async fn ask(&mut self, command: &[u8], is_binary: bool, payer: &Payer) -> Result<Answer, Failure> {
        self.packets.begin();
        self.packets.write(command).await?;
        let mut kept = None;
        loop {
            let (answer, has_more) = self.read_answer(is_binary, payer, kept.is_none()).await?;
            kept.get_or_insert(answer);
            if !has_more {
                self.is_busy = false;
                return Ok(kept.unwrap_or_default());
            }
        }
    }

    /// One answer, and whether another follows.
    async fn read_answer(&mut self, is_binary: bool, payer: &Payer, is_kept: bool) -> Result<(Answer, bool), Failure> {
        let mut answer = Answer::default();
        let packet = self.packets.read().await?;
        let count = match packet.first() {
            Some(&OK) => return Ok((answer, has_more(ok_status(&packet)?))),
            Some(&ERROR) => return Err(self.ended(&packet)),
            Some(&WANTS_FILE) => return Err(Failure::Other("LOAD DATA LOCAL is not offered".to_owned())),
            _ => ParseBuf(&packet).checked_eat_lenenc_int().ok_or_else(out_of_turn)?,
        };
        let count = u16::try_from(count).map_err(|_| out_of_turn())?;
        let mut columns = Vec::new();
        for _ in 0..count {
            let packet = self.packets.read().await?;
            answer.charges.push(payer.pay(packet.len() + size_of::<Column>()).map_err(Failure::Other)?);
            let column: Column = ParseBuf(&packet).parse(())?;
            if !is_read(column.column_type()) {
                return Err(out_of_turn());
            }
            columns.push(column);
        }
        answer.columns = columns.into();
        // What ends the columns.
        self.packets.read().await?;
        loop {
            let packet = self.packets.read().await?;
            match packet.first() {
                Some(&ERROR) => return Err(self.ended(&packet)),
                Some(&END) if packet.len() < 9 => {
                    let status = packet.get(3..5).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
                    return Ok((answer, has_more(StatusFlags::from_bits_truncate(status))));
                }
                _ => {}
            }
            if !is_kept {
                continue;
            }
            let size = packet.len() + usize::from(count) * size_of::<Value>() + size_of::<Option<Charge>>();
            answer.charges.push(payer.pay(size).map_err(Failure::Other)?);
            let columns = Arc::clone(&answer.columns);
            let row: Row = if is_binary {
                ParseBuf(&packet).parse::<RowDeserializer<ServerSide, Binary>>(columns)?.into()
            } else {
                ParseBuf(&packet).parse::<RowDeserializer<ServerSide, Text>>(columns)?.into()
            };
            answer.rows.push(row.unwrap());
        }
    }

    /// The server ended the statement by itself.
    fn ended(&mut self, packet: &[u8]) -> Failure {
        self.is_busy = false;
        server_error(packet, self.capabilities)
    }
}

impl component::Session for Session {
    fn is_at_rest(&self) -> bool {
        !self.is_busy && self.packets.is_quiet()
    }

    async fn reset(&mut self) -> bool {
        // The database that a guest chose stays, and only another takes its place.
        let Some(database) = self.address.database.clone() else { return false };
        for text in [
            command(COM_RESET_CONNECTION, b""),
            command(COM_INIT_DB, database.as_bytes()),
            // Some servers go back to a character set of their own.
            command(COM_QUERY, b"SET NAMES utf8mb4"),
        ] {
            self.packets.begin();
            let is_sent = self.packets.write(&text).await.is_ok();
            if !is_sent || !self.packets.read().await.is_ok_and(|packet| packet.first() == Some(&OK)) {
                return false;
            }
        }
        true
    }

    /// By a session of its own: a server does not look whether its client is still there.
    async fn abandon(self) {
        // What has ended has no statement, and its number may be another's.
        if !self.is_busy || self.packets.stream().is_closed() {
            return;
        }
        let (Some(component), Some(peer)) = (self.component.upgrade(), self.peer) else { return };
        let (id, address) = (self.id, Arc::clone(&self.address));
        let Ok(stream) = Stream::again(&component, peer, &address.host).await else { return };
        // Until the other has begun, the number is this one's.
        if let Ok(mut other) = Self::begin(&component, &address, stream).await
            && !self.packets.stream().is_closed()
        {
            other.packets.begin();
            let _ = other.packets.write(&command(COM_QUERY, format!("KILL {id}").as_bytes())).await;
            let _ = other.packets.read().await;
        }
    }
}

/// Whether the library reads the greeting: it takes a length of salt above 127 for a negative one.
fn is_sound(greeting: &[u8]) -> bool {
    // Behind the version: the number of the session, salt, capabilities, character set, status.
    let version = greeting.iter().skip(1).position(|byte| *byte == 0);
    version.and_then(|end| greeting.get(1 + end + 1 + 20)).is_none_or(|length| *length < 0x80)
}

/// Whether the library reads values of this type.
fn is_read(ty: ColumnType) -> bool {
    !matches!(
        ty,
        ColumnType::MYSQL_TYPE_NEWDATE
            | ColumnType::MYSQL_TYPE_TIMESTAMP2
            | ColumnType::MYSQL_TYPE_DATETIME2
            | ColumnType::MYSQL_TYPE_TIME2
            | ColumnType::MYSQL_TYPE_TYPED_ARRAY
            | ColumnType::MYSQL_TYPE_UNKNOWN
    )
}

fn out_of_turn() -> Failure {
    Failure::Other("the server answers out of turn".to_owned())
}

fn command(command: u8, text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + text.len());
    bytes.push(command);
    bytes.extend_from_slice(text);
    bytes
}

fn serialized(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

fn has_more(status: StatusFlags) -> bool {
    status.contains(StatusFlags::SERVER_MORE_RESULTS_EXISTS)
}

/// What stands in a packet that begins with `OK` behind two counts.
fn ok_status(packet: &[u8]) -> Result<StatusFlags, Failure> {
    let mut rest = ParseBuf(packet.get(1..).unwrap_or_default());
    let counts = (rest.checked_eat_lenenc_int(), rest.checked_eat_lenenc_int());
    let status = rest.checked_eat_u16_le();
    match (counts, status) {
        ((Some(_), Some(_)), Some(status)) => Ok(StatusFlags::from_bits_truncate(status)),
        _ => Err(out_of_turn()),
    }
}

/// What the server says in a packet that begins with `ERROR`.
fn server_error(packet: &[u8], capabilities: CapabilityFlags) -> Failure {
    // Before it is known who speaks, errors have no state.
    match ParseBuf(packet).parse::<ErrPacket<'_>>(capabilities) {
        Ok(ErrPacket::Error(error)) => {
            let state = error.sql_state_ref().map(|state| state.as_str().into_owned()).unwrap_or_default();
            Failure::Query(
                error.error_code(),
                format!("ERROR {} ({state}): {}", error.error_code(), error.message_str()),
            )
        }
        _ => out_of_turn(),
    }
}
