//! A command that does what its first argument says. Built as a component and as a core module.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

#[cfg(target_env = "p1")]
#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn fd_renumber(from: i32, to: i32) -> i32;
}

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
        ["cat"] => {
            let mut buffer = [0; 5000];
            let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => output.write_all(&buffer[..length]).and_then(|()| output.flush()).unwrap(),
                    Err(error) => return fail(&error.to_string()),
                }
            }
        }
        // Opens a file as often as it may, and tells how often and why no more.
        ["hoard", path, count] => {
            let mut hoard = Vec::new();
            while hoard.len() < count.parse::<usize>().unwrap() {
                match std::fs::File::open(path) {
                    Ok(file) => hoard.push(file),
                    Err(error) => {
                        println!("{} {error}", hoard.len());
                        return ExitCode::SUCCESS;
                    }
                }
            }
            println!("{} none", hoard.len());
        }
        ["churn", path, count] => {
            for n in 0..count.parse::<usize>().unwrap() {
                if let Err(error) = std::fs::File::open(path) {
                    return fail(&format!("{n}: {error}"));
                }
            }
            println!("done");
        }
        ["deaf"] => std::thread::sleep(std::time::Duration::from_millis(500)),
        ["stat", path] => match std::fs::metadata(path) {
            Ok(metadata) => println!("{} bytes, {}", metadata.len(), if metadata.is_dir() { "a folder" } else { "a file" }),
            Err(error) => return fail(&error.to_string()),
        },
        ["flood", path, bytes] => {
            let bytes = vec![b'x'; bytes.parse().unwrap()];
            return done(std::fs::File::create(path).and_then(|mut file| file.write_all(&bytes)));
        }
        #[cfg(target_env = "p1")]
        ["renumber", path, times] => {
            for _ in 0..times.parse::<u32>().unwrap() {
                let (Ok(one), Ok(other)) = (std::fs::File::open(path), std::fs::File::open(path)) else {
                    return fail("too many are open");
                };
                use std::os::fd::IntoRawFd as _;
                let (one, other) = (one.into_raw_fd(), other.into_raw_fd());
                // SAFETY: both are open, and nobody else has them.
                let answer = unsafe { fd_renumber(one, other) };
                if answer != 0 {
                    return fail(&format!("error {answer}"));
                }
                // SAFETY: as above.
                drop(unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(other) });
            }
            println!("done");
            std::thread::sleep(std::time::Duration::from_secs(600));
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
