//! Builds: their commands, their cache, their containers.

use bireme_testing::eventually;

use super::Story;

#[test]
fn commands_of_a_build_run_on_what_came_before() {
    let story = Story::begin();
    let dockerfile = r#"FROM busybox AS base
ARG WHO=nobody
ENV GREETING=hello
RUN echo "$GREETING $WHO" > /greeting && ln /greeting /same && rm /etc/passwd; echo out; echo err >&2
SHELL ["/bin/sh", "-ec"]
RUN mkdir /deep && chown 7:8 /deep && chmod 1711 /deep
RUN ["sh", "-c", "echo exec > /deep/form"]
RUN true
USER 1000:1001
WORKDIR /work
RUN id -u > /tmp/who; pwd >> /tmp/who
FROM busybox
COPY --from=base /greeting /tmp/who /
RUN cat /greeting /who > /both
"#;
    let args = ["-t", "stages", "--build-arg", "WHO=you", "--target", "base"];
    let log = story.dockerfile(dockerfile, &args);
    let text = log.stdout();
    assert!(text.contains(" ---> Running in ") && text.contains(" ---> Removed intermediate container "), "{text}");
    assert!(text.contains("out\n") && text.contains("\u{1b}[91merr\n\u{1b}[0m"), "{text}");
    story.prints(&["run", "--rm", "stages", "cat", "/greeting", "/deep/form"], "hello you\nexec\n");
    story.prints(&["run", "--rm", "stages", "stat", "-c", "%a %u %g", "/deep"], "1711 7 8\n");
    story.prints(&["run", "--rm", "stages", "stat", "-c", "%h", "/same"], "2\n");
    story.engine.docker(["run", "--rm", "stages", "ls", "/etc/passwd"]).fails(1, "No such file");
    story.prints(&["run", "--rm", "stages", "cat", "/tmp/who"], "1000\n/work\n");
    let history = story.engine.docker(["history", "--no-trunc", "--format", "{{.CreatedBy}}", "stages"]);
    assert!(history.stdout().contains("|1 WHO=you /bin/sh -c echo \"$GREETING $WHO\" > /greeting"), "{history}");

    story.dockerfile(dockerfile, &["-t", "whole"]).stdout();
    story.prints(&["run", "--rm", "whole", "cat", "/both"], "hello nobody\n1000\n/work\n");
    story.end();
}

#[test]
fn a_command_is_run_again_only_when_something_before_it_changed() {
    let story = Story::begin();
    // Says something new each time it runs.
    let dockerfile = "FROM busybox\nCOPY input /\nRUN cat /input /proc/sys/kernel/random/uuid > /made\nRUN true\n";
    let build = |input: &str, args: &[&str]| {
        let all = [&["-t", "cached"], args].concat();
        let log = story.build(&[("Dockerfile", dockerfile), ("input", input)], &all);
        let made = story.engine.docker(["run", "--rm", "cached", "cat", "/made"]).stdout().to_owned();
        (log.stdout().matches("Using cache").count(), made)
    };
    let (hits, first) = build("one\n", &[]);
    assert_eq!(hits, 0);
    assert_eq!(build("one\n", &[]), (3, first.clone()), "as it was");
    let (hits, other) = build("two\n", &[]);
    assert_eq!(hits, 0);
    assert_ne!(other, first);
    assert_eq!(build("one\n", &[]), (3, first.clone()), "both are kept");
    assert_ne!(build("one\n", &["--no-cache"]).1, first);
    let latest = build("one\n", &[]).1;
    assert_eq!(build("one\n", &["--cache-from", "cached"]), (3, latest), "of that image");
    assert_eq!(build("one\n", &["--cache-from", "nosuch"]).0, 0, "and of no other");

    // The cache alone keeps what a build left behind that failed later.
    let forced = &["--force-rm"];
    story
        .dockerfile("FROM busybox\nRUN echo kept > /kept\nRUN exit 9\n", forced)
        .fails(9, "returned a non-zero code: 9");
    let log = story.dockerfile("FROM busybox\nRUN echo kept > /kept\nRUN cat /kept; exit 9\n", forced);
    log.fails(9, "returned a non-zero code: 9");
    assert!(log.raw_stdout().contains("Using cache") && log.raw_stdout().contains("kept\n"), "{log}");
    let layers = || std::fs::read_dir(story.engine.data_root().join("images/layers/sha256")).unwrap().count();
    let before = layers();
    assert!(story.engine.docker(["builder", "prune", "-f"]).stdout().contains("Total reclaimed space"));
    eventually("layers that nothing needs are gone", || (layers() < before).then_some(()));
    story.engine.docker(["run", "--rm", "cached", "cat", "/made"]).stdout();
    story.end();
}

#[test]
fn commands_are_run_as_the_build_was_told() {
    let story = Story::begin();
    let dockerfile = "FROM busybox\nRUN cat /proc/net/dev /etc/hosts; stat -c mem=%s /dev/shm; df -m /dev/shm; \
                      cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; ulimit -n\n";
    let args = [
        "--network",
        "none",
        "--add-host",
        "other:10.1.2.3",
        "--memory",
        "64m",
        "--shm-size",
        "8m",
        "--ulimit",
        "nofile=77:77",
    ];
    let log = story.dockerfile(dockerfile, &args);
    let text = log.stdout();
    assert!(!text.contains("eth0") && text.contains("10.1.2.3\tother"), "{text}");
    assert!(text.contains("\n77\n"), "{text}");
    assert!(text.lines().any(|line| line.contains("/dev/shm") && line.contains(" 8 ")), "{text}");
    let log = story.dockerfile("FROM busybox\nRUN grep eth0 /proc/net/dev\n", &[]);
    assert!(log.stdout().contains("eth0"), "on a network by default: {log}");
    story.engine.docker(["network", "create", "yard"]).stdout();
    story.dockerfile("FROM busybox\nRUN ip addr\n", &["--network", "yard"]).stdout();
    story.dockerfile("FROM busybox\nRUN true\n", &["--network", "nosuch"]).fails(1, "network nosuch not found");
    story.dockerfile("FROM busybox\nRUN /no/such\n", &["--force-rm"]).fails(127, "returned a non-zero code: 127");
    story.end();
}

#[test]
fn what_an_image_leaves_to_others_is_done_when_they_are_built() {
    let story = Story::begin();
    let log = story.dockerfile("FROM busybox\nONBUILD COPY word /\nONBUILD RUN cat /word > /done\n", &["-t", "base"]);
    log.stdout();
    let log = story.build(&[("Dockerfile", "FROM base\nRUN cat /done > /twice\n"), ("word", "said")], &["-t", "child"]);
    assert!(log.stdout().contains("# Executing 2 build triggers"), "{log}");
    story.prints(&["run", "--rm", "child", "cat", "/twice"], "said");
    story.prints(&["inspect", "-f", "{{.Config.OnBuild}}", "child"], "[]\n");
    story.end();
}

#[test]
fn a_build_that_is_given_up_leaves_nothing_running() {
    let mut story = Story::begin();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("Dockerfile"), "FROM busybox\nRUN echo begun; sleep 1000\n").unwrap();
    let start = |story: &Story| {
        let mut command = story.engine.command("docker", ["build", "-q"]);
        command.arg(context.path()).env("DOCKER_BUILDKIT", "0").stdout(std::process::Stdio::null());
        let child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        eventually("the command runs", || (story.engine.docker(["ps", "-q"]).stdout() != "").then_some(()));
        child
    };
    let mut client = start(&story);
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("its container is gone", || (story.engine.docker(["ps", "-aq"]).stdout() == "").then_some(()));

    // The engine dies with a build under way.
    let mut client = start(&story);
    story.engine.crash();
    client.wait().unwrap();
    story.engine.come_back();
    eventually("its container is gone", || (story.engine.docker(["ps", "-aq"]).stdout() == "").then_some(()));
    story.end();
}

#[test]
fn a_dockerfile_may_come_from_elsewhere() {
    let story = Story::begin();
    let folder = tempfile::tempdir().unwrap();
    let context = folder.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("f"), "content").unwrap();
    let aside = folder.path().join("Elsewhere");
    std::fs::write(&aside, "FROM busybox\nCOPY f /f\nRUN echo aside > /from\n").unwrap();
    let classic = |args: &[&str]| {
        let mut command = story.engine.command("docker", args);
        command.env("DOCKER_BUILDKIT", "0");
        command
    };
    let context_path = context.to_str().unwrap();
    let command = classic(&["build", "-t", "aside", "-f", aside.to_str().unwrap(), context_path]);
    story.engine.run(command).stdout();
    story.prints(&["run", "--rm", "aside", "cat", "/f", "/from"], "contentaside\n");
    std::fs::write(folder.path().join("stdin"), "FROM busybox\nCOPY f /f\nRUN echo stdin > /from\n").unwrap();
    let mut command = classic(&["build", "-t", "stdin", "-f", "-", context_path]);
    command.stdin(std::fs::File::open(folder.path().join("stdin")).unwrap());
    story.engine.run(command).stdout();
    story.prints(&["run", "--rm", "stdin", "cat", "/f", "/from"], "contentstdin\n");

    let plugin = bireme_testing::workspace().join("target/setup/docker/cli-plugins/docker-compose");
    let file = folder.path().join("compose.yaml");
    std::fs::write(
        &file,
        "services:\n  one:\n    image: composed\n    build:\n      context: context\n      dockerfile: ../Elsewhere\n",
    )
    .unwrap();
    let mut command = story.engine.command(plugin, ["-f", file.to_str().unwrap(), "build"]);
    command.env("DOCKER_BUILDKIT", "0");
    story.engine.run(command).stdout();
    story.prints(&["run", "--rm", "composed", "cat", "/f", "/from"], "contentaside\n");

    let empty = classic(&["build", "-f", "/dev/null", context_path]);
    story.engine.run(empty).fails(1, "cannot be empty");
    let empty = story.build(&[("Dockerfile", "")], &[]);
    empty.fails(1, "the Dockerfile (Dockerfile) cannot be empty");
    story.end();
}

#[test]
fn the_containers_of_a_build_stay_when_they_are_asked_to() {
    let mut story = Story::begin();
    let dockerfile = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\n";
    let log = story.dockerfile(dockerfile, &["--rm=false", "-t", "kept"]);
    assert!(!log.stdout().contains("Removed intermediate container"), "{log}");
    assert_eq!(story.engine.docker(["ps", "-aq"]).stdout().lines().count(), 2);
    story.prints(&["ps", "-q"], "");
    let last = story.engine.docker(["ps", "-lq"]).stdout().trim().to_owned();
    story.prints(&["inspect", "-f", "{{.State.ExitCode}}", &last], "0\n");
    story.engine.crash();
    story.engine.come_back();
    assert_eq!(story.engine.docker(["ps", "-aq"]).stdout().lines().count(), 2, "they are containers like any other");
    story.engine.docker(["container", "prune", "-f"]).stdout();
    // Both words: they go.
    story.dockerfile(dockerfile, &["--no-cache", "--rm=false", "--force-rm"]).stdout();
    story.end();
}

#[test]
fn a_quiet_build_that_fails_says_what_it_did() {
    let story = Story::begin();
    let failed = story.dockerfile("FROM busybox\nRUN echo before-it-fails; exit 9\n", &["-q", "--force-rm"]);
    failed.fails(9, "returned a non-zero code: 9");
    assert!(failed.to_string().contains("before-it-fails"), "{failed}");
    let built = story.dockerfile("FROM busybox\nRUN echo not said\n", &["-q"]);
    assert!(built.stdout().starts_with("sha256:") && built.stdout().lines().count() == 1, "{built}");
    story.end();
}

/// Whoever clears away what nobody uses, while a command of a build runs.
#[test]
fn what_a_build_stands_on_stays_until_it_is_over() {
    let story = Story::begin();
    let dockerfile = "FROM busybox\nENV A=2\nRUN sleep 6; ls /bin | wc -l > /count\nRUN ls /bin | wc -l >> /count\n";
    std::thread::scope(|scope| {
        let built = scope.spawn(|| story.dockerfile(dockerfile, &["-t", "built"]));
        eventually("the command runs", || (story.engine.docker(["ps", "-q"]).stdout() != "").then_some(()));
        story.engine.docker(["image", "prune", "-af"]).stdout();
        story.engine.docker(["builder", "prune", "-af"]).stdout();
        built.join().unwrap().stdout();
    });
    let counts = story.engine.docker(["run", "--rm", "built", "cat", "/count"]).stdout().to_owned();
    let counts: Vec<u32> = counts.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(counts.len() == 2 && counts[0] > 10 && counts[0] == counts[1], "{counts:?}");
    story.end();
}

#[test]
fn the_build_cache_has_no_labels_to_be_pruned_by() {
    let story = Story::begin();
    story.dockerfile("FROM busybox\nRUN echo one > /one\n", &["-t", "kept"]).stdout();
    let prune = |filters: &str| {
        let path = format!("/build/prune?all=1&filters={filters}");
        let answer = story.engine.request("POST", &path, b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["CachesDeleted"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(prune("%7B%22label%22%3A%5B%22a%22%5D%7D"), 0);
    assert_eq!(prune("%7B%22unused-for%22%3A%5B%2224h%22%5D%7D"), 0);
    assert_eq!(prune("%7B%22label!%22%3A%5B%22a%22%5D%2C%22unused-for%22%3A%5B%220s%22%5D%7D"), 1);
    story.end();
}

/// Source: moby, `builder/dockerfile/evaluator.go`, `dispatch`.
#[test]
fn the_container_of_a_command_that_failed_stays_to_be_looked_at() {
    let mut story = Story::begin();
    let dockerfile = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two; exit 9\n";
    let log = story.dockerfile(dockerfile, &[]);
    log.fails(9, "returned a non-zero code: 9");
    assert_eq!(log.raw_stdout().matches("Removed intermediate container").count(), 1, "of the one that did not: {log}");
    let left = |story: &Story| story.engine.docker(["ps", "-aq"]).stdout().trim().to_owned();
    let failed = left(&story);
    assert_eq!(failed.len(), 12, "one is left: {failed:?}");
    // It is a container like any other, with the image that it ran in, and stays one.
    for again in [false, true] {
        story.prints(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &failed], "exited 9\n");
        story.prints(&["diff", &failed], "A /two\n");
        if !again {
            story.engine.docker(["builder", "prune", "-af"]).stdout();
            story.engine.crash();
            story.engine.come_back();
        }
    }
    story.engine.docker(["commit", &failed, "looked"]).stdout();
    story.prints(&["run", "--rm", "looked", "cat", "/one", "/two"], "one\ntwo\n");
    let image = story.engine.docker(["inspect", "-f", "{{.Image}}", &failed]).stdout().trim().to_owned();
    story.engine.docker(["rmi", &image]).fails(1, "is being used by container");
    story.engine.docker(["rm", &failed]).stdout();
    story.engine.docker(["image", "prune", "-f"]).stdout();
    story.engine.docker(["image", "inspect", &image]).fails(1, "No such image");

    story.dockerfile("FROM scratch\n", &[]).fails(1, "No image was generated. Is your Dockerfile empty?");
    story.dockerfile("FROM busybox\nVOLUME []\n", &[]).fails(1, "VOLUME requires at least one argument");

    // The first command's image is the base itself.
    story.dockerfile("FROM busybox\nRUN exit 9\n", &[]).fails(9, "returned a non-zero code: 9");
    let failed = left(&story);
    story.prints(&["inspect", "-f", "{{.Config.Image}}", &failed], &{
        let base = story.engine.docker(["inspect", "-f", "{{.Id}}", "busybox"]).stdout().to_owned();
        format!("{}\n", &base["sha256:".len()..][..12])
    });
    story.engine.docker(["rm", &failed]).stdout();

    // It takes a word to have it removed, whatever is said of the others.
    for more in [&["--force-rm"][..], &["--force-rm", "--rm=false"]] {
        let log = story.dockerfile(dockerfile, &[&["--no-cache"], more].concat());
        log.fails(9, "returned a non-zero code: 9");
        assert_eq!(log.raw_stdout().matches("Removed intermediate container").count(), 2, "{log}");
        assert_eq!(left(&story), "");
    }
    story.dockerfile(dockerfile, &["--no-cache", "--rm=false"]).fails(9, "returned a non-zero code: 9");
    assert_eq!(left(&story).lines().count(), 2);
    story.engine.docker(["container", "prune", "-f"]).stdout();
    story.end();
}

/// What a link leads to may spell what the cache knows of the entries after it.
#[test]
fn the_links_of_one_context_are_not_taken_for_those_of_another() {
    use std::os::unix::fs::symlink;
    let story = Story::begin();
    let build = |tag: &str, links: &[(&str, &str)]| {
        let context = tempfile::tempdir().unwrap();
        std::fs::write(context.path().join("Dockerfile"), "FROM busybox\nCOPY . /w/\n").unwrap();
        std::fs::write(context.path().join(".dockerignore"), "Dockerfile\n.dockerignore\n").unwrap();
        for (name, target) in links {
            symlink(target, context.path().join(name)).unwrap();
        }
        let mut command = story.engine.command("docker", ["build", "-t", tag]);
        command.arg(context.path()).env("DOCKER_BUILDKIT", "0");
        story.engine.run(command).stdout();
    };
    build("one", &[("a", "x\"/w/b\" 777 0 0 [] y")]);
    build("two", &[("a", "x"), ("b", "y")]);
    story.prints(&["run", "--rm", "two", "sh", "-c", "readlink /w/a; readlink /w/b"], "x\ny\n");
    story.end();
}
