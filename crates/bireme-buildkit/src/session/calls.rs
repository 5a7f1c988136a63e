//! Secrets, credentials and tokens of registries, and archives from standard input.

use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, FetchTokenRequest};
use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_client::UploadClient;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::{Session, SessionError};

/// The largest secret that is taken, as BuildKit's clients have it.
const MAX_SECRET: usize = 500 << 10;
/// The largest message of other answers.
const MAX_ANSWER: usize = 1 << 20;
/// The largest message of an upload: clients send 1 MiB and less.
const MAX_UPLOAD_MESSAGE: usize = 16 << 20;

/// What a client has for a registry. `Debug` shows the name alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name; empty for an identity token.
    pub username: String,
    /// The password, or the identity token.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a token is asked for with, from a registry's challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Who asks; the client shows it to the registry.
    pub client_id: String,
    /// The registry.
    pub host: String,
    /// Where tokens are given out.
    pub realm: String,
    /// For which service.
    pub service: String,
    /// `repository:library/busybox:pull`.
    pub scopes: Vec<String>,
}

/// A bearer token that the client fetched. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token.
    pub token: String,
    /// How long it is good for from when it was given out; zero if that was not said.
    pub expires_in: Duration,
    /// When it was given out, if that was said.
    pub issued: Option<SystemTime>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl Session {
    /// A secret of the client (`--secret id=ID`); `None` if it has none by this name.
    ///
    /// # Errors
    /// When the client offers no secrets, fails to read it, or is gone.
    pub async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SessionError> {
        let (transport, origin) = self.offered("/moby.buildkit.secrets.v1.Secrets/GetSecret", "secrets")?;
        let mut client = SecretsClient::with_origin(transport, origin).max_decoding_message_size(MAX_SECRET + 1024);
        let request = GetSecretRequest { id: id.to_owned(), annotations: Default::default() };
        match self.until_closed(client.get_secret(request)).await? {
            Ok(answer) => Ok(Some(answer.into_inner().data)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failed(&format!("get the secret {id:?} from the client"), &status)),
        }
    }

    /// What the client has for a registry (`docker login`); `None` if it has nothing.
    ///
    /// # Errors
    /// When the client offers no credentials, fails to find them, or is gone.
    pub async fn credentials(&self, host: &str) -> Result<Option<Credentials>, SessionError> {
        let (transport, origin) = self.offered("/moby.filesync.v1.Auth/Credentials", "credentials of registries")?;
        let mut client = AuthClient::with_origin(transport, origin).max_decoding_message_size(MAX_ANSWER);
        let call = client.credentials(CredentialsRequest { host: host.to_owned() });
        let answer = self.call(&format!("get the credentials for {host} from the client"), call).await?;
        let found = !answer.username.is_empty() || !answer.secret.is_empty();
        Ok(found.then_some(Credentials { username: answer.username, secret: answer.secret }))
    }

    /// A bearer token that the client fetches for us, so that its credentials stay with it; `None` if it does not do that for
    /// this registry.
    ///
    /// # Errors
    /// When the client fails to get one, or is gone.
    pub async fn fetch_token(&self, wanted: TokenRequest) -> Result<Option<Token>, SessionError> {
        let Ok((transport, origin)) = self.offered("/moby.filesync.v1.Auth/FetchToken", "tokens of registries") else {
            return Ok(None);
        };
        let mut client = AuthClient::with_origin(transport, origin).max_decoding_message_size(MAX_ANSWER);
        let doing = format!("get a token for {} through the client", wanted.host);
        let request = FetchTokenRequest {
            client_id: wanted.client_id,
            host: wanted.host,
            realm: wanted.realm,
            service: wanted.service,
            scopes: wanted.scopes,
        };
        let answer = match self.until_closed(client.fetch_token(request)).await? {
            Ok(answer) => answer.into_inner(),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unimplemented) => return Ok(None),
            Err(status) => return Err(self.failed(&doing, &status)),
        };
        let seconds = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0).map(Duration::from_secs);
        Ok(Some(Token {
            token: answer.token,
            expires_in: seconds(answer.expires_in).unwrap_or_default(),
            issued: seconds(answer.issued_at).and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)),
        }))
    }

    /// What the client pipes into the build (`docker build -`): the archive of the context `http://buildkit-session/ID`.
    ///
    /// Bounding its size is up to whoever reads it.
    ///
    /// # Errors
    /// When the client offers no such upload, or is gone. What goes wrong later is an error of the reader.
    pub async fn upload(&self, id: &str) -> Result<impl AsyncRead + Send + Unpin + use<>, SessionError> {
        let (transport, origin) = self.offered("/moby.upload.v1.Upload/Pull", "a context from standard input")?;
        let mut client = UploadClient::with_origin(transport, origin).max_decoding_message_size(MAX_UPLOAD_MESSAGE);
        // The client reads nothing from us, but would end with our half of the call.
        let (hold, ours) = tokio::sync::mpsc::channel::<BytesMessage>(1);
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(ours));
        let path = MetadataValue::try_from(format!("/{}", id.trim_start_matches('/')))
            .map_err(|_| SessionError::Refused(format!("{id:?} is no name of an upload")))?;
        request.metadata_mut().insert("urlpath", path);
        let host = MetadataValue::from_static("buildkit-session");
        request.metadata_mut().insert("urlhost", host);
        let answer = self.call("read what the client pipes into the build", client.pull(request)).await?;
        let chunks = answer.map(move |message| {
            let _ = &hold;
            message.map(|message| Bytes::from(message.data)).map_err(std::io::Error::other)
        });
        Ok(StreamReader::new(chunks))
    }
}
