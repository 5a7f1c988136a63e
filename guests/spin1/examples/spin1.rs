//! Answers requests as a module of Spin before components: its path says what it does.

use std::io::Read as _;

use guests_spin1::{Redis, Request, Store, answer, config, send};

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    unsafe { std::env::set_var("INITIALIZED", "yes") };
}

#[unsafe(export_name = "handle-http-request")]
#[allow(clippy::too_many_arguments, reason = "the interface has them")]
extern "C" fn handle(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32, j: u32) -> *const u8 {
    let request = unsafe { Request::raised([a, b, c, d, e, f, g, h, i, j]) };
    let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
    let text = match path {
        "/echo" => Ok(echo(&request)),
        "/redis" => redis(query),
        "/http" => send(1, query, &[("x-sent", "yes")], Some("sent")).map(|answer| format!("{answer:?}")),
        "/config" => config(query),
        "/kv" => kv(query),
        "/env" => std::env::var(query).map_err(|error| error.to_string()),
        "/file" => std::fs::read_to_string(query).map_err(|error| error.to_string()),
        "/input" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
        }
        "/status" => return answer(query.parse().unwrap(), &[], None),
        "/header" => return answer(200, &[(query, "x")], None),
        "/crash" => panic!("as it was asked to"),
        "/grow" => Ok(vec![1u8; query.parse().unwrap()].iter().map(|byte| usize::from(*byte)).sum::<usize>().to_string()),
        _ => return answer(404, &[], Some(b"not here".to_vec())),
    };
    match text {
        Ok(text) => answer(200, &[("content-type", "text/plain"), ("x-two", "1"), ("x-two", "2")], Some(text.into())),
        Err(text) => answer(500, &[], Some(text.into())),
    }
}

fn echo(request: &Request) -> String {
    let mut headers: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    headers.sort();
    let body = String::from_utf8_lossy(&request.body);
    format!("{} {}\n{}{body}", request.method, request.uri, headers.concat())
}

/// Each call of the interface, once.
fn redis(url: &str) -> Result<String, String> {
    let redis = Redis(url);
    redis.set("spin1:text", "a value")?;
    redis.execute("SET", &["spin1:number", "41"])?;
    redis.publish("spin1:channel", b"hello")?;
    let mut said = vec![
        redis.get("spin1:text")?,
        format!("{:?}", redis.get("spin1:none")?),
        redis.incr("spin1:number")?.to_string(),
        redis.sadd("spin1:set", &["a", "b", "b"])?.to_string(),
        redis.srem("spin1:set", &["b", "c"])?.to_string(),
        redis.smembers("spin1:set")?.join(","),
        format!("{:?}", redis.execute("MGET", &["spin1:text", "spin1:none"])?),
        format!("{:?}", redis.execute("STRLEN", &["spin1:text"])?),
        format!("{:?}", redis.execute("PING", &[])?),
        format!("{:?}", redis.incr("spin1:text")),
        redis.del(&["spin1:text", "spin1:number", "spin1:set", "spin1:none"])?.to_string(),
    ];
    said.push(String::new());
    Ok(said.join("\n"))
}

fn kv(store: &str) -> Result<String, String> {
    let store = Store::open(store)?;
    store.set("one", "1")?;
    store.set("two", "2")?;
    let said = [
        store.get("one")?,
        format!("{:?}", store.get("none")),
        store.exists("two")?.to_string(),
        store.keys()?.join(","),
    ];
    store.delete("one")?;
    Ok(format!("{}\n{}", said.join("\n"), store.exists("one")?))
}
