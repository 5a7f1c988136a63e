//! Showing the registry who asks.
//!
//! Source: distribution, "Token Authentication Specification".

use super::failure::{Failure, beginning};
use super::{DOCUMENT_TIME, Operation, Remote};
use crate::auth::{Challenge, RegistryAuth, ask_for_token, token};
use crate::error::ImageError;

impl Remote {
    /// Finds out what the registry wants to see of whoever asks, and gets a token if it hands out any. It is kept for what
    /// follows.
    pub(crate) async fn log_in(&self) -> Result<(), Failure> {
        let shown = match &self.auth {
            RegistryAuth::Bearer(_) => self.auth.clone(),
            auth => {
                let first = self.client.get(self.base.clone()).timeout(DOCUMENT_TIME).send().await;
                let first = first.map_err(|error| self.unreachable(&error))?;
                match Challenge::of(&first) {
                    None => RegistryAuth::Anonymous,
                    Some(Challenge::Basic) => auth.clone(),
                    Some(Challenge::Bearer { realm, service }) => self.token(&realm, &service).await?,
                }
            }
        };
        *self.shown.lock() = shown;
        Ok(())
    }

    async fn token(&self, realm: &str, service: &str) -> Result<RegistryAuth, Failure> {
        let actions = match self.operation {
            Operation::Pull => "pull",
            Operation::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository);
        let bad = |reason: String| {
            let (registry, attempt) = (self.host.clone(), "authenticate".to_owned());
            Failure::last(ImageError::Registry { registry, attempt, reason })
        };
        let plain = self.base.scheme() == "http";
        let request = ask_for_token(&self.client, realm, service, Some(&scope), &self.auth, plain).map_err(bad)?;
        let answer = request.timeout(DOCUMENT_TIME).send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_client_error() {
            let body = beginning(answer).await;
            return Err(self.refused("authenticate", 401, &body));
        }
        let answer = self.succeeded("authenticate", answer).await?;
        let what = format!("the answer of {} to a request for a token", self.host);
        let body = self.whole("authenticate", answer, &what).await?;
        token(&body).map(RegistryAuth::Bearer).map_err(bad)
    }
}
