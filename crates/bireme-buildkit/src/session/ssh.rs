//! The client's SSH agent or key (`--ssh`), forwarded (`session/sshforward`).

use bollard_buildkit_proto::moby::sshforward::v1::ssh_client::SshClient;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::handle::incoming;
use super::{Session, SessionError};

/// The largest message taken, and the bytes that wait on our side.
const MAX_MESSAGE: usize = 1 << 20;
const BUFFER: usize = 32 << 10;

/// A connection to the client's agent: what is written goes to the agent, what is read comes from it. Dropping it ends it.
pub type SshStream = DuplexStream;

impl Session {
    /// Whether the client forwards an agent by this name (`default` for none).
    ///
    /// # Errors
    /// When it does not; the text is the client's.
    pub async fn check_ssh(&self, id: &str) -> Result<(), SessionError> {
        let (transport, origin) = self.offered("/moby.sshforward.v1.SSH/CheckAgent", "an SSH agent")?;
        let mut client = SshClient::with_origin(transport, origin).max_decoding_message_size(MAX_MESSAGE);
        let call = client.check_agent(CheckAgentRequest { id: id.to_owned() });
        self.call(&format!("use the client's SSH agent {id:?}"), call).await.map(|_| ())
    }

    /// Opens a connection to the client's agent; one for each that a process in the build opens.
    ///
    /// # Errors
    /// When the client forwards none by this name, or is gone.
    pub async fn ssh(&self, id: &str) -> Result<SshStream, SessionError> {
        let (transport, origin) = self.offered("/moby.sshforward.v1.SSH/ForwardAgent", "an SSH agent")?;
        let mut client = SshClient::with_origin(transport, origin).max_decoding_message_size(MAX_MESSAGE);
        let (to_client, outgoing) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let name = MetadataValue::try_from(id)
            .map_err(|_| SessionError::Refused(format!("{id:?} is no name of an SSH agent")))?;
        request.metadata_mut().insert("buildkit.ssh.id", name);
        let mut incoming = incoming(async move { client.forward_agent(request).await });
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let closed = self.closed().clone();
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(theirs);
            let up = async {
                loop {
                    let mut data = vec![0; BUFFER];
                    let count = read.read(&mut data).await.unwrap_or(0);
                    data.truncate(count);
                    if count == 0 || to_client.send(BytesMessage { data }).await.is_err() {
                        break;
                    }
                }
                drop(to_client);
            };
            let down = async {
                while let Some(Ok(message)) = incoming.next().await {
                    if write.write_all(&message.data).await.is_err() {
                        break;
                    }
                }
                let _ = write.shutdown().await;
            };
            tokio::select! {
                _ = async { tokio::join!(up, down) } => {}
                () = closed.cancelled() => {}
            }
        });
        Ok(ours)
    }
}
