//! Work on images that is cut short at any moment, by the end of the daemon, of its client, or of the disk: everything stored is
//! whole, nothing half-made is left, and the work can be done again.
//!
//! The moments are random, and the same for the same seed: `BIREME_SEED` gives another, `BIREME_MOMENTS` more of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod full_disk;
mod in_use;
mod kept;
mod story;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use bireme_testing::Registry;
use story::{Story, write_stages};

fn nothing(_: &Story) {}

/// Takes away the image, and what the cache of builds has of it.
fn without(story: &Story) {
    story.engine.docker(["rmi", "-f", &story.name]);
    story.engine.docker(["builder", "prune", "-af"]).stdout();
}

#[test]
fn a_pull_is_cut_short() {
    let registry = Registry::start();
    let mut story = Story::begin("pull", &format!("{}/app:1", registry.host()));
    story.engine.docker(["push", "-q", &story.name]).stdout();
    story.is_cut_short(|story| story.docker(&["pull", "-q", &story.name]), without);
    story.end();
}

#[test]
fn a_load_is_cut_short() {
    let mut story = Story::begin("load", "app:1");
    let archive = story.engine.folder().join("app.tar");
    story.engine.docker(["save", "-o", archive.to_str().unwrap(), "app:1"]).stdout();
    story.is_cut_short(|story| story.docker(&["load", "-q", "-i", archive.to_str().unwrap()]), without);
    story.end();
}

#[test]
fn a_build_is_cut_short() {
    let mut story = Story::begin("build", "app:1");
    story.is_cut_short(Story::build, without);
    // With what of it the cache has.
    story.is_cut_short(Story::build, |story| drop(story.engine.docker(["rmi", "-f", &story.name])));
    story.end();
}

/// A story of a build by a client of BuildKit, which has been done once, and how it is done with further flags.
fn by_buildx(of: &str) -> (Story, impl Fn(&Story, &[&str]) -> Command + use<>) {
    let mut story = Story::begin(of, "app:1");
    let stages = write_stages(&mut story);
    let build = move |story: &Story, flags: &[&str]| {
        // The whole of it, with the folder that goes when it is dropped.
        let stages = &stages;
        let secret = format!("id=token,src={}", stages.secret.display());
        let mut command = story.engine.buildx(["build", "-q", "--secret", &secret]);
        command.args(flags).arg(stages.context.path());
        command
    };
    story.engine.run(build(&story, &["-t", &story.name])).stdout();
    story.printed = story.run().stdout().to_owned();
    (story, build)
}

#[test]
fn a_build_by_a_client_of_buildkit_is_cut_short() {
    let (mut story, build) = by_buildx("buildx");
    let tagged = |story: &Story| build(story, &["-t", &story.name]);
    story.is_cut_short(tagged, without);
    story.is_cut_short(tagged, |story| drop(story.engine.docker(["rmi", "-f", &story.name])));
    story.end();
}

#[test]
fn what_a_build_gives_away_is_cut_short() {
    let registry = Registry::start();
    let (mut story, build) = by_buildx("outputs");
    let archive = story.engine.folder().join("app.tar");
    let archived = format!("type=oci,dest={}", archive.display());
    story.is_cut_short(|story| build(story, &["-o", &archived]), without);
    let pushed = format!("{}/pushed:1", registry.host());
    let cache = format!("type=registry,mode=max,ref={}/cache:1", registry.host());
    let from = format!("type=registry,ref={}/cache:1", registry.host());
    let push = |story: &Story| build(story, &["--push", "-t", &pushed, "--cache-to", &cache, "--cache-from", &from]);
    story.is_cut_short(push, |story| drop(story.engine.docker(["builder", "prune", "-af"])));
    story.engine.docker(["rmi", "-f", &pushed]);
    assert_eq!(story.engine.docker(["run", "--rm", &pushed]).stdout(), story.printed, "what came there is whole");
    story.end();
}

#[test]
fn a_push_is_cut_short() {
    let registry = Registry::start();
    let mut story = Story::begin("push", &format!("{}/app:1", registry.host()));
    // Each time to a repository that has nothing of it.
    let turn = AtomicUsize::new(0);
    let next = |story: &Story| {
        let turn = turn.fetch_add(1, Ordering::Relaxed) + 1;
        story.engine.docker(["tag", &story.name, &format!("{}/other{turn}:1", registry.host())]).stdout();
    };
    let push = |story: &Story| {
        let turn = turn.load(Ordering::Relaxed);
        story.docker(&["push", "-q", &format!("{}/other{turn}:1", registry.host())])
    };
    story.is_cut_short(push, next);
    // What came there is whole.
    let last = format!("{}/other{}:1", registry.host(), turn.load(Ordering::Relaxed));
    for id in story.engine.docker(["images", "-aq"]).stdout().lines() {
        story.engine.docker(["rmi", "-f", id]);
    }
    story.engine.docker(["pull", "-q", &last]).stdout();
    assert_eq!(story.engine.docker(["run", "--rm", &last]).stdout(), story.printed);
    story.end();
}

#[test]
fn a_prune_is_cut_short() {
    let mut story = Story::begin("prune", "app:1");
    let archive = story.engine.folder().join("app.tar");
    story.engine.docker(["save", "-o", archive.to_str().unwrap(), "app:1", "busybox"]).stdout();
    let full = |story: &Story| {
        story.engine.docker(["load", "-q", "-i", archive.to_str().unwrap()]).stdout();
        story.engine.run(story.build()).stdout();
    };
    story.is_cut_short(|story| story.docker(&["system", "prune", "-af"]), full);
    story.is_cut_short(|story| story.docker(&["rmi", "-f", "busybox"]), full);
    story.is_cut_short(|story| story.docker(&["image", "prune", "-af"]), full);
    full(&story);
    assert_eq!(story.run().stdout(), story.printed);
    story.end();
}

#[test]
fn an_import_and_a_commit_are_cut_short() {
    let mut story = Story::begin("import", "app:1");
    let archive = story.engine.folder().join("tree.tar");
    story.engine.docker(["create", "--name", "cc", "app:1"]).stdout();
    story.engine.docker(["export", "-o", archive.to_str().unwrap(), "cc"]).stdout();
    story.engine.docker(["rm", "cc"]).stdout();
    story.is_cut_short(|story| story.docker(&["import", archive.to_str().unwrap(), "imported:1"]), nothing);
    let imported =
        story.engine.docker(["run", "--rm", "imported:1", "sh", "-c", "cat $(find /data -type f | sort) | md5sum"]);
    assert_eq!(imported.stdout(), story.printed);
    story.end();
}
