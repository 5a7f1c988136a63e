//! Uses Spin's key-value store, Redis client and variables as the path says.

use spin_sdk::http::{IntoResponse, Request, Response};
use spin_sdk::key_value::Store;
use spin_sdk::redis::{Connection, RedisParameter};
use spin_sdk::sqlite3::Value;
use spin_sdk::{http_component, variables};

#[http_component]
fn handle(request: Request) -> anyhow::Result<impl IntoResponse> {
    let (path, query) = request.path_and_query().unwrap_or("/").split_once('?').unwrap_or((request.path(), ""));
    let body = match path {
        "/count" => {
            let store = Store::open(if query.is_empty() { "default" } else { query })?;
            let count = store.get("count")?.map_or(0, |bytes| String::from_utf8_lossy(&bytes).parse::<u64>().unwrap_or(0)) + 1;
            store.set("count", count.to_string().as_bytes())?;
            format!("{count} of {:?}", store.get_keys()?)
        }
        "/hoard" => {
            let mut stores = Vec::new();
            let error = loop {
                match Store::open_default() {
                    Ok(store) => stores.push(store),
                    Err(error) => break error,
                }
            };
            format!("{} {} {error:?}", stores.len(), stores[0].get_keys().is_ok())
        }
        "/hoard-redis" => {
            let mut open = Vec::new();
            loop {
                match Connection::open(query) {
                    Ok(connection) => open.push(connection),
                    Err(error) => break format!("{} {error:?}", open.len()),
                }
            }
        }
        "/variable" => variables::get(query)?,
        "/redis" => {
            let connection = Connection::open(query).map_err(|error| anyhow::anyhow!("open: {error:?}"))?;
            connection.set("greeting", &b"hello".to_vec())?;
            let number = connection.incr("number")?;
            connection.sadd("set", &["a".to_owned(), "b".to_owned()])?;
            connection.publish("channel", &b"published".to_vec())?;
            let echoed = connection.execute("ECHO", &[RedisParameter::Binary(b"hi".to_vec())])?;
            format!("{:?} {number} {} {echoed:?}", connection.get("greeting")?.map(|b| b.len()), connection.smembers("set")?.len())
        }
        // Each line of the body is a statement, with what stands behind a bar as its parameter.
        "/sql" => {
            let connection = match spin_sdk::sqlite3::Connection::open(query) {
                Ok(connection) => connection,
                Err(error) => return Ok(Response::new(200, format!("{error:?}"))),
            };
            let mut said = String::new();
            for line in String::from_utf8_lossy(request.body()).lines() {
                let (statement, parameter) = line.split_once(" | ").map_or((line, None), |(a, b)| (a, Some(b)));
                let parameters: Vec<_> = parameter.map(|text| Value::Text(text.to_owned())).into_iter().collect();
                match connection.execute(statement, &parameters) {
                    Ok(answer) => {
                        let rows: Vec<_> = answer.rows.iter().map(|row| &row.values).collect();
                        said.push_str(&format!("{:?} {rows:?}\n", answer.columns));
                    }
                    Err(error) => said.push_str(&format!("{error:?}\n")),
                }
            }
            format!("{said}{} {}", connection.changes(), connection.last_insert_rowid())
        }
        other => format!("no {other} here"),
    };
    Ok(Response::new(200, body))
}
