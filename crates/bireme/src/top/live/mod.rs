//! The live view: what the user sees and chooses, and the loop over samples and keys. Drawing is in [`draw`].

mod draw;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures::StreamExt;
use ratatui::widgets::TableState;
use serde_json::Value;

use super::{History, Row};
use crate::context::Context;
use crate::error::{Failure, Outcome};

/// What the table is sorted by; `s` goes through them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    App,
    Rate,
    P99,
    Cpu,
    Memory,
    Failed,
}

impl Sort {
    const ALL: [(Sort, &'static str); 6] = [
        (Sort::App, "app"),
        (Sort::Rate, "req/s"),
        (Sort::P99, "p99"),
        (Sort::Cpu, "cpu"),
        (Sort::Memory, "memory"),
        (Sort::Failed, "failed"),
    ];

    fn at(self) -> usize {
        Self::ALL.iter().position(|(sort, _)| *sort == self).unwrap_or(0)
    }

    fn name(self) -> &'static str {
        Self::ALL[self.at()].1
    }

    fn next(self) -> Self {
        Self::ALL[(self.at() + 1) % Self::ALL.len()].0
    }
}

/// What the user sees and has chosen.
struct View {
    history: History,
    sort: Sort,
    filter: String,
    typing: bool,
    table: TableState,
    host: String,
    color: bool,
    frozen: bool,
}

/// Shows the live view until the user leaves it or the engine goes away.
pub async fn run(context: &Context, filters: Option<&Value>, interval: Duration) -> Outcome {
    let mut samples = context.client.watch_workloads(filters, interval).await.map_err(crate::commands::only_here)?;
    let mut keys = EventStream::new();
    let mut view = View {
        history: History::default(),
        sort: Sort::default(),
        filter: String::new(),
        typing: false,
        table: TableState::default(),
        host: context.client.host().to_string(),
        color: context.printer.color,
        frozen: false,
    };
    let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let ended: Outcome = loop {
        if let Err(error) = terminal.draw(|frame| view.draw(frame)) {
            break Err(error.into());
        }
        tokio::select! {
            sample = samples.next() => match sample {
                Some(Ok(sample)) => {
                    if !view.frozen {
                        view.history.push(Instant::now(), sample);
                    }
                }
                Some(Err(error)) => break Err(error.into()),
                None => break Err(Failure::new("the engine went away").into()),
            },
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                    if view.press(key) {
                        break Ok(0);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(0),
            },
        }
    };
    ratatui::restore();
    ended
}

impl View {
    /// Takes a key; true when it is time to leave.
    fn press(&mut self, key: KeyEvent) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return true;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => {
                    self.filter.pop();
                }
                KeyCode::Char(letter) => self.filter.push(letter),
                _ => {}
            }
            return false;
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Esc if self.filter.is_empty() => return true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('f' | '/') => self.typing = true,
            KeyCode::Char(' ' | 'p') => self.frozen = !self.frozen,
            KeyCode::Down | KeyCode::Char('j') => self.table.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.table.select_previous(),
            KeyCode::PageDown => self.table.scroll_down_by(10),
            KeyCode::PageUp => self.table.scroll_up_by(10),
            KeyCode::Home | KeyCode::Char('g') => self.table.select_first(),
            KeyCode::End | KeyCode::Char('G') => self.table.select_last(),
            _ => {}
        }
        false
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = self.history.rows();
        let wanted = self.filter.to_lowercase();
        rows.retain(|row| {
            wanted.is_empty()
                || [&row.name, &row.app, &row.kind, &row.image, &row.state]
                    .iter()
                    .any(|text| text.to_lowercase().contains(&wanted))
        });
        let calls = |row: &Row, get: fn(&super::Calls) -> f64| row.calls.as_ref().map_or(-1.0, get);
        let key = |row: &Row| match self.sort {
            Sort::App => 0.0,
            Sort::Rate => calls(row, |calls| calls.per_second),
            Sort::P99 => calls(row, |calls| calls.p99.unwrap_or(0) as f64),
            Sort::Cpu => row.cpu,
            Sort::Memory => row.memory as f64,
            Sort::Failed => calls(row, |calls| calls.failed as f64),
        };
        // Stable: equals stay in the order of apps.
        rows.sort_by(|left, right| key(right).total_cmp(&key(left)));
        rows
    }
}
