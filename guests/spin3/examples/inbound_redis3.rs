//! Prints each message, and counts it in Redis.

use spin_sdk::redis::Connection;
use spin_sdk::redis_subscriber;

#[redis_subscriber]
async fn on_message(message: bytes::Bytes) -> anyhow::Result<()> {
    println!("got {}", String::from_utf8_lossy(&message));
    let connection = Connection::open(std::env::var("REDIS")?).await?;
    connection.incr("seen3").await?;
    Ok(())
}
