//! Many games at once. What counts is the end: every score in Redis is what was acknowledged, not one more or less.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bireme_api::client::Client;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::connection::Connection;

/// One click in this many is a wrong food.
const CLUMSINESS: u64 = 7;
/// How long the last clicks may take from the channel to the score.
const SETTLE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
pub(crate) struct Session {
    pub(crate) ulid: String,
    pub(crate) seconds: u64,
    pub(crate) foods: Vec<String>,
    pub(crate) demands: Vec<Demand>,
}

#[derive(Deserialize)]
pub(crate) struct Demand {
    pub(crate) food: String,
    /// Milliseconds from the start.
    pub(crate) at: u64,
}

#[derive(Deserialize)]
pub(crate) struct Score {
    pub(crate) total: u64,
}

/// One game as its player saw it.
pub(crate) struct Game {
    pub(crate) ulid: String,
    /// Right answers that were acknowledged: what the score must be.
    pub(crate) right: u64,
}

#[derive(Default)]
struct Played {
    games: Vec<Game>,
    /// Acknowledged clicks, right and wrong: how long each took.
    latencies: Vec<Duration>,
    failures: Vec<String>,
}

pub(crate) async fn run(port: u16, players: u64, length: Duration, engine: Option<&Client>) -> Result<()> {
    let before = instances(engine).await;
    let began = Instant::now();
    let mut crowd = JoinSet::new();
    for player in 0..players {
        crowd.spawn(async move { play(port, player, began + length).await });
    }
    let mut all = Played::default();
    while let Some(played) = crowd.join_next().await {
        let played = played.context("a player fell overboard")?;
        all.games.extend(played.games);
        all.latencies.extend(played.latencies);
        all.failures.extend(played.failures);
    }
    let took = began.elapsed();
    let wrong = wrong_scores(port, &all.games).await?;
    let started = before.zip(instances(engine).await).map(|(before, after)| after.saturating_sub(before));
    tell(&all, players, took, started);

    for failure in all.failures.iter().take(5) {
        println!("  failed: {failure}");
    }
    for line in wrong.iter().take(10) {
        println!("  {line}");
    }
    ensure!(wrong.is_empty(), "{} of {} scores are wrong", wrong.len(), all.games.len());
    ensure!(all.failures.is_empty(), "{} requests failed", all.failures.len());
    ensure!(!all.latencies.is_empty(), "not one click was acknowledged");
    println!("every score is what was acknowledged: none lost, none counted twice");
    Ok(())
}

/// Begins a game and asks how the module `session` sees it.
pub(crate) async fn begin(connection: &mut Connection) -> Result<Session> {
    let answer = connection.send("POST", "/session").await?;
    ensure!(answer.status() == 200, "/session answered {}: {}", answer.status(), text(answer.body()));
    serde_json::from_slice(answer.body()).context("/session answered something else than a session")
}

/// Plays one game after the other until `end`.
async fn play(port: u16, player: u64, end: Instant) -> Played {
    let mut played = Played::default();
    let mut connection = Connection::to_port(port);
    let mut dice = player.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while Instant::now() < end {
        let session = match begin(&mut connection).await {
            Ok(session) => session,
            Err(error) => {
                played.failures.push(format!("{error:#}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let began = Instant::now();
        let end = end.min(began + Duration::from_secs(session.seconds));
        let mut game = Game { ulid: session.ulid.clone(), right: 0 };
        while Instant::now() < end {
            let wanted = wanted(&session, began.elapsed());
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let food = match dice >> 33 {
                clumsy if clumsy % CLUMSINESS == 0 => {
                    &session.foods[usize::try_from(clumsy).unwrap_or(0) / 7 % session.foods.len()]
                }
                _ => wanted,
            };
            let correct = food == wanted;
            let clicked = Instant::now();
            match click(&mut connection, &session.ulid, food, correct).await {
                Ok(()) => {
                    played.latencies.push(clicked.elapsed());
                    game.right += u64::from(correct);
                }
                Err(error) => {
                    played.failures.push(format!("{error:#}"));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        played.games.push(game);
    }
    played
}

/// What the captain wants at this moment of the game.
pub(crate) fn wanted(session: &Session, at: Duration) -> &str {
    let now = session.demands.iter().rev().find(|demand| u128::from(demand.at) <= at.as_millis());
    now.map_or("", |demand| &demand.food)
}

/// Clicks, and waits for the acknowledgement.
pub(crate) async fn click(connection: &mut Connection, ulid: &str, food: &str, correct: bool) -> Result<()> {
    let answer = connection.send("POST", &format!("/tally?ulid={ulid}&food={food}&correct={correct}")).await?;
    ensure!(answer.status().is_success(), "/tally answered {}: {}", answer.status(), text(answer.body()));
    Ok(())
}

/// The scores that are not what was acknowledged, a sentence each. Waits for the last clicks to be counted.
pub(crate) async fn wrong_scores(port: u16, games: &[Game]) -> Result<Vec<String>> {
    let mut connection = Connection::to_port(port);
    let patience = Instant::now() + SETTLE;
    let mut wrong = Vec::new();
    for game in games {
        let counted = loop {
            let counted = score(&mut connection, &game.ulid).await?;
            if counted >= game.right || Instant::now() > patience {
                break counted;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if counted != game.right {
            wrong.push(format!(
                "game {}: {} right answers were acknowledged, {counted} are in the score",
                game.ulid, game.right
            ));
        }
    }
    Ok(wrong)
}

/// The score of a game in all.
pub(crate) async fn score(connection: &mut Connection, ulid: &str) -> Result<u64> {
    let answer = connection.send("GET", &format!("/score?ulid={ulid}")).await?;
    if answer.status() != 200 {
        bail!("/score answered {}: {}", answer.status(), text(answer.body()));
    }
    let score: Score = serde_json::from_slice(answer.body()).context("/score answered something else than a score")?;
    Ok(score.total)
}

/// Instances started by all components since their start; `None` without an engine to ask.
async fn instances(engine: Option<&Client>) -> Option<u64> {
    match engine?.workloads(None).await {
        Ok(workloads) => Some(workloads.iter().filter_map(|one| Some(one.invocations.as_ref()?.started)).sum()),
        Err(error) => {
            eprintln!("whiskers-bots: the engine does not tell how many instances were started: {error}");
            None
        }
    }
}

fn tell(played: &Played, players: u64, took: Duration, started: Option<u64>) {
    let mut latencies = played.latencies.clone();
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    };
    let clicks = latencies.len();
    println!("players            {players}");
    println!("games              {}", played.games.len());
    println!("clicks             {clicks} in {:.1} s", took.as_secs_f64());
    println!("clicks a second    {:.0}", clicks as f64 / took.as_secs_f64());
    println!("latency            p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.9), at(0.99));
    println!("right answers      {}", played.games.iter().map(|game| game.right).sum::<u64>());
    match started {
        Some(started) => println!("instances started  {started}"),
        None => println!("instances started  unknown: name the engine with --host"),
    }
    println!("failures           {}", played.failures.len());
}

pub(crate) fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}
