//! `/tally?ulid=&food=&correct=`: takes one click. It is acknowledged once Redis has handed it to `morsel`.

use http::{Method, Response, StatusCode};
use pantry::{CHANNEL, Click, json, not_allowed, refuse, session_key};
use spin_sdk::http::Request;
use spin_sdk::http_service;
use spin_sdk::redis::{Connection, Error, RedisParameter, RedisResult};

#[http_service]
async fn tally(request: Request) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return not_allowed("GET, POST");
    }
    let (game, click) = match Click::from_query(request.uri().query().unwrap_or_default()) {
        Ok(read) => read,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    match deliver(&session_key(game), &click).await {
        Ok(Delivery::Heard) => {
            println!("{game} serves {}, {}", click.food, if click.correct { "right" } else { "wrong" });
            json(StatusCode::ACCEPTED, &click)
        }
        Ok(Delivery::GameOver) => {
            refuse(StatusCode::GONE, "this game is over, or never began: ask /session for a new one")
        }
        Ok(Delivery::NobodyListens) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "nobody keeps the score right now: try again")
        }
        Err(error) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, format!("the click was not counted, Redis says: {error}"))
        }
    }
}

enum Delivery {
    Heard,
    GameOver,
    NobodyListens,
}

async fn deliver(session: &str, click: &Click) -> Result<Delivery, Error> {
    let redis = Connection::open(pantry::redis_address()).await?;
    if redis.get(session).await?.is_none() {
        return Ok(Delivery::GameOver);
    }
    let message = serde_json::to_vec(click).map_err(|error| Error::Other(error.to_string()))?;
    // A channel keeps nothing: a message that no one hears is lost. PUBLISH answers how many heard it, which the SDK's
    // own `publish` does not pass on.
    let heard =
        redis.execute("PUBLISH", [RedisParameter::Binary(CHANNEL.into()), RedisParameter::Binary(message)]).await?;
    Ok(match heard.as_slice() {
        [RedisResult::Int64(0)] => Delivery::NobodyListens,
        _ => Delivery::Heard,
    })
}
