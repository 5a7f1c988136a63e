use std::io::Read as _;

use bireme_core::WorkloadId;

use super::super::MAX_ANSWER;
use super::*;

#[tokio::test]
async fn messages_and_descriptors_cross_and_the_rest_stays() {
    let (a, b) = UnixStream::pair().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let long = "x".repeat(1 << 20);
    let sender = tokio::spawn(async move {
        send(&a, &long, &[writer.as_fd()]).await.unwrap();
        drop(writer);
        send(&a, &"second", &[]).await.unwrap();
    });
    let (text, fds) = receive::<String>(&b).await.unwrap().unwrap();
    assert_eq!((text.len(), fds.len()), (1 << 20, 1));
    std::io::Write::write_all(&mut std::fs::File::from(fds.into_iter().next().unwrap()), b"hello").unwrap();
    let (text, fds) = receive::<String>(&b).await.unwrap().unwrap();
    assert_eq!((text.as_str(), fds.len()), ("second", 0));
    sender.await.unwrap();
    let mut got = String::new();
    { reader }.read_to_string(&mut got).unwrap();
    assert_eq!(got, "hello");
    assert!(receive::<String>(&b).await.unwrap().is_none());
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// As [`send`] does it, a byte at a time, and with each as many descriptors as the kernel takes.
async fn send_with_descriptors_everywhere(stream: &UnixStream, body: &[u8]) -> io::Result<()> {
    let (reader, _writer) = std::io::pipe().unwrap();
    let fds = vec![reader.as_fd(); MAX_FDS];
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    for byte in length.iter().chain(body) {
        let attached = || {
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let bytes = [IoSlice::new(std::slice::from_ref(byte))];
            Ok(rustix::net::sendmsg(stream.as_fd(), &bytes, &mut control, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, attached).await?;
    }
    Ok(())
}

#[tokio::test]
async fn descriptors_of_an_answer_never_become_the_daemons() {
    let (a, b) = UnixStream::pair().unwrap();
    let before = open_files();
    let sent = async { send_with_descriptors_everywhere(&a, br#"{"Ok":[]}"#).await.unwrap() };
    let received = async {
        let answer = receive_answer::<Vec<u8>>(&b, &Request::Ping).await.unwrap().unwrap();
        (answer.unwrap(), open_files())
    };
    let ((), (answer, during)) = tokio::join!(sent, received);
    assert!(answer.is_empty());
    // The other side's pipe, and nothing of what it sent.
    assert!(during <= before + 2, "{before} were open and {during} are");
}

#[tokio::test]
async fn a_host_takes_no_more_descriptors_than_one_message_has() {
    let (a, b) = UnixStream::pair().unwrap();
    let sent = send_with_descriptors_everywhere(&a, br#"{"op":"ping"}"#);
    let received = async {
        let error = receive::<Request>(&b).await.err().unwrap();
        drop(b);
        error
    };
    let (_, error) = tokio::join!(sent, received);
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn answers_are_bounded_by_what_was_asked() {
    let id = WorkloadId::from_bytes([7; 32]);
    let long = format!("{{\"Ok\":{{\"x\":\"{}\"}}}}", "x".repeat(MAX_ANSWER));
    for (request, fits) in
        [(Request::Brief, false), (Request::Wait { id: id.clone() }, false), (Request::Instances { id }, true)]
    {
        let (a, b) = UnixStream::pair().unwrap();
        let text = long.clone();
        let sender = tokio::spawn(async move {
            let raw = serde_json::value::RawValue::from_string(text).unwrap();
            let _ = send(&a, &raw, &[]).await;
        });
        let answer = receive_answer::<serde::de::IgnoredAny>(&b, &request).await;
        drop(b);
        assert_eq!(answer.is_ok(), fits, "{request:?}");
        sender.await.unwrap();
    }
}
