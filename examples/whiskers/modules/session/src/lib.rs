//! `/session`: begins a game. Answers a new ulid and the menu, which says what Captain Quince will want and when.

use http::{Response, StatusCode};
use pantry::{FOODS, GAME, SESSION_LIFE, Ulid, json, not_allowed, refuse, session_key};
use serde::Serialize;
use spin_sdk::http::{Method, Request};
use spin_sdk::http_component;
use spin_sdk::redis::{Connection, RedisParameter};

/// How long she wants the same food, at least and at most, in milliseconds.
const PATIENCE: (u64, u64) = (700, 2300);

#[derive(Serialize)]
struct Session {
    ulid: String,
    seconds: u64,
    foods: [&'static str; 4],
    demands: Vec<Demand>,
}

#[derive(Serialize)]
struct Demand {
    food: &'static str,
    /// Milliseconds from the start of the game.
    at: u64,
}

#[http_component]
fn session(request: Request) -> Response<String> {
    if !matches!(request.method(), Method::Get | Method::Post) {
        return not_allowed("GET, POST");
    }
    let game = Ulid::generate();
    if let Err(error) = remember(game) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, format!("the game cannot begin, Redis says: {error}"));
    }
    let demands = menu(game);
    println!("{game} begins");
    json(StatusCode::OK, &Session { ulid: game.to_string(), seconds: GAME.as_secs(), foods: FOODS, demands })
}

/// Redis forgets the session by itself: that is what ends the game for `tally`.
fn remember(game: Ulid) -> Result<(), spin_sdk::redis::Error> {
    let life = i64::try_from(SESSION_LIFE.as_millis()).unwrap_or(i64::MAX);
    let text = |text: &str| RedisParameter::Binary(text.as_bytes().to_vec());
    Connection::open(&pantry::redis_address())?
        .execute("SET", &[text(&session_key(game)), text("open"), text("PX"), RedisParameter::Int64(life)])?;
    Ok(())
}

/// What she wants, from the start to the end of the game; never the same food twice in a row.
fn menu(game: Ulid) -> Vec<Demand> {
    let mut dice = Dice(game.0 as u64);
    let game_ms = GAME.as_millis() as u64;
    let mut demands: Vec<Demand> = Vec::new();
    let mut at = 0;
    while at < game_ms {
        let others: Vec<_> =
            FOODS.into_iter().filter(|food| demands.last().is_none_or(|last| last.food != *food)).collect();
        demands.push(Demand { food: others[dice.roll(others.len() as u64) as usize], at });
        at += PATIENCE.0 + dice.roll(PATIENCE.1 - PATIENCE.0);
    }
    demands
}

/// SplitMix64, seeded with the random part of the ulid: good enough for a cat's mind.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % sides
    }
}
