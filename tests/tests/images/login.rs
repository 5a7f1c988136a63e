//! A registry that asks for a password, and the clients that know it.

use bireme_testing::{Engine, Registry};

#[test]
fn what_needs_a_password_is_pushed_pulled_and_built_upon_by_whoever_has_logged_in() {
    let registry = Registry::with_password();
    let engine = Engine::start();
    engine.load("busybox");
    let (host, (user, password)) = (registry.host(), Registry::USER);
    let (name, built) = (format!("{host}/private/app:1"), format!("{host}/private/built:1"));
    engine.docker(["tag", "busybox", &name]).stdout();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("Dockerfile"), format!("FROM {name}\nRUN echo built > /built\n")).unwrap();
    let build = || {
        let mut build = engine.buildx(["build", "--progress=plain", "--push", "-t", &built]);
        build.arg(context.path());
        engine.run(build)
    };
    let login = |word: &str, buildx: bool| {
        let args = ["login", "-u", user, "-p", word, &host];
        engine.run(if buildx { engine.buildx(args) } else { engine.command("docker", args) })
    };

    engine.docker(["push", "-q", &name]).fails(1, "authentication required; log in to it");
    login("wrong", false).fails(1, "unauthorized");
    login(password, false).stdout();
    engine.docker(["push", "-q", &name]).stdout();
    engine.docker(["rmi", "-f", &name, "busybox"]).stdout();
    engine.docker(["pull", "-q", &name]).stdout();
    engine.docker(["rmi", "-f", &name]).stdout();

    // This client has its own folder of passwords, and what it is asked for is its own.
    assert_ne!(build().code, 0, "nobody has told it");
    login(password, true).stdout();
    let done = build();
    assert_eq!(done.code, 0, "{done}");
    engine.docker(["rmi", "-f", &built]);
    assert_eq!(engine.docker(["run", "--rm", &built, "cat", "/built"]).stdout(), "built\n");
    let log = engine.daemon_log();
    assert!(!log.contains(password), "the password is in the log: {log}");

    engine.docker(["logout", &host]).stdout();
    engine.docker(["pull", "-q", &name]).fails(1, "authentication required; log in to it");
    engine.finish();
}
