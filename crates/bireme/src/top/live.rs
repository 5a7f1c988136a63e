//! The live view: ratatui over the rows.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures::StreamExt;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Sparkline, Table, TableState};
use serde_json::Value;

use super::{History, Row, count, latency, memory, rate};
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

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let rows = self.rows();
        let graph = if frame.area().height >= 18 { 4 } else { 0 };
        let [head, spark, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(graph),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.head(frame, head, &rows);
        if graph > 0 {
            self.graph(frame, spark);
        }
        self.body(frame, body, &rows);
        self.foot(frame, foot);
    }

    /// A style where colours are wanted; without them only weight is used.
    fn tint(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    fn head(&self, frame: &mut Frame<'_>, area: Rect, rows: &[Row]) {
        let components = rows.iter().filter(|row| row.is_component()).count();
        let containers = rows.len() - components;
        let alive: u64 = rows.iter().filter_map(|row| row.calls.as_ref()).map(|calls| calls.alive).sum();
        let plural = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        let left = Line::from(vec![
            Span::styled(" bireme top ", Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED)),
            Span::raw("  "),
            Span::styled("◆ ", self.tint(Color::Cyan)),
            Span::raw(format!("{}   ", plural(components, "component"))),
            Span::styled("■ ", self.tint(Color::Blue)),
            Span::raw(format!("{}   ", plural(containers, "container"))),
            Span::raw(format!("{} alive", count(alive))),
        ]);
        let used = left.width() as u16;
        frame.render_widget(left, area);
        let right = format!("{}{} ", if self.frozen { "PAUSED  " } else { "" }, self.host);
        if used + right.chars().count() as u16 + 2 <= area.width {
            frame.render_widget(
                Paragraph::new(Span::styled(right, self.tint(Color::DarkGray))).alignment(Alignment::Right),
                area,
            );
        }
    }

    fn graph(&self, frame: &mut Frame<'_>, area: Rect) {
        let rates = self.history.total_rates();
        let [label, plot] = Layout::horizontal([Constraint::Length(16), Constraint::Min(10)]).areas(area);
        let plot =
            Rect { y: plot.y + 1, height: plot.height.saturating_sub(1), width: plot.width.saturating_sub(1), ..plot };
        let shown: Vec<u64> =
            rates.iter().rev().take(plot.width as usize).rev().map(|rate| (rate * 100.0) as u64).collect();
        let peak = shown.iter().copied().max().unwrap_or(0) as f64 / 100.0;
        let now = rates.back().copied().unwrap_or(0.0);
        frame.render_widget(
            Paragraph::new(vec![
                Line::default(),
                Line::from(Span::styled(
                    format!(" {}", rate(now)),
                    self.tint(Color::Green).add_modifier(Modifier::BOLD),
                )),
                Line::from(" requests/s"),
                Line::from(Span::styled(format!(" peak {}", rate(peak)), self.tint(Color::DarkGray))),
            ]),
            label,
        );
        // The newest point stands at the right edge.
        let mut data = vec![0; (plot.width as usize).saturating_sub(shown.len())];
        data.extend(shown);
        frame.render_widget(Sparkline::default().data(data).style(self.tint(Color::Green)), plot);
    }

    fn body(&mut self, frame: &mut Frame<'_>, area: Rect, rows: &[Row]) {
        let columns = Columns::for_width(area.width);
        let mut lines = Vec::new();
        let mut app = None;
        for row in rows {
            if self.sort == Sort::App && app != Some(&row.app) {
                app = Some(&row.app);
                let name = if row.app.is_empty() { "no app" } else { &row.app };
                lines.push(TableRow::new([
                    Cell::from(""),
                    Cell::from(Span::styled(name.to_owned(), Style::new().add_modifier(Modifier::BOLD))),
                ]));
            }
            lines.push(self.line(row, &columns));
        }
        if rows.is_empty() {
            let text = if self.filter.is_empty() { "  Nothing runs yet." } else { "  Nothing matches the filter." };
            lines.push(TableRow::new([Cell::from(""), Cell::from(text)]));
        }
        let header = TableRow::new(columns.titles().into_iter().map(|(title, right)| aligned(title.to_owned(), right)))
            .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
        let footer = self.totals(rows, &columns);
        let table = Table::new(lines, columns.widths())
            .header(header)
            .footer(footer)
            .column_spacing(1)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.table);
    }

    fn line(&self, row: &Row, columns: &Columns) -> TableRow<'static> {
        let quiet = self.tint(Color::DarkGray);
        let running = row.state == "running";
        let mark = match (row.is_component(), running) {
            (_, false) => Span::styled("○", quiet),
            (true, true) => Span::styled("◆", self.tint(Color::Cyan)),
            (false, true) => Span::styled("■", self.tint(Color::Blue)),
        };
        let name = if running { row.name.clone() } else { format!("{} ({})", row.name, row.state) };
        let indent = if self.sort == Sort::App { "  " } else { "" };
        let mut cells = vec![
            Cell::from(mark),
            Cell::from(Span::styled(format!("{indent}{name}"), if running { Style::new() } else { quiet })),
        ];
        let calls = row.calls.as_ref();
        let number =
            |text: String, style: Style| Cell::from(Line::from(Span::styled(text, style)).alignment(Alignment::Right));
        let dot = || number("·".to_owned(), quiet);
        let or_quiet = |zero: bool| if zero { quiet } else { Style::new() };
        cells.push(calls.map_or_else(dot, |calls| number(count(calls.started), or_quiet(calls.started == 0))));
        cells.push(calls.map_or_else(dot, |calls| number(count(calls.alive), or_quiet(calls.alive == 0))));
        cells.push(calls.map_or_else(dot, |calls| {
            number(count(calls.queued), if calls.queued > 0 { self.tint(Color::Yellow) } else { quiet })
        }));
        cells.push(calls.map_or_else(dot, |calls| {
            number(rate(calls.per_second), if calls.per_second > 0.0 { self.tint(Color::Green) } else { quiet })
        }));
        if columns.p50 {
            cells.push(calls.map_or_else(dot, |calls| number(latency(calls.p50), or_quiet(calls.p50.is_none()))));
        }
        cells.push(calls.map_or_else(dot, |calls| number(latency(calls.p99), or_quiet(calls.p99.is_none()))));
        cells.push(number(format!("{:.1}", row.cpu), or_quiet(row.cpu < 0.05)));
        cells.push(number(memory(row.memory), or_quiet(row.memory == 0)));
        cells.push(calls.map_or_else(dot, |calls| {
            number(count(calls.failed), if calls.failed > 0 { self.tint(Color::Red) } else { quiet })
        }));
        if columns.trend > 0 {
            cells.push(Cell::from(Span::styled(trend(&row.history, columns.trend), self.tint(Color::Green))));
        }
        if columns.image > 0 {
            cells.push(Cell::from(Span::styled(row.image.clone(), quiet)));
        }
        TableRow::new(cells)
    }

    fn totals(&self, rows: &[Row], columns: &Columns) -> TableRow<'static> {
        let sum =
            |get: fn(&super::Calls) -> u64| rows.iter().filter_map(|row| row.calls.as_ref()).map(get).sum::<u64>();
        let per_second: f64 = rows.iter().filter_map(|row| row.calls.as_ref()).map(|calls| calls.per_second).sum();
        let mut texts = vec![
            count(sum(|calls| calls.started)),
            count(sum(|calls| calls.alive)),
            count(sum(|calls| calls.queued)),
            rate(per_second),
        ];
        if columns.p50 {
            texts.push(String::new());
        }
        texts.push(String::new());
        texts.push(format!("{:.1}", rows.iter().map(|row| row.cpu).sum::<f64>()));
        texts.push(memory(rows.iter().map(|row| row.memory).sum()));
        texts.push(count(sum(|calls| calls.failed)));
        let cells =
            [Cell::from(""), Cell::from("total")].into_iter().chain(texts.into_iter().map(|text| aligned(text, true)));
        TableRow::new(cells).style(Style::new().add_modifier(Modifier::BOLD))
    }

    fn foot(&self, frame: &mut Frame<'_>, area: Rect) {
        let key = |text: &'static str| Span::styled(text, Style::new().add_modifier(Modifier::BOLD));
        let line = if self.typing {
            Line::from(vec![
                key(" filter: "),
                Span::raw(self.filter.clone()),
                key("▏"),
                Span::raw("  enter keep  esc clear"),
            ])
        } else {
            let mut spans = vec![
                key(" q"),
                Span::raw(" quit  "),
                key("↑↓"),
                Span::raw(" move  "),
                key("s"),
                Span::raw(format!(" sort: {}  ", self.sort.name())),
                key("f"),
                Span::raw(if self.filter.is_empty() {
                    " filter  ".to_owned()
                } else {
                    format!(" filter: {}  ", self.filter)
                }),
                key("space"),
                Span::raw(" pause"),
            ];
            if area.width >= 78 {
                spans.push(Span::styled("   ◆ component  ■ container", self.tint(Color::DarkGray)));
            }
            Line::from(spans)
        };
        frame.render_widget(line, area);
    }
}

fn aligned(text: String, right: bool) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(if right { Alignment::Right } else { Alignment::Left }))
}

/// A sparkline in one line of text, its newest point to the right.
fn trend(rates: &[f64], width: u16) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &rates[rates.len().saturating_sub(width.into())..];
    let peak = shown.iter().copied().fold(0.0, f64::max);
    let bars: String = shown
        .iter()
        .map(|rate| match rate {
            rate if *rate <= 0.0 || peak <= 0.0 => ' ',
            rate => BARS[((rate / peak * 7.0).round() as usize).min(7)],
        })
        .collect();
    format!("{bars:>0$}", width.into())
}

/// Which columns there is room for.
struct Columns {
    p50: bool,
    trend: u16,
    image: u16,
}

impl Columns {
    fn for_width(width: u16) -> Self {
        Self {
            p50: width >= 90,
            trend: if width >= 112 { 20 } else { 0 },
            image: if width >= 150 { width - 128 } else { 0 },
        }
    }

    /// Each column's title and whether it stands to the right.
    fn titles(&self) -> Vec<(&'static str, bool)> {
        let mut titles =
            vec![("", false), ("NAME", false), ("STARTED", true), ("ALIVE", true), ("QUEUE", true), ("REQ/S", true)];
        if self.p50 {
            titles.push(("P50", true));
        }
        titles.extend([("P99", true), ("CPU %", true), ("MEMORY", true), ("FAILED", true)]);
        if self.trend > 0 {
            titles.push(("REQ/S OVER TIME", true));
        }
        if self.image > 0 {
            titles.push(("IMAGE", false));
        }
        titles
    }

    fn widths(&self) -> Vec<Constraint> {
        let mut widths = vec![Constraint::Length(1), Constraint::Min(16)];
        widths.extend([8, 6, 6, 7].map(Constraint::Length));
        if self.p50 {
            widths.push(Constraint::Length(7));
        }
        widths.extend([7, 6, 7, 6].map(Constraint::Length));
        if self.trend > 0 {
            widths.push(Constraint::Length(self.trend));
        }
        if self.image > 0 {
            widths.push(Constraint::Length(self.image));
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bireme_api::v1::{Invocations, Workload};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn view() -> View {
        let mut history = History::default();
        let begin = Instant::now();
        for step in 0..4u64 {
            let component = |name: &str, factor: u64| Workload {
                id: name.into(),
                name: format!("whiskers-{name}-1"),
                kind: "component".into(),
                app: Some("whiskers".into()),
                service: Some(name.into()),
                state: "running".into(),
                image: "local/x".into(),
                invocations: Some(Invocations {
                    trigger: "http".into(),
                    started: step * factor,
                    succeeded: step * factor,
                    alive: 2,
                    latency: vec![(100, step * factor / 2), (1000, step * factor)],
                    ..Invocations::default()
                }),
                memory_usage: 3 << 20,
                ..Workload::default()
            };
            let redis = Workload {
                id: "redis".into(),
                name: "whiskers-redis-1".into(),
                kind: "container".into(),
                app: Some("whiskers".into()),
                service: Some("redis".into()),
                state: "running".into(),
                cpu_total: step * 50_000_000,
                memory_usage: 12 << 20,
                ..Workload::default()
            };
            let old = Workload {
                id: "old".into(),
                name: "old".into(),
                kind: "container".into(),
                state: "exited".into(),
                ..Workload::default()
            };
            history.push(
                begin + Duration::from_secs(step),
                vec![redis, component("tally", 1200), component("table", 7), old],
            );
        }
        View {
            history,
            sort: Sort::App,
            filter: String::new(),
            typing: false,
            table: TableState::default(),
            host: "unix:///run/bireme/bireme.sock".into(),
            color: false,
            frozen: false,
        }
    }

    fn screen(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let text = terminal.backend().to_string();
        text.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_screen_is_readable_at_eighty_columns_and_wider() {
        insta::assert_snapshot!("top_80x24", screen(&mut view(), 80, 24));
        insta::assert_snapshot!("top_120x20", screen(&mut view(), 120, 20));
    }

    #[test]
    fn keys_sort_and_filter() {
        let mut view = view();
        assert!(!view.press(KeyEvent::from(KeyCode::Char('s'))));
        assert_eq!(view.rows()[0].name, "tally");
        view.press(KeyEvent::from(KeyCode::Char('f')));
        for letter in "red".chars() {
            view.press(KeyEvent::from(KeyCode::Char(letter)));
        }
        view.press(KeyEvent::from(KeyCode::Enter));
        assert_eq!(view.rows().iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["redis"]);
        assert!(view.press(KeyEvent::from(KeyCode::Char('q'))));
    }
}
