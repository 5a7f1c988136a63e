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
        history
            .push(begin + Duration::from_secs(step), vec![redis, component("tally", 1200), component("table", 7), old]);
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
