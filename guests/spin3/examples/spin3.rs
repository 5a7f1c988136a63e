//! Uses Spin's key-value store, Redis client and variables as the path says.

use spin_sdk::http::{IntoResponse, Request};
use spin_sdk::http_service;
use spin_sdk::key_value::Store;
use spin_sdk::redis::Connection;
use spin_sdk::sqlite::Value;
use spin_sdk::variables;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    answer(request).await.unwrap_or_else(|error| format!("error: {error:?}"))
}

async fn answer(request: Request) -> anyhow::Result<String> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    Ok(match request.uri().path() {
        "/count" => {
            let store = Store::open(if query.is_empty() { "default" } else { &query }).await?;
            let old = store.get("count").await?;
            let count = old.map_or(0, |bytes| String::from_utf8_lossy(&bytes).parse::<u64>().unwrap_or(0)) + 1;
            store.set("count", count.to_string()).await?;
            format!("{count} of {:?}", store.get_keys().await.collect().await?)
        }
        "/hoard" => {
            let mut stores = Vec::new();
            let error = loop {
                match Store::open_default().await {
                    Ok(store) => stores.push(store),
                    Err(error) => break error,
                }
            };
            format!("{} {error:?}", stores.len())
        }
        "/variable" => variables::get(&query).await?,
        "/redis" => {
            let connection = Connection::open(&query).await?;
            connection.set("greeting3", "hello").await?;
            let number = connection.incr("number3").await?;
            format!("{:?} {number}", connection.get("greeting3").await?.map(|bytes| bytes.len()))
        }
        "/sql" => {
            let connection = spin_sdk::sqlite::Connection::open(&query).await?;
            connection.execute("CREATE TABLE IF NOT EXISTS third (n INTEGER)", []).await?;
            connection.execute("DELETE FROM third", []).await?;
            for number in 0..3 {
                connection.execute("INSERT INTO third VALUES (?)", [Value::Integer(number)]).await?;
            }
            let answer = connection.execute("SELECT n, 'x' AS t FROM third ORDER BY n", []).await?;
            let columns = format!("{:?}", answer.columns());
            let rows = answer.collect().await?;
            format!("{columns} {} {}", rows.len(), connection.changes().await)
        }
        "/postgres" => {
            let connection = spin_sdk::pg::Connection::open(&query).await?;
            connection.execute("CREATE TEMPORARY TABLE third (n INTEGER)", []).await?;
            let changed = connection.execute("INSERT INTO third VALUES (1), (2), ($1)", [3.into()]).await?;
            let answer = connection.query("SELECT n, 'x' AS t FROM third ORDER BY n", []).await?;
            let columns: Vec<_> = answer.columns().iter().map(|column| column.name.clone()).collect();
            let rows = answer.collect().await?;
            format!("{changed} {columns:?} {} {:?}", rows.len(), rows[2].get::<i32>("n"))
        }
        "/mysql" => {
            let connection = spin_sdk::mysql::Connection::open(&query).await?;
            connection.execute("CREATE TEMPORARY TABLE third (n INTEGER)", []).await?;
            connection.execute("INSERT INTO third VALUES (1), (2), (?)", [3.into()]).await?;
            let answer = connection.query("SELECT n, 'x' AS t FROM third ORDER BY n", []).await?;
            let columns: Vec<_> = answer.columns().iter().map(|column| column.name.clone()).collect();
            let rows = answer.collect().await?;
            format!("{columns:?} {} {:?}", rows.len(), rows[2].get::<i32>("n"))
        }
        "/mqtt" => {
            let connection = spin_sdk::mqtt::Connection::open(&query, "", "", 30).await?;
            connection.publish("third", b"a message".to_vec(), spin_sdk::mqtt::Qos::ExactlyOnce).await?;
            "published".to_owned()
        }
        other => format!("no {other} here"),
    })
}
