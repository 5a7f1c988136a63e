//! `POST /reset`: clears every score and the high-score table. Only for who holds the operator's token
//! (`OPERATOR_TOKEN` of the environment), sent as `Authorization: Bearer TOKEN`.

use http::header::{AUTHORIZATION, HeaderMap};
use http::{Method, Response, StatusCode};
use pantry::{HIGHSCORE_NAMES, HIGHSCORES, SCORES, json, not_allowed, refuse};
use serde_json::json;
use spin_sdk::http::Request;
use spin_sdk::http_service;
use spin_sdk::redis::{Connection, Error, RedisParameter, RedisResult};
use subtle::ConstantTimeEq;

/// In one script, so that no score slips in between. Answers how many games were forgotten.
const CLEAR: &str = "
    local cursor, games = '0', 0
    repeat
        local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1] .. '*', 'COUNT', 1000)
        cursor = page[1]
        for _, key in ipairs(page[2]) do games = games + redis.call('UNLINK', key) end
    until cursor == '0'
    redis.call('UNLINK', KEYS[1], KEYS[2])
    return games";

#[http_service]
async fn reset(request: Request) -> Response<String> {
    if *request.method() != Method::POST {
        return not_allowed("POST");
    }
    let token = std::env::var("OPERATOR_TOKEN").unwrap_or_default();
    if token.is_empty() {
        return refuse(StatusCode::FORBIDDEN, "no operator's token is set: start the app with WHISKERS_OPERATOR_TOKEN");
    }
    if !holds(request.headers(), &token) {
        return refuse(StatusCode::UNAUTHORIZED, "only the operator may do this: send Authorization: Bearer TOKEN");
    }
    match clear().await {
        Ok(games) => json(StatusCode::OK, &json!({ "cleared": games })),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, format!("the scores stay, Redis says: {error}")),
    }
}

/// Compares in a time that tells nothing of where the two differ.
fn holds(headers: &HeaderMap, token: &str) -> bool {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .is_some_and(|sent| bool::from(sent.ct_eq(token.as_bytes())))
}

async fn clear() -> Result<i64, Error> {
    let text = |text: &str| RedisParameter::Binary(text.as_bytes().to_vec());
    let arguments = [text(CLEAR), RedisParameter::Int64(2), text(HIGHSCORES), text(HIGHSCORE_NAMES), text(SCORES)];
    match Connection::open(pantry::redis_address()).await?.execute("EVAL", arguments).await?.as_slice() {
        [RedisResult::Int64(games)] => Ok(*games),
        other => Err(Error::Other(format!("an answer that was not expected: {other:?}"))),
    }
}
