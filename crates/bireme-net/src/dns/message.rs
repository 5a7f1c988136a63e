//! Messages of the DNS: which are taken at all, and what answers are made of.

use std::io;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Seconds. Short, because workloads move; long enough for a burst of requests.
pub(super) const TTL: u32 = 5;

/// An answer to `asked`, cut short where it is longer than `limit` and than what the asker takes. `None` where it cannot
/// be written.
pub(super) fn reply(asked: &Message, code: ResponseCode, records: Vec<Record>, limit: Option<u16>) -> Option<Vec<u8>> {
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.metadata.recursion_desired = asked.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = code == ResponseCode::NoError;
    answer.metadata.response_code = code;
    answer.add_queries(asked.queries.iter().cloned()).add_answers(records);
    if asked.edns.is_some() {
        answer.set_edns(Edns::new());
    }
    match answer.to_vec() {
        Ok(bytes) if limit.is_some_and(|limit| bytes.len() > usize::from(limit.max(asked.max_payload()))) => {
            answer.truncate().to_vec().ok()
        }
        bytes => bytes.ok(),
    }
}

/// `None` where `to` is no answer to a question of this `kind`.
pub(super) fn record(name: &Name, kind: RecordType, to: IpAddr) -> Option<Record> {
    let data = match (kind, to) {
        (RecordType::A, IpAddr::V4(to)) => RData::A(A(to)),
        (RecordType::AAAA, IpAddr::V6(to)) => RData::AAAA(AAAA(to)),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
pub(super) fn reverse(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Whether a message is no larger than any question: ten thousand names that are pointers to one long name take 50 ms to read.
///
/// Source: RFC 1035, 4.1.1.
pub(super) fn is_small(question: &[u8]) -> bool {
    const LARGEST: usize = 4096;
    const MOST_RECORDS: u32 = 8;
    let Some((head, _)) = question.split_first_chunk::<12>() else { return false };
    let counts = head[4..].as_chunks::<2>().0.iter().map(|count| u32::from(u16::from_be_bytes(*count)));
    question.len() <= LARGEST && counts.sum::<u32>() <= MOST_RECORDS
}

/// An answer that has the asker ask again over TCP.
pub(super) fn cut_short(question: &[u8]) -> io::Result<Vec<u8>> {
    let asked = Message::from_vec(question).map_err(|_| io::ErrorKind::InvalidData)?;
    reply(&asked, ResponseCode::NoError, vec![], Some(0)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Over TCP, each message comes behind its length. Source: RFC 1035, 4.2.2.
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
