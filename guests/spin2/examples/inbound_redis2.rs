//! Writes each message into a Redis list, and fails on the message `trap`.

use spin_sdk::redis::{Connection, RedisParameter};
use spin_sdk::redis_component;

#[redis_component]
fn on_message(message: spin_sdk::redis::Payload) -> anyhow::Result<()> {
    assert_ne!(message, b"trap");
    println!("got {}", String::from_utf8_lossy(&message));
    let connection = Connection::open(&std::env::var("REDIS")?).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    connection
        .execute("RPUSH", &[RedisParameter::Binary(b"got".to_vec()), RedisParameter::Binary(message)])
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(())
}
