//! Uses Spin's key-value store, Redis client and variables as the path says.

use spin_sdk::http::{IntoResponse, Request, Response};
use spin_sdk::key_value::Store;
use spin_sdk::mqtt::{Connection as Mqtt, Qos};
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
        "/postgres" => postgres::ask(query, &lines(&request)),
        "/postgres2" => postgres2::ask(query, &lines(&request)),
        "/mysql" => mysql::ask(query, &lines(&request)),
        // Each line of the body is a topic, how surely it is to arrive, and the message.
        "/mqtt" => {
            let (address, login) = query.split_once(',').unwrap_or((query, ""));
            let (user, password) = login.split_once(':').unwrap_or_default();
            match Mqtt::open(address, user, password, 30) {
                Err(error) => format!("{error:?}"),
                Ok(connection) => {
                    let published = lines(&request).into_iter().map(|line| {
                        let mut words = line.splitn(3, ' ');
                        let mut word = || words.next().unwrap_or_default().to_owned();
                        let (topic, qos, message) = (word(), word(), word());
                        let qos = match qos.as_str() {
                            "0" => Qos::AtMostOnce,
                            "1" => Qos::AtLeastOnce,
                            _ => Qos::ExactlyOnce,
                        };
                        format!("{:?}", connection.publish(&topic, message.as_bytes(), qos))
                    });
                    published.collect::<Vec<_>>().join("\n")
                }
            }
        }
        other => format!("no {other} here"),
    };
    Ok(Response::new(200, body))
}

fn lines(request: &Request) -> Vec<String> {
    String::from_utf8_lossy(request.body()).lines().map(str::to_owned).collect()
}

/// What asks a database: each line is a statement, with what stands behind bars as its parameters, in the words of `$read`.
/// Those that have rows are queries.
macro_rules! database {
    ($name:ident, $sdk:ident, $read:expr) => {
        mod $name {
            use spin_sdk::$sdk::{Connection, ParameterValue};

            pub fn ask(address: &str, lines: &[String]) -> String {
                let connection = match Connection::open(address) {
                    Ok(connection) => connection,
                    Err(error) => return format!("{error:?}"),
                };
                let mut said = String::new();
                for line in lines {
                    let mut words = line.split(" | ");
                    let statement = words.next().unwrap_or_default();
                    let read: fn(&str, &str) -> ParameterValue = $read;
                    let parameters: Vec<_> = words
                        .map(|word| {
                            let (kind, value) = word.split_once(':').unwrap_or((word, ""));
                            read(kind, value)
                        })
                        .collect();
                    let has_rows = ["SELECT", "WITH", "SHOW"].iter().any(|word| statement.starts_with(word));
                    said.push_str(&if has_rows {
                        match connection.query(statement, &parameters) {
                            Ok(answer) => format!("{:?} {:?}\n", answer.columns, answer.rows),
                            Err(error) => format!("{error:?}\n"),
                        }
                    } else {
                        format!("{:?}\n", connection.execute(statement, &parameters))
                    });
                }
                said
            }
        }
    };
}

database!(postgres, pg4, |kind, value| match kind {
    "int" => ParameterValue::Int32(value.parse().unwrap()),
    "float" => ParameterValue::Floating64(value.parse().unwrap()),
    "bool" => ParameterValue::Boolean(value == "true"),
    "bytes" => ParameterValue::Binary(value.as_bytes().to_vec()),
    "date" => ParameterValue::Date((value.parse().unwrap(), 2, 28)),
    "decimal" => ParameterValue::Decimal(value.to_owned()),
    "json" => ParameterValue::Jsonb(value.as_bytes().to_vec()),
    "uuid" => ParameterValue::Uuid(value.to_owned()),
    "texts" => ParameterValue::ArrayStr(value.split(',').map(|text| Some(text.to_owned())).collect()),
    "null" => ParameterValue::DbNull,
    _ => ParameterValue::Str(value.to_owned()),
});
database!(postgres2, pg, |kind, value| match kind {
    "int" => ParameterValue::Int32(value.parse().unwrap()),
    "unsigned" => ParameterValue::Uint32(value.parse().unwrap()),
    _ => ParameterValue::Str(value.to_owned()),
});
database!(mysql, mysql, |kind, value| match kind {
    "int" => ParameterValue::Int32(value.parse().unwrap()),
    "unsigned" => ParameterValue::Uint64(value.parse().unwrap()),
    "float" => ParameterValue::Floating64(value.parse().unwrap()),
    "bytes" => ParameterValue::Binary(value.as_bytes().to_vec()),
    "null" => ParameterValue::DbNull,
    _ => ParameterValue::Str(value.to_owned()),
});
