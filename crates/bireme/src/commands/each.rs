//! Doing one thing to several names, as Docker does: say each name that worked, fail with all that did not.

use std::future::Future;

use bireme_api::ClientError;
use futures::StreamExt;

use crate::context::Context;
use crate::error::{Failure, Outcome};

/// Runs `work` on every name at once and prints the names in order.
pub(super) async fn each<F>(context: &Context, names: &[String], work: impl Fn(String) -> F) -> Outcome
where
    F: Future<Output = Result<(), ClientError>>,
{
    let works = names.iter().map(|name| {
        let done = work(name.clone());
        async move { (name, done.await) }
    });
    let mut answers = futures::stream::iter(works).buffered(16);
    let mut failures = Vec::new();
    while let Some((name, answer)) = answers.next().await {
        match answer {
            Ok(()) => context.printer.line(name)?,
            Err(error @ ClientError::Connect { .. }) => return Err(error.into()),
            Err(error) => failures.push(chain(&error)),
        }
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n")).into()) }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
