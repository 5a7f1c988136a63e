//! `demo`: the example app on an engine of its own, from nothing; with `--check`, played and taken down again.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bireme_testing::Engine;

use crate::{task_images, task_setup, task_whiskers, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Use the binaries that stand in target/debug: another set of packages would mean other features, and compiling
    /// the dependencies once more
    #[arg(long, hide = true)]
    built: bool,
    /// Play one game through the API, take everything down, and fail unless all of it worked and nothing remains
    #[arg(long)]
    check: bool,
    /// With --check: play a game in a headless browser too, and keep a screenshot in target/screenshots
    #[arg(long, requires = "check")]
    browser: bool,
    /// With --check: this many games at once for ten seconds besides
    #[arg(long, requires = "check", value_name = "N")]
    players: Option<u16>,
    /// Port of this machine that the app answers on
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    task_setup::packages()?;
    task_whiskers::build()?;
    if !args.built {
        workspace::run(&mut workspace::cargo(&["build", "--locked", "--workspace", "--bins"]))?;
    }
    if !workspace::made("images/redis.tar").is_file() {
        task_images::run()?;
    }
    if args.check { check(args) } else { start(args) }
}

fn app() -> PathBuf {
    workspace::root().join("examples/whiskers")
}

/// On the user's own engine, which the CLI starts when none answers.
fn start(args: &Args) -> Result<()> {
    let bireme = workspace::bin("bireme");
    workspace::run(workspace::program(&bireme).args(["load", "--input"]).arg(workspace::made("images/redis.tar")))?;
    let mut up = workspace::program(&bireme);
    up.args(["up", "--detach", "--build", "--wait"]).current_dir(app()).env("WHISKERS_PORT", args.port.to_string());
    workspace::run(&mut up)?;
    let bireme = bireme.display();
    println!(
        "\nWhiskers is served: play it at http://127.0.0.1:{port}/\n\n\
         While you play, in examples/whiskers:\n  \
         {bireme} top                          every module and Redis, live: instances, latency, memory\n  \
         {bireme} logs -f                      what they say\n  \
         {bireme} ps                           what runs (docker ps shows the same)\n\n\
         Under load:    ./x whiskers --players 50 --seconds 30 --port {port}\n\
         Take it down:  {bireme} down -v       in examples/whiskers",
        port = args.port,
    );
    Ok(())
}

/// On a private engine, which leaves nothing behind.
fn check(args: &Args) -> Result<()> {
    let engine = Engine::start();
    let played = play(args, &engine);
    if played.is_err() {
        eprintln!("\n-- the app's logs");
        let _ = bireme(&engine, &["logs", "--tail", "20"], &[]);
        eprintln!("-- the daemon's log\n{}", last_lines(&engine.daemon_log()));
    }
    let down = bireme(&engine, &["down", "--volumes"], &[]).context("the app does not go down");
    played.and(down)?;
    for list in [&["ps", "-aq"] as &[_], &["volume", "ls", "-q"], &["network", "ls", "-q", "--filter", "type=custom"]] {
        let left = engine.docker(list);
        if !left.stdout().is_empty() {
            bail!("after `bireme down --volumes`, `docker {}` still lists:\n{}", list.join(" "), left.stdout());
        }
    }
    // Fails when a process, mount, link, rule or control group remains.
    engine.finish();
    println!("demo --check: played, taken down, nothing remains");
    Ok(())
}

fn play(args: &Args, engine: &Engine) -> Result<()> {
    engine.load("redis");
    // Known to this run only: the operator's token is asked for with every reset.
    let token = format!("demo-{}", std::process::id());
    let port = args.port.to_string();
    bireme(
        engine,
        &["up", "--detach", "--build", "--wait"],
        &[("WHISKERS_PORT", &port), ("WHISKERS_OPERATOR_TOKEN", &token)],
    )?;
    let bots = workspace::bin("whiskers-bots");
    workspace::run(workspace::program(&bots).args(["check", "--port", &port, "--token", &token]))?;
    if let Some(players) = args.players {
        let load =
            ["play", "--port", &port, "--players", &players.to_string(), "--seconds", "10", "--host", &engine.host()];
        workspace::run(workspace::program(&bots).args(load))?;
    }
    if args.browser {
        let page = format!("http://127.0.0.1:{port}/");
        let pictures = workspace::made("screenshots");
        workspace::run(
            workspace::program("node")
                .args(["play.mjs", &page])
                .arg(pictures)
                .current_dir(workspace::root().join("tests/browser")),
        )?;
    }
    Ok(())
}

/// Our own command line on this engine, in the folder of the app, seen as it goes.
fn bireme(engine: &Engine, arguments: &[&str], settings: &[(&str, &str)]) -> Result<()> {
    let mut command = engine.command(workspace::bin("bireme"), arguments);
    workspace::run(command.current_dir(app()).envs(settings.iter().copied()))
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
