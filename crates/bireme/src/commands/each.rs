//! Doing one thing to several names, as Docker does: say each name that worked, fail with all that did not.

use std::future::Future;

use bireme_api::ClientError;
use bireme_core::error::chain;
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
