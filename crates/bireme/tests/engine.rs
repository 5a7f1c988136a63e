//! The real program against canned answers: exit codes, streams and what is sent.

mod support;

use std::io::Read;
use std::process::Stdio;

use support::{Engine, attached, bireme, empty, json};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run_engine(code: i64) -> Engine {
    Engine::start(vec![
        ("POST /containers/create", json(201, r#"{"Id":"abc","Warnings":["a warning"]}"#)),
        ("POST /containers/abc/attach", attached(&[(1, "out\n"), (2, "err\n"), (1, "more\n")])),
        ("POST /containers/abc/wait", json(200, &format!("{{\"StatusCode\":{code}}}"))),
        ("POST /containers/abc/start", empty()),
    ])
}

#[test]
fn run_hands_on_streams_and_exit_code() {
    let engine = run_engine(7);
    let output = engine.run(&["run", "--rm", "alpine", "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stdout), "out\nmore\n");
    assert_eq!(text(&output.stderr), "WARNING: a warning\nerr\n");
    let lines: Vec<String> =
        engine.requests().iter().map(|request| request.line.split('?').next().unwrap().to_owned()).collect();
    // The wait is there before the start, the output too.
    assert_eq!(
        lines,
        [
            "POST /containers/create",
            "POST /containers/abc/attach",
            "POST /containers/abc/wait",
            "POST /containers/abc/start"
        ]
    );
}

#[test]
fn a_command_that_is_not_there_is_127_and_leaves_nothing() {
    let engine = Engine::start(vec![
        ("POST /containers/create", json(201, r#"{"Id":"abc","Warnings":[]}"#)),
        ("POST /containers/abc/attach", attached(&[])),
        ("POST /containers/abc/wait", json(200, r#"{"StatusCode":127}"#)),
        (
            "POST /containers/abc/start",
            json(400, r#"{"message":"exec: \"nope\": executable file not found in $PATH"}"#),
        ),
        ("DELETE /containers/abc", empty()),
    ]);
    let output = engine.run(&["run", "--rm", "alpine", "nope"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        text(&output.stderr),
        "bireme: Error response from daemon: exec: \"nope\": executable file not found in $PATH\n"
    );
    assert!(engine.requests().last().unwrap().line.starts_with("DELETE /containers/abc"));
}

#[test]
fn the_engines_refusals_are_125_for_run_and_1_otherwise() {
    let engine = Engine::start(vec![("POST /containers/create", json(409, r#"{"message":"the name is taken"}"#))]);
    let output = engine.run(&["run", "--name", "x", "alpine"]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(text(&output.stderr), "bireme: Error response from daemon: the name is taken\n");
    let output = engine.run(&["stop", "it"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Error response from daemon: No such container: it"));
}

#[test]
fn exec_never_takes_an_end_that_nobody_told_for_success() {
    let exec = |inspected: Vec<u8>| {
        let engine = Engine::start(vec![
            ("POST /containers/web/exec", json(201, r#"{"Id":"e1"}"#)),
            ("POST /exec/e1/start", attached(&[(1, "out\n")])),
            ("GET /exec/e1/json", inspected),
        ]);
        let output = engine.run(&["exec", "web", "true"]);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let ended = exec(json(200, r#"{"Running":false,"ExitCode":3}"#));
    assert_eq!(ended, (Some(3), "out\n".to_owned(), String::new()));
    let forgotten = exec(json(404, r#"{"message":"No such exec instance: e1"}"#));
    let said = "bireme: cannot tell how the command ended: the engine does not know the session any more\n";
    assert_eq!(forgotten, (Some(125), "out\n".to_owned(), said.to_owned()));
}

#[test]
fn answers_of_other_engines_are_read_as_far_as_they_go() {
    let engine = Engine::start(vec![
        (
            "GET /containers/json",
            json(
                200,
                r#"[{"Id":"0123456789abcdef","Names":["/web"],"Image":"x","Command":"y","Created":1,"State":"initialized",
                "Status":"Initialized","Ports":null,"Labels":null,"Mounts":null,"NetworkSettings":null,"Pod":"p"}]"#,
            ),
        ),
        (
            "GET /images/json",
            json(200, r#"[{"Id":"sha256:0123456789abcdef","RepoTags":null,"Created":0,"VirtualSize":5}]"#),
        ),
        ("GET /volumes", json(200, r#"{"Volumes":null,"Warnings":null}"#)),
        ("GET /networks", json(200, r#"[{"Name":"net","Id":"0123456789abcdef","Scope":"galaxy","Labels":null}]"#)),
    ]);
    for (args, expected) in [
        (
            &["ps", "--format", "{{.ID}} {{.Names}} {{.State}} {{.Ports}}|{{.Labels}}|"][..],
            "0123456789ab web initialized ||\n",
        ),
        (&["images", "--format", "{{.ID}} {{.Repository}} {{.Size}}"][..], "0123456789ab <none> 0B\n"),
        (&["volume", "ls", "-q"][..], ""),
        (&["network", "ls", "--format", "{{.Name}} {{.Driver}}|{{.Scope}}"][..], "net |galaxy\n"),
    ] {
        let output = engine.run(args);
        let said = (output.status.code(), text(&output.stdout), text(&output.stderr));
        assert_eq!(said, (Some(0), expected.to_owned(), String::new()), "{args:?}");
    }
}

#[test]
fn mistakes_on_the_command_line_are_125() {
    for args in [&["run", "--nope", "x"][..], &["nope"], &["run", "--restart", "sometimes", "x"]] {
        let engine = Engine::start(Vec::new());
        let output = engine.run(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn no_engine_is_said_with_a_hint() {
    let output = bireme(&["-H", "unix:///nowhere/x.sock", "ps"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("bireme: cannot connect to the engine at unix:///nowhere/x.sock"), "{said}");
    assert!(said.contains("\nhint: "), "{said}");
}

#[test]
fn a_broken_pipe_is_silence() {
    let one = r#"{"Id":"0123456789abcdef","Names":["/web"],"Image":"x","Command":"y","Created":1,"Status":"Up","State":"running"}"#;
    let list = format!("[{}]", vec![one; 20_000].join(","));
    let engine = Engine::start(vec![("GET /containers/json", json(200, &list))]);
    let mut child = engine
        .command(&["ps", "--format", "{{.Names}} {{.ID}} {{.Image}}"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn inspect_prints_what_the_engine_sent_in_its_order() {
    let engine = Engine::start(vec![("GET /containers/web/json", json(200, r#"{"Zed":1,"Alpha":{"b":[],"a":"x"}}"#))]);
    let output = engine.run(&["inspect", "web"]);
    assert_eq!(
        text(&output.stdout),
        "[\n    {\n        \"Zed\": 1,\n        \"Alpha\": {\n            \"b\": [],\n            \"a\": \"x\"\n        }\n    }\n]\n"
    );
    let output = engine.run(&["inspect", "-f", "{{.Alpha.a}}", "web"]);
    assert_eq!(text(&output.stdout), "x\n");
}

#[test]
fn a_missing_image_is_fetched_and_a_failed_fetch_is_told() {
    let engine = Engine::start(vec![
        ("POST /containers/create", json(404, r#"{"message":"No such image: alpine:latest"}"#)),
        (
            "POST /images/create",
            json(
                200,
                "{\"status\":\"Pulling from library/alpine\",\"id\":\"latest\"}\n{\"errorDetail\":{\"message\":\"manifest unknown\"},\"error\":\"manifest unknown\"}\n",
            ),
        ),
    ]);
    let output = engine.run(&["run", "alpine"]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(
        text(&output.stderr),
        "Unable to find image 'alpine:latest' locally\nlatest: Pulling from library/alpine\nError response from daemon: manifest unknown\n"
    );
    assert!(engine.requests().iter().any(|request| request.line.contains("fromImage=alpine:latest")));
}

#[test]
fn a_wasm_file_becomes_an_image_of_its_content() {
    let engine = Engine::start(vec![
        ("GET /images/local/hello:sha256-", json(404, r#"{"message":"No such image"}"#)),
        ("POST /images/load", json(200, "{\"stream\":\"Loaded image\"}\n")),
        ("POST /containers/create", json(201, r#"{"Id":"abc","Warnings":[]}"#)),
        ("POST /containers/abc/start", empty()),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hello.wasm");
    std::fs::write(&file, b"\0asm\x0d\0\x01\0").unwrap();
    let output =
        engine.run(&["run", "-d", "--allow", "redis://r:6379", "--route", "/a", file.to_str().unwrap(), "arg"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "abc\n"), "{}", text(&output.stderr));
    let requests = engine.requests();
    let create = requests.iter().find(|request| request.line.starts_with("POST /containers/create")).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&create.body).unwrap();
    assert!(body["Image"].as_str().unwrap().starts_with("local/hello:sha256-"), "{body}");
    assert_eq!(body["Labels"]["bireme.allow"], "redis://r:6379");
    assert_eq!(body["Cmd"][0], "arg");
    let output = engine.run(&["run", "/nowhere/x.wasm"]);
    assert_eq!(output.status.code(), Some(127));
}

#[test]
fn top_without_a_terminal_is_one_table() {
    let sample = |started: u64| {
        format!(
            r#"[{{"ID":"c","Name":"app-web-1","Kind":"component","App":"app","Service":"web","Image":"i","State":"running","CpuTotal":0,"MemoryUsage":0,"Restarts":0,"Invocations":{{"Trigger":"http","Started":{started},"Alive":1,"Queued":0,"Succeeded":{started},"Failed":0,"TimedOut":0,"Rejected":0,"Latency":[[1000,{started}]],"MemoryPeak":1048576}}}}]"#
        )
    };
    let stream = format!("{}\n{}\n", sample(1), sample(2));
    let engine = Engine::start(vec![("GET /bireme/v1/workloads?stream=1", json(200, &stream))]);
    let output = engine.run(&["top"]);
    let said = text(&output.stdout);
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["APP", "NAME", "KIND"], "{said}{}", text(&output.stderr));
    assert_eq!(lines[1][..7], ["app", "web", "component", "running", "2", "1", "0"], "{said}");
    let output = engine.run(&["top", "--format", "json"]);
    let row: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&row["Started"], &row["App"]), (&2.into(), &"app".into()));
}

#[test]
fn config_needs_no_engine_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let output = bireme(&["config"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no compose.yaml here"), "{}", text(&output.stderr));
    std::fs::write(folder.path().join("compose.yaml"), "services: {web: {image: alpine}}\n").unwrap();
    let output = bireme(&["config", "--services"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(text(&output.stdout), "web\n", "{}", text(&output.stderr));
}

#[test]
fn a_login_is_kept_where_dockers_client_finds_it_and_nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let engine = Engine::start(vec![("POST /auth", json(200, r#"{"Status":"Login Succeeded","IdentityToken":""}"#))]);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("docker/config.json");
    let run = |args: &[&str], input: &str| {
        let mut command = engine.command(args);
        command.env("DOCKER_CONFIG", home.path().join("docker")).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let login = ["login", "-u", "me", "--password-stdin", "registry.example.org:5000"];
    let output = run(&login, "secret\n");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "Login Succeeded\n"), "{output:?}");
    assert!(text(&output.stderr).contains("stored unencrypted"), "{output:?}");
    assert_eq!(
        text(&engine.requests()[0].body),
        r#"{"password":"secret","serveraddress":"registry.example.org:5000","username":"me"}"#
    );
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["auths"]["registry.example.org:5000"]["auth"], "bWU6c2VjcmV0");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(file.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);

    // What else stands in the file stays; what is no JSON is not overwritten.
    std::fs::write(&file, r#"{"psFormat":"x","auths":{"registry.example.org:5000":{"auth":"bWU6c2VjcmV0"}}}"#).unwrap();
    let output = run(&["logout", "registry.example.org:5000"], "");
    assert_eq!(text(&output.stdout), "Removing login credentials for registry.example.org:5000\n");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept, serde_json::json!({"psFormat": "x", "auths": {}}));
    assert_eq!(text(&run(&["logout"], "").stdout), "Not logged in to https://index.docker.io/v1/\n");
    std::fs::write(&file, "{broken").unwrap();
    assert_eq!(run(&login, "secret\n").status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{broken");
    // Without a terminal, nobody can be asked.
    let output = run(&["login", "registry.example.org:5000"], "");
    assert!(text(&output.stderr).contains("cannot perform an interactive login from a non TTY device"), "{output:?}");
}

#[test]
fn a_credential_helper_keeps_what_the_file_does_not() {
    use std::os::unix::fs::PermissionsExt;
    let engine = Engine::start(vec![
        ("POST /auth", json(200, r#"{"Status":"Login Succeeded"}"#)),
        ("POST /images/create", json(200, r#"{"status":"done"}"#)),
    ]);
    let home = tempfile::tempdir().unwrap();
    let helper = home.path().join("docker-credential-box");
    let script = "#!/bin/sh\ncase $1 in store) cat > \"$BOX\";; get) cat > /dev/null; cat \"$BOX\";; erase) rm \"$BOX\";; esac\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(home.path().join("config.json"), r#"{"credsStore":"box"}"#).unwrap();
    let kept = home.path().join("kept");
    let run = |args: &[&str]| {
        let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
        let mut command = engine.command(args);
        command.env("DOCKER_CONFIG", home.path()).env("PATH", path).env("BOX", &kept).stdin(Stdio::null());
        command.output().unwrap()
    };
    let output = run(&["login", "-u", "me", "-p", "secret", "registry.example.org"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!text(&output.stderr).contains("unencrypted"), "{output:?}");
    assert_eq!(
        std::fs::read_to_string(&kept).unwrap(),
        r#"{"Secret":"secret","ServerURL":"registry.example.org","Username":"me"}"#
    );
    assert!(!std::fs::read_to_string(home.path().join("config.json")).unwrap().contains("c2VjcmV0"));
    assert_eq!(run(&["pull", "-q", "registry.example.org/x"]).status.code(), Some(0));
    assert_eq!(run(&["logout", "registry.example.org"]).status.code(), Some(0));
    assert!(!kept.exists());
}

#[test]
fn who_is_logged_in_is_not_asked_again_and_a_token_takes_the_passwords_place() {
    let engine =
        Engine::start(vec![("POST /auth", json(200, r#"{"Status":"Login Succeeded","IdentityToken":"kept"}"#))]);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    std::fs::write(&file, r#"{"auths":{"https://registry.example.org/v2/":{"auth":"bWU6c2VjcmV0"}}}"#).unwrap();
    let run = |args: &[&str]| {
        let mut command = engine.command(args);
        // Ours comes first.
        command.env("BIREME_CONFIG", home.path()).env("DOCKER_CONFIG", "/nowhere").stdin(Stdio::null());
        command.output().unwrap()
    };
    let output = run(&["login", "registry.example.org"]);
    assert_eq!(text(&output.stdout), "Login Succeeded\n", "{output:?}");
    assert!(text(&output.stderr).contains("Authenticating with existing credentials"), "{output:?}");
    assert!(text(&engine.requests()[0].body).contains(r#""password":"secret""#), "{:?}", engine.requests());
    let output = run(&["login", "-u", "you", "-p", "geheim", "other.example.org"]);
    assert!(text(&output.stderr).contains("--password via the CLI is insecure"), "{output:?}");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    // `you:`, without a password.
    assert_eq!(kept["auths"]["other.example.org"], serde_json::json!({"auth": "eW91Og==", "identitytoken": "kept"}));
    let output = run(&["logout", "registry.example.org"]);
    assert_eq!(text(&output.stdout), "Removing login credentials for registry.example.org\n");
    assert!(!std::fs::read_to_string(&file).unwrap().contains("registry.example.org"));
}

#[test]
fn a_helper_that_says_no_end_of_it_is_ended() {
    use std::os::unix::fs::PermissionsExt;
    let engine = Engine::start(vec![("POST /images/create", json(200, r#"{"status":"done"}"#))]);
    let home = tempfile::tempdir().unwrap();
    let helper = home.path().join("docker-credential-babbling");
    std::fs::write(&helper, "#!/bin/sh\nexec cat /dev/zero\n").unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(home.path().join("config.json"), r#"{"credHelpers":{"registry.example.org":"babbling"}}"#).unwrap();
    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
    let mut command = engine.command(&["logout", "registry.example.org"]);
    let output = command.env("DOCKER_CONFIG", home.path()).env("PATH", &path).output().unwrap();
    assert!(
        text(&output.stderr).contains("docker-credential-babbling erase says more than 1048576 bytes"),
        "{output:?}"
    );
    // A pull goes on as nobody, as with Docker.
    let mut command = engine.command(&["pull", "-q", "registry.example.org/x"]);
    let output = command.env("DOCKER_CONFIG", home.path()).env("PATH", &path).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_push_says_how_and_a_manifest_is_printed_as_it_is() {
    let manifest = "{\n  \"schemaVersion\":   2 }";
    let engine = Engine::start(vec![
        ("POST /images/", json(200, r#"{"status":"done"}"#)),
        ("GET /bireme/v1/manifests/", json(200, manifest)),
        ("GET /bireme/v1/referrers/", json(200, r#"{"manifests":[{"artifactType":"t"}]}"#)),
        ("GET /distribution/", json(200, r#"{"Descriptor":{"digest":"sha256:00","size":3},"Platforms":[]}"#)),
    ]);
    let push = [
        "push",
        "-q",
        "--artifact",
        "--compression",
        "zstd",
        "--compression-level",
        "9",
        "--platform",
        "wasi/wasm",
        "a.example/x:1",
    ];
    assert_eq!(engine.run(&push).status.code(), Some(0));
    let line = engine.requests()[0].line.clone();
    for part in
        ["/images/a.example/x/push?", "tag=1", "compression=zstd", "compression-level=9", "artifact=1", "platform=wasi"]
    {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(text(&engine.run(&["manifest", "inspect", "a.example/x"]).stdout), format!("{manifest}\n"));
    let verbose = text(&engine.run(&["manifest", "inspect", "-v", "a.example/x"]).stdout);
    let verbose: serde_json::Value = serde_json::from_str(&verbose).unwrap();
    assert_eq!((&verbose["Ref"], &verbose["Descriptor"]["size"]), (&"a.example/x:latest".into(), &3.into()));
    let listed = text(&engine.run(&["manifest", "referrers", "--artifact-type", "t", "a.example/x:1"]).stdout);
    assert!(listed.contains("\"artifactType\": \"t\""), "{listed}");
    assert!(engine.requests().last().unwrap().line.contains("/bireme/v1/referrers/a.example/x:1?artifactType=t"));
}

#[test]
fn a_search_prints_as_dockers() {
    let found = r#"[{"name":"small","description":"two\nlines","star_count":3,"is_official":false},
        {"name":"busybox","description":"Busybox base image.","star_count":3000,"is_official":true}]"#;
    let engine = Engine::start(vec![("GET /images/search", json(200, found))]);
    let output = engine.run(&["search", "--limit", "5", "box"]);
    assert_eq!(
        text(&output.stdout),
        "NAME      DESCRIPTION           STARS     OFFICIAL\nbusybox   Busybox base image.   3000      [OK]\nsmall     two lines             3         \n"
    );
    assert!(engine.requests()[0].line.contains("term=box&limit=5"), "{:?}", engine.requests());
}
