//! Showing the registry who asks.
//!
//! Source: distribution, "Token Authentication Specification".

use reqwest::header;

use super::failure::{Failure, beginning};
use super::{DOCUMENT_TIME, Operation, Remote, TOKEN_TIME, Tries};
use crate::auth::{Challenge, RegistryAuth, TokenWish, token};
use crate::error::ImageError;

impl Remote {
    /// Finds out what the registry wants to see of whoever asks, and gets a token if it hands out any. It is kept for what
    /// follows.
    ///
    /// # Errors
    /// What the registry, or where it sends to, says; after all retries.
    pub(crate) async fn log_in(&self) -> Result<(), ImageError> {
        let mut tries = Tries::default();
        loop {
            match self.log_in_once().await {
                Ok(()) => return Ok(()),
                Err(failure) => tries.wait(failure, self.last).await?,
            }
        }
    }

    /// Whether what is shown was handed out, and may run out.
    pub(super) fn shows_a_token(&self) -> bool {
        let handed_out = matches!(&*self.shown.lock(), Some(RegistryAuth::Bearer(_)));
        handed_out && !matches!(self.auth, RegistryAuth::Bearer(_))
    }

    /// The same as [`Self::log_in`] once, unless that was done.
    pub(super) async fn logged_in(&self) -> Result<(), Failure> {
        let known = self.shown.lock().is_some();
        if known { Ok(()) } else { self.log_in_once().await }
    }

    /// Layers are taken from these repositories too: a token is asked for that lets them be read.
    pub(crate) fn takes_from(&self, repositories: Vec<String>) {
        *self.also.lock() = repositories;
    }

    async fn log_in_once(&self) -> Result<(), Failure> {
        let shown = match &self.auth {
            RegistryAuth::Bearer(_) => self.auth.clone(),
            // Whoever wrote down what to show wants that shown.
            _ if self.header.contains_key(header::AUTHORIZATION) => RegistryAuth::Anonymous,
            auth => {
                let first = self.client.get(self.base.clone()).headers(self.header.clone());
                let first = first.timeout(DOCUMENT_TIME).send().await.map_err(|error| self.unreachable(&error))?;
                match Challenge::of(&first) {
                    // It tells only that it is too busy to say.
                    None if first.status() == 429 || first.status().is_server_error() => {
                        return self.succeeded("authenticate", first).await.map(|_| ());
                    }
                    None => RegistryAuth::Anonymous,
                    Some(Challenge::Basic) => auth.clone(),
                    Some(Challenge::Bearer { realm, service }) => self.token(&realm, &service).await?,
                }
            }
        };
        *self.shown.lock() = Some(shown);
        Ok(())
    }

    async fn token(&self, realm: &str, service: &str) -> Result<RegistryAuth, Failure> {
        let also = self.also.lock().clone();
        let answer = self.token_for(realm, service, &also).await;
        match answer {
            // One that may not read the others may still write its own.
            Err(failure) if failure.unauthorized && !also.is_empty() => self.token_for(realm, service, &[]).await,
            answer => answer,
        }
    }

    async fn token_for(&self, realm: &str, service: &str, also: &[String]) -> Result<RegistryAuth, Failure> {
        let actions = match self.operation {
            Operation::Pull => "pull",
            Operation::Push => "pull,push",
        };
        let mut scopes = vec![format!("repository:{}:{actions}", self.repository)];
        scopes.extend(also.iter().map(|repository| format!("repository:{repository}:pull")));
        let bad = |reason: String| {
            let (registry, attempt) = (self.host.clone(), "authenticate".to_owned());
            Failure::last(ImageError::Registry { registry, attempt, reason })
        };
        let plain = self.base.scheme() == "http";
        let wish = TokenWish { realm, service, scopes: &scopes, to_keep: false };
        let request = wish.request(&self.client, &self.auth, plain).map_err(bad)?;
        let answer = request.timeout(TOKEN_TIME).send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_client_error() && answer.status() != 429 {
            let body = beginning(answer).await;
            return Err(self.refused("authenticate", 401, &body));
        }
        let answer = self.succeeded("authenticate", answer).await?;
        let what = format!("the answer of {} to a request for a token", self.host);
        // Who drips drips again.
        let body = self.whole("authenticate", answer, &what).await;
        let body = body.map_err(|failure| Failure { retry: false, ..failure })?;
        token(&body).map(|handed| RegistryAuth::Bearer(handed.token)).map_err(bad)
    }
}
