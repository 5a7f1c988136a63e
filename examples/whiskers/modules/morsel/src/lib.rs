//! Hears every click on the channel and adds the right ones to the score of their game.

use anyhow::{Result, anyhow};
use pantry::{Click, SCORE_LIFE, score_key};
use spin_sdk::redis::{Connection, RedisParameter, RedisResult};
use spin_sdk::redis_component;

#[redis_component]
fn morsel(message: Vec<u8>) -> Result<()> {
    let (game, click) = Click::from_message(&message).map_err(|why| anyhow!("{why}"))?;
    if !click.correct {
        return Ok(());
    }
    println!("{game} +1 {}", click.food);
    let key = || RedisParameter::Binary(score_key(game).into_bytes());
    let redis = Connection::open(&pantry::redis_address())?;
    // One command, so that any number of us may add to the same score at once.
    let count = redis
        .execute("HINCRBY", &[key(), RedisParameter::Binary(click.food.into_bytes()), RedisParameter::Int64(1)])?;
    if let [RedisResult::Int64(1)] = count.as_slice() {
        let life = i64::try_from(SCORE_LIFE.as_secs()).unwrap_or(i64::MAX);
        redis.execute("EXPIRE", &[key(), RedisParameter::Int64(life)])?;
    }
    Ok(())
}
