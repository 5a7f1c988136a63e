//! A command of WASI 0.3 that does what its first argument says, with nothing but the interfaces of 0.3.

use wasip3::cli::{environment, exit, stderr, stdin, stdout};
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip3::{filesystem, wit_stream};

wasip3::cli::command::export!(Command);

struct Command;

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        match rest.as_slice() {
            ["echo", words @ ..] => say(words.join(" ")).await,
            ["env", name] => {
                let found = environment::get_environment().into_iter().find(|(known, _)| known == name);
                say(found.map_or("unset".to_owned(), |(_, value)| value)).await;
            }
            ["exit", code] => exit::exit_with_code(code.parse().unwrap()),
            ["fail"] => return Err(()),
            ["panic"] => panic!("as asked"),
            ["sleep"] => wasip3::clocks::monotonic_clock::wait_for(600_000_000_000).await,
            ["read", path] => match read(path).await {
                Ok(text) => say(text).await,
                Err(code) => return complain(code).await,
            },
            ["write", path, text] => match write(path, text).await {
                Ok(()) => say("written".to_owned()).await,
                Err(code) => return complain(code).await,
            },
            ["link", to, path] => {
                let (folder, path) = place(path).ok_or(())?;
                match folder.symlink_at((*to).to_owned(), path).await {
                    Ok(()) => say("done".to_owned()).await,
                    Err(code) => return complain(code).await,
                }
            }
            ["cat"] => {
                let (bytes, end) = stdin::read_via_stream();
                let written = stdout::write_via_stream(bytes);
                written.await.unwrap();
                end.await.unwrap();
            }
            ["stat", path] => {
                let (folder, path) = place(path).ok_or(())?;
                match folder.stat_at(PathFlags::SYMLINK_FOLLOW, path).await {
                    Ok(stat) => say(format!("{} bytes", stat.size)).await,
                    Err(code) => return complain(code).await,
                }
            }
            ["flood", path, bytes] => {
                let bytes = vec![b'x'; bytes.parse().unwrap()];
                match put(path, bytes).await {
                    Ok(()) => say("done".to_owned()).await,
                    Err(code) => return complain(code).await,
                }
            }
            ["stdin"] => {
                let (bytes, end) = stdin::read_via_stream();
                let length = bytes.collect().await.len();
                end.await.unwrap();
                say(format!("{length} bytes")).await;
            }
            _ => return Err(()),
        }
        Ok(())
    }
}

async fn say(mut text: String) {
    text.push('\n');
    let (mut bytes, reader) = wit_stream::new();
    let written = stdout::write_via_stream(reader);
    bytes.write_all(text.into_bytes()).await;
    drop(bytes);
    written.await.unwrap();
}

async fn complain(code: ErrorCode) -> Result<(), ()> {
    let (mut bytes, reader) = wit_stream::new();
    let written = stderr::write_via_stream(reader);
    bytes.write_all(format!("{code:?}\n").into_bytes()).await;
    drop(bytes);
    written.await.unwrap();
    Err(())
}

/// The folder that `path` is in, and what is left of it.
fn place(path: &str) -> Option<(Descriptor, String)> {
    let folders = filesystem::preopens::get_directories();
    folders.into_iter().find_map(|(folder, name)| {
        let rest = path.strip_prefix(&name)?.trim_start_matches('/').to_owned();
        Some((folder, rest))
    })
}

async fn read(path: &str) -> Result<String, ErrorCode> {
    let (folder, path) = place(path).ok_or(ErrorCode::NoEntry)?;
    let flags = DescriptorFlags::READ;
    let file = folder.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::empty(), flags).await?;
    let (bytes, end) = file.read_via_stream(0);
    let bytes = bytes.collect().await;
    end.await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn write(path: &str, text: &str) -> Result<(), ErrorCode> {
    put(path, text.as_bytes().to_vec()).await
}

async fn put(path: &str, content: Vec<u8>) -> Result<(), ErrorCode> {
    let (folder, path) = place(path).ok_or(ErrorCode::NoEntry)?;
    let (how, flags) = (OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE);
    let file = folder.open_at(PathFlags::SYMLINK_FOLLOW, path, how, flags).await?;
    let (mut bytes, reader) = wit_stream::new();
    let end = file.write_via_stream(reader, 0);
    bytes.write_all(content).await;
    drop(bytes);
    end.await
}
