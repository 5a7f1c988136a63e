//! Progress of pulls, pushes, loads and builds: bars on a terminal, plain lines otherwise, always on standard error.

use std::collections::HashMap;

use bireme_api::ClientError;
use bireme_api::answers::progress::Message;
use futures::{Stream, StreamExt};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::Failure;
use crate::printer::Printer;

/// Bars of one pull; several of them may share the terminal.
pub struct Bars {
    multi: MultiProgress,
    bars: HashMap<String, ProgressBar>,
    /// What was last printed of each layer, where there is no terminal.
    said: HashMap<String, String>,
    prefix: String,
    terminal: bool,
    quiet: bool,
    printer: Printer,
}

impl Bars {
    /// Bars on standard error if it is a terminal. `prefix` stands before every line.
    pub fn new(printer: &Printer, multi: Option<MultiProgress>, prefix: &str, quiet: bool) -> Self {
        let terminal = printer.err_is_terminal && !quiet;
        let multi = multi.unwrap_or_default();
        if !terminal {
            multi.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self {
            multi,
            bars: HashMap::new(),
            said: HashMap::new(),
            prefix: prefix.to_owned(),
            terminal,
            quiet,
            printer: *printer,
        }
    }

    fn bar(&mut self, id: &str) -> ProgressBar {
        let (multi, prefix) = (&self.multi, &self.prefix);
        self.bars
            .entry(id.to_owned())
            .or_insert_with(|| {
                let bar = multi.add(ProgressBar::new(0));
                bar.set_style(waiting());
                bar.set_prefix(format!("{prefix}{id}"));
                bar
            })
            .clone()
    }

    /// Prints something else while bars are on the terminal.
    pub fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.multi.suspend(print)
    }

    /// Leaves all bars as they are.
    pub fn leave(&self) {
        for bar in self.bars.values().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }

    /// Shows one message of a pull.
    ///
    /// # Errors
    /// Those of standard error.
    pub fn show(&mut self, message: &Message) -> std::io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let status = message.status.as_deref().unwrap_or_default().trim_end();
        let id = message.id.as_deref().unwrap_or_default();
        if status.is_empty() {
            return Ok(());
        }
        // Messages about a tag carry it as their id; those about layers carry detail or a layer's state.
        let layer = !id.is_empty() && !status.starts_with("Pulling from");
        if !layer {
            let text = if id.is_empty() { status.to_owned() } else { format!("{id}: {status}") };
            return if self.terminal {
                self.multi.println(format!("{}{text}", self.prefix))
            } else {
                self.printer.note(format!("{}{text}", self.prefix))
            };
        }
        if !self.terminal {
            let passing = [
                "Downloading",
                "Extracting",
                "Waiting",
                "Verifying Checksum",
                "Preparing",
                "Packing",
                "Pushing",
                "Loading layer",
            ];
            let settled = !passing.contains(&status) && message.progress_detail.units.is_none();
            if settled && self.said.get(id).is_none_or(|said| said != status) {
                self.said.insert(id.to_owned(), status.to_owned());
                self.printer.note(format!("{}{id}: {status}", self.prefix))?;
            }
            return Ok(());
        }
        let bar = self.bar(id);
        let detail = &message.progress_detail;
        match (detail.current, detail.total) {
            (Some(current), Some(total)) if total > 0 => {
                bar.set_style(moving());
                bar.set_length(total);
                bar.set_position(current);
            }
            _ => bar.set_style(waiting()),
        }
        // Other than bytes are counted in words.
        match (&detail.units, &message.progress) {
            (Some(_), Some(progress)) => bar.set_message(format!("{status} {progress}")),
            _ => bar.set_message(status.to_owned()),
        }
        if matches!(
            status,
            "Pull complete" | "Already exists" | "Loaded" | "Pushed" | "Layer already exists" | "Compiled"
        ) {
            bar.abandon();
        }
        Ok(())
    }

    /// Shows every message until the stream ends.
    ///
    /// # Errors
    /// What the engine says inside the stream: after its head it has no other way to fail.
    pub async fn follow<S>(&mut self, mut messages: S) -> anyhow::Result<()>
    where
        S: Stream<Item = Result<Message, ClientError>> + Unpin,
    {
        let mut failed = None;
        while let Some(message) = messages.next().await {
            let message = message?;
            if let Some(error) = stream_error(&message) {
                failed = Some(error);
                break;
            }
            self.show(&message)?;
        }
        self.leave();
        failed.map_or(Ok(()), Err)
    }
}

/// The error a message of a stream carries, if it does.
pub fn stream_error(message: &Message) -> Option<anyhow::Error> {
    let text = message.failure()?;
    let failure = Failure::new(format!("Error response from daemon: {text}"));
    // A command of a build that ended badly: its code is ours.
    let code = message.error_detail.code.and_then(|code| u8::try_from(code).ok());
    Some(failure.code(code.unwrap_or(1)).into())
}

fn waiting() -> ProgressStyle {
    style("{prefix}: {msg}")
}

fn moving() -> ProgressStyle {
    style("{prefix}: {msg:<11} [{bar:30}] {bytes}/{total_bytes}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("our own templates are well formed").progress_chars("=> ")
}
