//! What the modules of Whiskers agree on: the foods, the keys in Redis, and the message of a click.
//!
//! Nothing here knows an SDK, so modules of either generation of WASI use it. Modules in other languages spell the same
//! keys out for themselves; `README.md` has the list.

use std::time::Duration;

use http::{Response, StatusCode, header};
use serde::{Deserialize, Serialize};
pub use ulid::Ulid;

/// What Captain Quince may ask for.
pub const FOODS: [&str; 4] = ["tuna", "prawn", "chicken", "cream"];

/// How long a game lasts.
pub const GAME: Duration = Duration::from_secs(30);

/// How long after its start a game's clicks still count: a click of the last moment has a way to go.
pub const SESSION_LIFE: Duration = Duration::from_secs(32);

/// How long the score of a game is kept.
pub const SCORE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where `tally` publishes every click and `morsel` listens; the label `bireme.redis.subscribe` names it too.
pub const CHANNEL: &str = "whiskers:clicks";

/// Prefix of the keys of scores: one hash a game, food to right answers.
pub const SCORES: &str = "whiskers:score:";

/// The sorted set of the best games, and the hash of who played them.
pub const HIGHSCORES: &str = "whiskers:highscores";
pub const HIGHSCORE_NAMES: &str = "whiskers:highscores:names";

/// There while the game is not over.
pub fn session_key(game: Ulid) -> String {
    format!("whiskers:session:{game}")
}

/// The hash of a game's right answers by food.
pub fn score_key(game: Ulid) -> String {
    format!("{SCORES}{game}")
}

/// The address of Redis: `REDIS_ADDRESS` of the environment, or the service's name in the app file.
pub fn redis_address() -> String {
    std::env::var("REDIS_ADDRESS").unwrap_or_else(|_| "redis://redis:6379".to_owned())
}

/// One click, as it travels from `tally` to `morsel`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Click {
    pub ulid: String,
    pub food: String,
    pub correct: bool,
}

impl Click {
    /// Reads and checks the query of `/tally`.
    ///
    /// # Errors
    /// A sentence for the player, naming the parameter that is missing, repeated, unknown or malformed.
    pub fn from_query(query: &str) -> Result<(Ulid, Self), String> {
        let [mut ulid, mut food, mut correct] = [None; 3];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "ulid" => &mut ulid,
                "food" => &mut food,
                "correct" => &mut correct,
                other => return Err(format!("{other:?} is not a parameter of /tally: send ulid, food and correct")),
            };
            if slot.replace(value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        let missing = |name: &str| format!("{name} is missing: send ulid, food and correct");
        let game = game(ulid.ok_or_else(|| missing("ulid"))?)?;
        let food = known_food(food.ok_or_else(|| missing("food"))?)?;
        let correct = match correct.ok_or_else(|| missing("correct"))? {
            "true" => true,
            "false" => false,
            other => return Err(format!("correct must be true or false, not {other:?}")),
        };
        Ok((game, Self { ulid: game.to_string(), food: food.to_owned(), correct }))
    }

    /// Reads and checks a message of the channel.
    ///
    /// # Errors
    /// What is wrong with the message.
    pub fn from_message(message: &[u8]) -> Result<(Ulid, Self), String> {
        let click: Self = serde_json::from_slice(message).map_err(|error| format!("not a click: {error}"))?;
        known_food(&click.food)?;
        Ok((game(&click.ulid)?, click))
    }
}

/// Reads the identity of a game.
///
/// # Errors
/// A sentence for the player.
pub fn game(text: &str) -> Result<Ulid, String> {
    // The crate lets the two bits beyond 128 overflow in silence.
    let fits = text.bytes().next().is_some_and(|first| matches!(first, b'0'..=b'7'));
    Ulid::from_string(text)
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| format!("{text:?} is not the ulid of a game: ask /session for one"))
}

fn known_food(food: &str) -> Result<&'static str, String> {
    FOODS
        .into_iter()
        .find(|known| *known == food)
        .ok_or_else(|| format!("{food:?} is not on the menu: it has {}", FOODS.join(", ")))
}

/// A JSON answer that nobody may keep.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response<String> {
    let body = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// A refusal: `{"error": why}`.
pub fn refuse(status: StatusCode, why: impl Into<String>) -> Response<String> {
    json(status, &serde_json::json!({ "error": why.into() }))
}

/// The refusal of a method that a module does not serve.
pub fn not_allowed(allow: &'static str) -> Response<String> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, format!("use {allow}"));
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAME: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    #[test]
    fn a_click_is_read_or_refused_by_name() {
        let check = |query: &str, expected: Result<bool, &str>| {
            let got = Click::from_query(query).map(|(_, click)| click.correct);
            match expected {
                Ok(correct) => assert_eq!(got, Ok(correct), "{query}"),
                Err(part) => assert!(got.as_ref().is_err_and(|error| error.contains(part)), "{query}: {got:?}"),
            }
        };
        check(&format!("ulid={GAME}&food=tuna&correct=true"), Ok(true));
        check(&format!("correct=false&food=cream&ulid={GAME}"), Ok(false));
        check("", Err("ulid is missing"));
        check("ulid=x&food=tuna&correct=true", Err("not the ulid"));
        check("ulid=8ZZZZZZZZZZZZZZZZZZZZZZZZZ&food=tuna&correct=true", Err("not the ulid"));
        check(&format!("ulid={GAME}&food=rope&correct=true"), Err("not on the menu"));
        check(&format!("ulid={GAME}&food=tuna&correct=1"), Err("true or false"));
        check(&format!("ulid={GAME}&food=tuna&food=tuna&correct=true"), Err("given twice"));
        check(&format!("ulid={GAME}&food=tuna&correct=true&score=9"), Err("not a parameter"));
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let (_, click) = Click::from_query(&format!("ulid={GAME}&food=tuna&correct=true")).unwrap();
        let message = serde_json::to_vec(&click).unwrap();
        assert_eq!(Click::from_message(&message).unwrap().1, click);
        assert!(Click::from_message(b"{}").is_err());
        assert!(Click::from_message(b"\xff").is_err());
    }
}
