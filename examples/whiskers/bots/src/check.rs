//! Every module once, with good and bad requests, and one short game.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::Response;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::play::{Game, begin, click, text, wanted, wrong_scores};

/// Of the thirty seconds of a game, what this one plays.
const GAME: Duration = Duration::from_secs(3);
const NOBODY: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

pub(crate) async fn run(port: u16, token: &str) -> Result<()> {
    let mut connection = Connection::to_port(port);
    site(&mut connection).await.context("modules home and files")?;
    refusals(&mut connection).await.context("bad requests")?;
    let game = game(&mut connection).await.context("modules session and tally")?;
    let wrong = wrong_scores(port, std::slice::from_ref(&game)).await.context("module scoreboard")?;
    ensure!(wrong.is_empty(), "modules morsel and scoreboard: {}", wrong.join("; "));
    table(&mut connection, &game).await.context("module highscore")?;
    reset(&mut connection, &game, token).await.context("module reset")?;
    println!("all eight modules do their work; one game brought {} morsels, each counted once", game.right);
    Ok(())
}

fn expect(answer: &Response<Bytes>, status: u16, what: &str) -> Result<()> {
    ensure!(answer.status() == status, "{what}: expected {status}, got {}: {}", answer.status(), text(answer.body()));
    Ok(())
}

fn header<'a>(answer: &'a Response<Bytes>, name: &str) -> &'a str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn site(connection: &mut Connection) -> Result<()> {
    let answer = connection.send("GET", "/").await?;
    expect(&answer, 302, "GET /")?;
    let page = header(&answer, "location").to_owned();
    let answer = connection.send("GET", &page).await?;
    expect(&answer, 200, &page)?;
    ensure!(header(&answer, "content-type").starts_with("text/html"), "the page is no HTML");
    ensure!(text(answer.body()).contains("<!doctype html>"), "the page is not the page");
    let whole = answer.body().clone();
    let tag = header(&answer, "etag").to_owned();

    let answer = connection.send_with("GET", &page, &[("if-none-match", &tag)], "").await?;
    expect(&answer, 304, "the page again, unchanged")?;
    let answer = connection.send_with("GET", &page, &[("range", "bytes=10-19")], "").await?;
    expect(&answer, 206, "ten bytes of the page")?;
    ensure!(answer.body() == &whole[10..20], "ten other bytes of the page than were asked for");
    let answer = connection.send_with("GET", &page, &[("range", "bytes=99999999-")], "").await?;
    expect(&answer, 416, "bytes that the page does not have")?;
    let answer = connection.send("HEAD", &page).await?;
    expect(&answer, 200, "the head of the page")?;
    ensure!(header(&answer, "etag") == tag && answer.body().is_empty(), "the head of the page is that of another");
    for (path, kind) in
        [("/style.css", "text/css"), ("/js/main.js", "text/javascript"), ("/art/tuna.svg", "image/svg+xml")]
    {
        let answer = connection.send("GET", path).await?;
        expect(&answer, 200, path)?;
        ensure!(
            header(&answer, "content-type").starts_with(kind),
            "{path} is served as {:?}",
            header(&answer, "content-type")
        );
    }
    for path in
        ["/nothing", "/%2e%2e/compose.yaml", "/art/%2e%2e%2f%2e%2e%2fcompose.yaml", "/.git/config", "/art//tuna.svg"]
    {
        expect(&connection.send("GET", path).await?, 404, path)?;
    }
    expect(&connection.send("DELETE", &page).await?, 405, "DELETE of the page")
}

async fn refusals(connection: &mut Connection) -> Result<()> {
    let known = format!("/tally?ulid={NOBODY}&food=tuna&correct=true");
    for (path, status) in [
        ("/tally", 400),
        ("/tally?ulid=x&food=tuna&correct=true", 400),
        ("/tally?ulid=01ARZ3NDEKTSV4RRFFQ69G5FAV&food=rope&correct=true", 400),
        ("/tally?ulid=01ARZ3NDEKTSV4RRFFQ69G5FAV&food=tuna&correct=perhaps", 400),
        (known.as_str(), 410),
        ("/score", 400),
        ("/score?ulid=x", 400),
    ] {
        expect(&connection.send("GET", path).await?, status, path)?;
    }
    Ok(())
}

async fn game(connection: &mut Connection) -> Result<Game> {
    let session = begin(connection).await?;
    ensure!(session.ulid.len() == 26, "{:?} is no ulid", session.ulid);
    ensure!(session.demands.first().is_some_and(|first| first.at == 0), "the captain wants nothing at first");
    for pair in session.demands.windows(2) {
        ensure!(
            pair[0].food != pair[1].food && pair[0].at < pair[1].at,
            "the captain wants the same food twice in a row"
        );
    }
    let began = Instant::now();
    let mut game = Game { ulid: session.ulid.clone(), right: 0 };
    while began.elapsed() < GAME {
        let food = wanted(&session, began.elapsed());
        click(connection, &session.ulid, food, true).await?;
        game.right += 1;
        let other = session.foods.iter().find(|other| *other != food).context("there is one food only")?;
        click(connection, &session.ulid, other, false).await?;
    }
    Ok(game)
}

async fn table(connection: &mut Connection, game: &Game) -> Result<()> {
    let sign = async |connection: &mut Connection, entry: Value| {
        connection.send_with("POST", "/highscore", &[("content-type", "application/json")], entry.to_string()).await
    };
    for (entry, status) in [
        (json!({}), 400),
        (json!({ "ulid": game.ulid, "name": "TOOLONG" }), 400),
        (json!({ "ulid": "x", "name": "BOT" }), 400),
        (json!({ "ulid": NOBODY, "name": "BOT" }), 404),
        // What the player says of the score is not asked for and not heard.
        (json!({ "ulid": game.ulid, "name": "bot", "score": 1_000_000 }), 200),
        (json!({ "ulid": game.ulid, "name": "BOB" }), 409),
    ] {
        let what = entry.to_string();
        expect(&sign(connection, entry).await?, status, &what)?;
    }
    let answer = connection.send("GET", "/highscore").await?;
    expect(&answer, 200, "GET /highscore")?;
    let table: Value = serde_json::from_slice(answer.body())?;
    let entry = json!({ "ulid": game.ulid, "name": "BOT", "score": game.right });
    ensure!(table["scores"].as_array().is_some_and(|scores| scores.contains(&entry)), "{entry} is not in {table}");
    Ok(())
}

async fn reset(connection: &mut Connection, game: &Game, token: &str) -> Result<()> {
    let reset = async |connection: &mut Connection, token: Option<&str>| {
        let sent = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = sent.iter().map(|sent| ("authorization", sent.as_str())).collect();
        connection.send_with("POST", "/reset", &headers, "").await
    };
    expect(&reset(connection, None).await?, 401, "POST /reset without a token")?;
    expect(&reset(connection, Some("wrong")).await?, 401, "POST /reset with a wrong token")?;
    expect(&connection.send("GET", "/reset").await?, 405, "GET /reset")?;
    expect(&reset(connection, Some(token)).await?, 200, "POST /reset with the token")?;
    let left = crate::play::score(connection, &game.ulid).await?;
    ensure!(left == 0, "after the reset the score is still {left}");
    let answer = connection.send("GET", "/highscore").await?;
    ensure!(answer.body().as_ref() == br#"{"scores": []}"#, "after the reset the table is {}", text(answer.body()));
    Ok(())
}
