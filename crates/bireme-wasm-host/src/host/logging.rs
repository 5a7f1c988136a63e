//! `wasi:logging`: messages with a level, as lines of the workload's standard error.

use std::sync::Arc;

use super::bindings::draft::wasi::logging0_1_0_draft::logging as draft;
use super::bindings::sync::wasi::logging::logging;
use crate::guest::Guest;

fn line(level: &str, context: &str, message: &str) -> String {
    let gap = if context.is_empty() { "" } else { " " };
    format!("{level}{gap}{context}: {message}\n")
}

/// Both versions have the same levels.
macro_rules! offered {
    ($version:ident) => {
        impl $version::Host for Guest {
            async fn log(&mut self, level: $version::Level, context: String, message: String) {
                let level = match level {
                    $version::Level::Trace => "trace",
                    $version::Level::Debug => "debug",
                    $version::Level::Info => "info",
                    $version::Level::Warn => "warn",
                    $version::Level::Error => "error",
                    $version::Level::Critical => "critical",
                };
                // Waits while the log is full.
                let component = Arc::clone(&self.component);
                component.log.line(line(level, &context, &message)).await;
            }
        }
    };
}

offered!(logging);
offered!(draft);
