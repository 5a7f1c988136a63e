//! Answers as a CGI program: its first argument says how.

use std::io::{Read as _, Write as _};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).unwrap();
    let word = arguments.get(1).map(String::as_str).unwrap_or_default();
    eprintln!("asked for {word}");
    match word {
        "moved" => println!("Location: /elsewhere\n"),
        "status" => println!("Status: 418 I am a teapot\nContent-Type: text/plain\n\nshort"),
        "nothing" => {}
        "plain" => println!("no headers at all"),
        "exit" => std::process::exit(3),
        "exit0" => {
            println!("content-type: text/plain\n\nleft early");
            std::process::exit(0);
        }
        "large" => {
            println!("content-type: text/plain\n");
            let line = [b'x'; 1023];
            for _ in 0..arguments[2].parse().unwrap() {
                std::io::stdout().write_all(&line).unwrap();
                println!();
            }
        }
        _ => {
            println!("Content-Type: text/plain\r\nX-Answered-By: wagi\r\n\r");
            println!("{arguments:?}");
            let mut env: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            env.sort();
            println!("{}", env.join("\n"));
            std::io::stdout().write_all(&input).unwrap();
        }
    }
}
