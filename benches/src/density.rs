//! A thousand components in one app: how long they take to start from compiled code, what each costs at rest, and how soon
//! one answers that was never asked.

use std::time::Instant;

use bireme_testing::{Engine, client, eventually, free_port, guest};

use crate::components::marked;
use crate::growth::app;
use crate::http::host_of;
use crate::sample::{Samples, figure, print_table};

const COUNT: usize = 1000;
/// Components that are asked for the first time.
const ASKED: usize = 50;

pub(crate) fn run() {
    let mut rows = Vec::new();
    for different in [false, true] {
        let engine = Engine::start();
        let port = free_port();
        let component = std::fs::read(guest("hello")).expect("the guests are built");
        let name = |number: usize| format!("{}.wasm", if different { number } else { 0 });
        for number in 0..if different { COUNT } else { 1 } {
            std::fs::write(engine.folder().join(name(number)), marked(&component, number))
                .expect("a file can be written");
        }
        let file = app(COUNT, port, |number| format!("./{}", name(number)));
        let path = engine.folder().join("compose.yaml");
        std::fs::write(&path, file).expect("a file can be written");
        let path = path.to_str().expect("plain paths");
        // What is compiled stays.
        engine.bireme(["up", "-f", path, "-d"]).stdout();
        engine.bireme(["down", "-f", path]).stdout();
        engine.bireme(["up", "-f", path, "-d", "s0"]).stdout();
        eventually("the one", || ask(port, 0));
        let one = at_rest();
        engine.bireme(["down", "-f", path]).stdout();
        let began = Instant::now();
        engine.bireme(["up", "-f", path, "-d"]).stdout();
        let took = began.elapsed().as_secs_f64();
        let all = at_rest();
        eventually("the first answer", || ask(port, 0));
        let mut first = Samples::default();
        for number in 1..=ASKED {
            let began = Instant::now();
            ask(port, number * (COUNT / ASKED) - 1).expect("each answers");
            first.add(began.elapsed().as_secs_f64() * 1000.0);
        }
        let each = |at: usize| figure((all[at] - one[at]) / (COUNT - 1) as f64);
        let what = if different { "1,000 different components" } else { "1,000 components of one file" };
        rows.push(vec![what.to_owned(), figure(took), each(0), each(1), first.told()]);
        engine.finish();
    }
    let columns = [
        "what",
        "`up -d` from compiled code, s",
        "of its own, each, KiB",
        "mapped from files, each, KiB",
        "first answer of one, ms: median (least–most)",
    ];
    print_table("Components at rest", &columns, &rows);
}

/// Anonymous memory and mapped files of the host process that are resident, in KiB.
fn at_rest() -> [f64; 2] {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host_of())).unwrap_or_default();
    ["RssAnon:", "RssFile:"].map(|key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
    })
}

fn ask(port: u16, number: usize) -> Option<()> {
    let answer = client::tcp(port, "GET", &format!("/s{number}"), "", b"").ok()?;
    (answer.status == 200).then_some(())
}
