//! A command that does what its first argument says. Built as a component and as a core module.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match rest.as_slice() {
        ["echo", words @ ..] => println!("{}", words.join(" ")),
        ["env", name] => println!("{}", std::env::var(name).unwrap_or_else(|_| "unset".to_owned())),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap()),
        ["panic"] => panic!("as asked"),
        ["loop"] => loop {
            std::hint::black_box(0);
        },
        ["sleep"] => std::thread::sleep(std::time::Duration::from_secs(600)),
        ["read", path] => match std::fs::read_to_string(path) {
            Ok(text) => println!("{text}"),
            Err(error) => return fail(&error.to_string()),
        },
        ["write", path, text] => match std::fs::write(path, text) {
            Ok(()) => println!("written"),
            Err(error) => return fail(&error.to_string()),
        },
        ["link", to, path] => return done(symlink(to, path)),
        ["hard-link", from, to] => return done(std::fs::hard_link(from, to)),
        ["append", path, text] => {
            let file = std::fs::OpenOptions::new().append(true).open(path);
            return done(file.and_then(|mut file| file.write_all(text.as_bytes())));
        }
        ["truncate", path] => {
            return done(std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0)));
        }
        ["rename", from, to] => return done(std::fs::rename(from, to)),
        ["remove", path] => return done(std::fs::remove_file(path)),
        ["mkdir", path] => return done(std::fs::create_dir(path)),
        ["rmdir", path] => return done(std::fs::remove_dir(path)),
        ["touch", path] => {
            let times = std::fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
            return done(std::fs::File::open(path).and_then(|file| file.set_times(times)));
        }
        ["list", path] => match std::fs::read_dir(path) {
            Ok(entries) => {
                let mut names: Vec<String> =
                    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
                names.sort();
                println!("{}", names.join(" "));
            }
            Err(error) => return fail(&error.to_string()),
        },
        ["stdin"] => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).unwrap();
            println!("{} bytes", text.len());
        }
        ["spam", lines] => {
            let mut out = std::io::stdout().lock();
            for n in 0..lines.parse::<u64>().unwrap() {
                writeln!(out, "line {n} {}", "x".repeat(80)).unwrap();
            }
        }
        ["partial"] => {
            print!("no line end");
            eprint!("nor here");
        }
        other => return fail(&format!("unknown arguments {other:?}")),
    }
    ExitCode::SUCCESS
}

#[expect(deprecated, reason = "what the standard library has for WASI needs an unstable feature")]
fn symlink(to: &str, path: &str) -> std::io::Result<()> {
    std::fs::soft_link(to, path)
}

fn done(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => {
            println!("done");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(3)
}
