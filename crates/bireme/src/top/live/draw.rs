//! The screen of the live view: a head, the graph of requests, the table and a line of keys.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Sparkline, Table};

use super::{Sort, View};
use crate::top::{Calls, Row, count, latency, memory, rate};

impl View {
    /// Draws everything, for the size that the terminal has now.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
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
        let sum = |get: fn(&Calls) -> u64| rows.iter().filter_map(|row| row.calls.as_ref()).map(get).sum::<u64>();
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
