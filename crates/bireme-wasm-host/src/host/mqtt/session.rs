//! A session with an MQTT broker (version 3.1.1), which publishes and subscribes to nothing.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Login, Packet, PubRel, Publish};
use rumqttc::mqttbytes::{self, QoS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;

use crate::component::{self, Component};
use crate::host::net::Target;
use crate::host::server::{CONNECT, LONGEST_ADDRESS, Stream, permit};

/// Most bytes of a packet of the broker: all that it is asked for are acknowledgements.
const LONGEST: usize = 4 << 10;
/// Most bytes of a text and of a message. Source: MQTT 3.1.1, sections 1.5.3 and 2.2.3.
const LONGEST_TEXT: usize = u16::MAX as usize;
const LONGEST_MESSAGE: usize = 256 << 20;
/// Most bytes of a user and of a password: a handle keeps them.
const LONGEST_LOGIN: usize = 4 << 10;
/// Longest wait for an acknowledgement.
const ACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Failure {
    Address,
    Connection(String),
    Other(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Connection(text)
    }
}

/// Whom to connect to, and as whom.
pub(super) struct Account {
    address: String,
    host: String,
    port: u16,
    is_secured: bool,
    /// What the name begins with by which the broker knows this client.
    name: String,
    user: String,
    password: String,
    /// Seconds after which the broker may take a client that says nothing for gone; 0 is never.
    keep_alive: u16,
}

impl Account {
    /// # Errors
    /// `Address` for what is no address of a broker.
    pub(super) fn parse(address: &str, user: String, password: String, keep_alive: u64) -> Result<Self, Failure> {
        if address.len() > LONGEST_ADDRESS {
            return Err(Failure::Address);
        }
        let url = Url::parse(address).map_err(|_| Failure::Address)?;
        let (is_secured, usual) = match url.scheme() {
            "mqtt" | "tcp" => (false, 1883),
            "mqtts" | "ssl" => (true, 8883),
            _ => return Err(Failure::Address),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Failure::Address)?;
        let name = url.query_pairs().find(|(name, _)| name == "client_id");
        let name = name.map_or_else(|| "bireme".to_owned(), |(_, name)| name.into_owned());
        if user.len() > LONGEST_LOGIN || password.len() > LONGEST_LOGIN {
            let text = format!("the user or the password has more than {} KiB", LONGEST_LOGIN >> 10);
            return Err(Failure::Other(text));
        }
        let keep_alive = keep_alive.try_into().unwrap_or(u16::MAX);
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), url.port().unwrap_or(usual));
        Ok(Self { address: address.to_owned(), host, port, is_secured, name, user, password, keep_alive })
    }

    /// All that tells sessions apart.
    pub(super) fn key(&self) -> String {
        let Self { host, port, is_secured, name, user, password, keep_alive, .. } = self;
        format!("{host}\n{port}\n{is_secured}\n{keep_alive}\n{}\n{name}{}\n{user}{password}", name.len(), user.len())
    }
}

pub(super) struct Session {
    stream: Stream,
    read: BytesMut,
    /// Something was sent that is not acknowledged yet.
    is_busy: bool,
    /// Of the next message.
    number: u16,
}

impl Session {
    pub(super) async fn connect(component: &Arc<Component>, account: &Account) -> Result<Self, Failure> {
        let scheme = if account.is_secured { "mqtts" } else { "mqtt" };
        let host = account.host.as_str();
        let target = Target { scheme, host, port: account.port };
        // In the words of Spin; the log says what to add.
        permit(component, target)
            .map_err(|_| Failure::Connection(format!("address {} is not permitted", account.address)))?;
        let mut stream = Stream::connect(component, target).await?;
        if account.is_secured {
            stream = stream.secure(host, &component.tls).await?;
        }
        let mut session = Self { stream, read: BytesMut::new(), is_busy: false, number: 0 };
        let mut connect = Connect::new(client_id(&account.name));
        connect.keep_alive = account.keep_alive;
        if !account.user.is_empty() || !account.password.is_empty() {
            connect.login = Some(Login::new(account.user.clone(), account.password.clone()));
        }
        let answered = async {
            session.write(&Packet::Connect(connect)).await?;
            session.read().await
        };
        let answer = tokio::time::timeout(CONNECT, answered).await;
        match answer.map_err(|_| Failure::Connection(format!("{host} does not answer")))? {
            Ok(Packet::ConnAck(said)) => match said.code {
                ConnectReturnCode::Success => Ok(session),
                refused => Err(Failure::Connection(format!("{host} refuses the connection: {refused:?}"))),
            },
            Ok(_) => Err(Failure::Connection(format!("{host} answers out of turn"))),
            Err(text) => Err(Failure::Connection(format!("{host}: {text}"))),
        }
    }

    /// Publishes a message and waits until it arrived as surely as `qos` asks.
    pub(super) async fn publish(&mut self, topic: &str, payload: Vec<u8>, qos: QoS) -> Result<(), Failure> {
        if topic.is_empty() || topic.len() > LONGEST_TEXT || topic.contains(['+', '#', '\0']) {
            return Err(Failure::Other(format!("messages cannot be published to the topic {topic:?}")));
        }
        self.is_busy = true;
        let published = tokio::time::timeout(ACKNOWLEDGED, self.publish_and_wait(topic, payload, qos)).await;
        let published = published.unwrap_or_else(|_| Err("the broker does not acknowledge the message".to_owned()));
        self.is_busy = published.is_err();
        published.map_err(Failure::Other)
    }

    async fn publish_and_wait(&mut self, topic: &str, payload: Vec<u8>, qos: QoS) -> Result<(), String> {
        let mut message = Publish::new(topic, qos, payload);
        if qos != QoS::AtMostOnce {
            // 0 is no number.
            self.number = self.number.checked_add(1).unwrap_or(1);
            message.pkid = self.number;
        }
        let number = message.pkid;
        self.write(&Packet::Publish(message)).await?;
        let out_of_turn = || Err("the broker answers out of turn".to_owned());
        match qos {
            QoS::AtMostOnce => Ok(()),
            QoS::AtLeastOnce => match self.read().await? {
                Packet::PubAck(said) if said.pkid == number => Ok(()),
                _ => out_of_turn(),
            },
            QoS::ExactlyOnce => match self.read().await? {
                Packet::PubRec(said) if said.pkid == number => {
                    self.write(&Packet::PubRel(PubRel::new(number))).await?;
                    match self.read().await? {
                        Packet::PubComp(said) if said.pkid == number => Ok(()),
                        _ => out_of_turn(),
                    }
                }
                _ => out_of_turn(),
            },
        }
    }

    async fn write(&mut self, packet: &Packet) -> Result<(), String> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, LONGEST_MESSAGE).map_err(|error| error.to_string())?;
        self.stream.write_all(&bytes).await.map_err(|error| error.to_string())?;
        self.stream.flush().await.map_err(|error| error.to_string())
    }

    async fn read(&mut self) -> Result<Packet, String> {
        loop {
            match Packet::read(&mut self.read, LONGEST) {
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                read => return read.map_err(|error| error.to_string()),
            }
            if self.stream.read_buf(&mut self.read).await.map_err(|error| error.to_string())? == 0 {
                return Err("the broker closed the connection".to_owned());
            }
        }
    }
}

/// One that no other client has: a broker disconnects whoever has it when another comes with it, and instances run beside
/// each other.
fn client_id(name: &str) -> String {
    format!("{name}-{:016x}", RandomState::new().build_hasher().finish())
}

impl component::Session for Session {
    fn is_at_rest(&self) -> bool {
        !self.is_busy && self.read.is_empty() && self.stream.is_quiet()
    }

    /// Nothing of one who published is left with a session.
    async fn reset(&mut self) -> bool {
        true
    }

    async fn abandon(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_where_and_how() {
        let parse = |address: &str| Account::parse(address, "a".to_owned(), "b".to_owned(), 1 << 40);
        let plain = parse("mqtt://broker").unwrap();
        assert_eq!(
            (plain.host.as_str(), plain.port, plain.is_secured, plain.keep_alive),
            ("broker", 1883, false, u16::MAX)
        );
        let secured = parse("mqtts://[::1]:9?client_id=me").unwrap();
        assert_eq!((plain.name.as_str(), secured.name.as_str()), ("bireme", "me"));
        assert_eq!((secured.host.as_str(), secured.port, secured.is_secured), ("::1", 9, true));
        assert_ne!(plain.key(), secured.key());
        for address in ["", "broker:1883", "http://broker", "mqtt://"] {
            assert!(matches!(parse(address), Err(Failure::Address)), "{address}");
        }
        assert_ne!(client_id("a"), client_id("a"));
    }
}
