//! Building from Dockerfiles: instructions, and what becomes of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use bireme_core::{ErrorKind, WorkloadKind};
use bireme_image::{BuildContext, BuildRequest, Platform, Reference};
use common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_base_without_a_path_has_dockers() {
    let place = place().await;
    let (image, _) = build(&place, &[("Dockerfile", "FROM scratch\nENV PATH=/x:$PATH\n")], no_change).await.unwrap();
    assert_eq!(image.config.env, [DEFAULT_PATH.replace("PATH=", "PATH=/x:")]);
    // An import has none of its own.
    let tree = bireme_image::Commit {
        name: Some(Reference::parse("tree").unwrap()),
        ..bireme_image::Commit::import(std::io::Cursor::new(tar_of(&[("a", "b")])), Vec::new())
    };
    let id = place.store.commit(tree).await.unwrap();
    assert!(place.store.image(&id).unwrap().config.env.is_empty());
    let (image, _) = build(&place, &[("Dockerfile", "FROM tree\nENV A=$PATH\n")], no_change).await.unwrap();
    assert_eq!(image.config.env, [DEFAULT_PATH.to_owned(), DEFAULT_PATH.replace("PATH=", "A=")]);
    // One that has another keeps it; a component looks for no programs.
    let dockerfile = "FROM scratch AS one\nENV PATH=/only\nFROM one\nENV B=2\n";
    let (image, _) = build(&place, &[("Dockerfile", dockerfile)], no_change).await.unwrap();
    assert_eq!(image.config.env, ["PATH=/only", "B=2"]);
    let wasm = |request: &mut BuildRequest| request.platforms = vec![Platform::wasm()];
    let (image, _) = build(&place, &[("Dockerfile", "FROM scratch\nENV B=2\n")], wasm).await.unwrap();
    assert_eq!(image.config.env, ["B=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_platform_is_known_by_its_program() {
    let place = place().await;
    let wasm = std::str::from_utf8(WASM).unwrap();
    for program in ["ENTRYPOINT [\"/app.wasm\"]", "WORKDIR /\nCMD [\"app.wasm\", \"x\"]"] {
        let dockerfile = format!("FROM scratch\nCOPY app.wasm /\n{program}\n");
        let files = [("Dockerfile", dockerfile.as_str()), ("app.wasm", wasm)];
        let (image, log) = build(&place, &files, no_change).await.unwrap();
        assert_eq!((image.kind(), image.platform.clone()), (WorkloadKind::Component, Platform::wasm()), "{program}");
        assert!(image.config.env.is_empty(), "{:?}", image.config.env);
        assert!(log.contains("app.wasm is a WebAssembly component: the platform of the image is wasi/wasm\n"), "{log}");
        // Who says what it is for is believed; what is no component is none, whatever its name.
        let linux = |request: &mut BuildRequest| request.platforms = vec![Platform::host()];
        assert_eq!(build(&place, &files, linux).await.unwrap().0.kind(), WorkloadKind::Container);
        let files = [files[0], ("app.wasm", "#!/bin/sh")];
        assert_eq!(build(&place, &files, no_change).await.unwrap().0.kind(), WorkloadKind::Container);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_image_is_named_like_a_digest() {
    let place = place().await;
    let words = "refusing to create an ambiguous tag using digest algorithm as name";
    let tag = |request: &mut BuildRequest| request.tags = vec![Reference::parse("sha256:beef").unwrap()];
    let error = build(&place, &[("Dockerfile", "FROM scratch\nENV A=b\n")], tag).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), (words, ErrorKind::Invalid));
    let (image, _) = build(&place, &[("Dockerfile", "FROM scratch\nENV A=b\n")], no_change).await.unwrap();
    let error = place.store.tag(image.id.as_str(), &Reference::parse("sha256").unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), words);
    place.store.tag(image.id.as_str(), &Reference::parse("me/sha256:1").unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn carries_out_every_instruction() {
    let dockerfile = r#"# syntax=docker/dockerfile:1
ARG VERSION=1
FROM scratch AS base
ARG VERSION
ARG UNSET
ENV A=one B="two words" C=$VERSION
ENV OLD spaced value
LABEL who="me" version=${VERSION}-${UNSET:-none}
MAINTAINER somebody
WORKDIR /srv
WORKDIR app
COPY hello.txt .
COPY --chown=5:6 --chmod=640 hello.txt /etc/owned.txt
EXPOSE 80 53/udp 8000-8001
VOLUME ["/data", "/more"]
USER 1000:1000
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD ["/bin/check"]
SHELL ["/bin/ash", "-c"]
ENTRYPOINT ["/bin/app"]
CMD echo hi
"#;
    let place = place().await;
    let (image, log) = build(&place, &[("Dockerfile", dockerfile), ("hello.txt", "hello")], |request| {
        request.tags = vec![Reference::parse("me/app:2").unwrap()];
        request.args.insert("VERSION".to_owned(), Some("7".to_owned()));
        request.args.insert("NOBODY".to_owned(), Some("x".to_owned()));
        request.labels.insert("added".to_owned(), "yes".to_owned());
    })
    .await
    .unwrap();
    let config = &image.config;
    assert_eq!(config.env, [DEFAULT_PATH, "A=one", "B=two words", "C=7", "OLD=spaced value"]);
    let labels: Vec<_> = config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["added=yes", "version=7-none", "who=me"]);
    assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv/app", "1000:1000"));
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data", "/more"]);
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    let check = config.healthcheck.as_ref().unwrap();
    assert_eq!(
        (check.interval, check.retries, &check.test),
        (5_000_000_000, 2, &vec!["CMD".to_owned(), "/bin/check".to_owned()])
    );
    assert_eq!(config.entrypoint.as_deref(), Some(["/bin/app".to_owned()].as_slice()));
    assert_eq!(config.cmd.as_deref(), Some(["/bin/ash", "-c", "echo hi"].map(str::to_owned).as_slice()));
    assert_eq!((image.author.as_deref(), image.platform.clone()), (Some("somebody"), Platform::host()));
    assert_eq!(image.history.iter().filter(|step| !step.empty_layer).count(), image.diff_ids.len());
    assert!(log.starts_with("Step 1/21 : ARG VERSION=1\nStep 2/21 : FROM scratch AS base\n ---> "), "{log}");
    assert!(log.contains("Step 21/21 : LABEL added=yes\n"), "{log}");
    assert!(log.contains("[Warning] One or more build-args [NOBODY] were not consumed\n"));
    assert!(
        log.ends_with(&format!("Successfully built {}\nSuccessfully tagged me/app:2\n", image.id.short())),
        "{log}"
    );

    let layers = place.store.layers(&image.id).await.unwrap();
    assert_eq!(read(&layers, "srv/app/hello.txt").unwrap(), "hello");
    let owned = layers.last().unwrap().join("etc/owned.txt").metadata().unwrap();
    assert_eq!((owned.uid(), owned.gid(), owned.permissions().mode() & 0o7777), (5, 6, 0o640));
    let plain = layers[2].join("srv/app/hello.txt").metadata().unwrap();
    assert_eq!((plain.uid(), plain.mtime()), (0, 1_500_000_000));
    assert_eq!(place.store.resolve("me/app:2", None).await.unwrap().id, image.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_input_gives_the_same_image() {
    let place = place().await;
    let files = [("Dockerfile", "FROM scratch\nCOPY . /x/\nENV A=b"), ("a", "1"), ("d/b", "2")];
    let (first, _) = build(&place, &files, no_change).await.unwrap();
    let (second, _) = build(&place, &files, no_change).await.unwrap();
    assert_eq!(first.id, second.id);
    let changed = [files[0], ("a", "other"), files[2]];
    assert_ne!(build(&place, &changed, no_change).await.unwrap().0.id, first.id);
    // Another store, another day: the same layers.
    let elsewhere = common::place().await;
    assert_eq!(build(&elsewhere, &files, no_change).await.unwrap().0.diff_ids, first.diff_ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_as_docker_does() {
    let place = place().await;
    let base = [
        ("Dockerfile", "FROM scratch\nCOPY etc /etc/\nADD rootfs.tar /\n"),
        ("etc/passwd", "root:x:0:0::/:\nalice:x:1234:99::/:\n"),
        ("etc/group", "staff:x:77:\n"),
    ];
    let context = tempfile::tempdir_in("/var/tmp").unwrap();
    for (name, content) in base {
        std::fs::create_dir_all(context.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(context.path().join(name), content).unwrap();
    }
    // A base whose /lib is a link, and whose /tmp has a mode of its own.
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, link) in [("usr/lib/", 0o755, ""), ("tmp/", 0o1777, ""), ("lib", 0o777, "usr/lib")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(3);
        header.set_gid(3);
        header.set_mtime(5);
        header.set_size(0);
        if link.is_empty() {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, name, std::io::empty()).unwrap();
        } else {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, link).unwrap();
        }
    }
    std::fs::write(context.path().join("rootfs.tar"), gzip(&tar.into_inner().unwrap())).unwrap();
    let mut request = BuildRequest::new(BuildContext::Folder(context.path().to_owned()));
    request.tags = vec![Reference::parse("base").unwrap()];
    place.store.build(request, &|_| {}).await.unwrap();

    let dockerfile = "FROM scratch AS files\nCOPY src/*.txt /picked/\n\
        FROM base AS unused\nCOPY nothing /\n\
        FROM base\n\
        COPY --chown=alice:staff a.txt /lib/by-link.txt\n\
        COPY a.txt /tmp/\n\
        COPY --from=files /picked /copied\n\
        COPY --from=0 /picked/one.txt /renamed\n\
        COPY src /all/\n\
        COPY [\"a b\", \"/spaced\"]\n";
    let files = [
        ("Dockerfile", dockerfile),
        (".dockerignore", "src/secret*\n"),
        ("a.txt", "a"),
        ("a b", "with space"),
        ("src/one.txt", "1"),
        ("src/two.txt", "2"),
        ("src/secret.txt", "hidden"),
        ("src/deep/three", "3"),
    ];
    let (image, log) = build(&place, &files, no_change).await.unwrap();
    assert!(!log.contains("COPY nothing"), "a stage that is not needed is not built");
    let layers = place.store.layers(&image.id).await.unwrap();
    for (path, content) in [
        ("usr/lib/by-link.txt", Some("a")),
        ("copied/one.txt", Some("1")),
        ("copied/two.txt", Some("2")),
        ("copied/secret.txt", None),
        ("renamed", Some("1")),
        ("all/deep/three", Some("3")),
        ("all/secret.txt", None),
        ("spaced", Some("with space")),
    ] {
        assert_eq!(read(&layers, path).as_deref(), content, "{path}");
    }
    let by_link = layers[2].join("usr/lib/by-link.txt").metadata().unwrap();
    assert_eq!((by_link.uid(), by_link.gid()), (1234, 77));
    assert!(!exists(&layers[2].join("lib")), "the link is followed, not replaced");
    let tmp = layers[3].join("tmp").metadata().unwrap();
    assert_eq!((tmp.permissions().mode() & 0o7777, tmp.uid()), (0o1777, 3));

    let (stage, _) = build(&place, &files, |request| request.target = Some("files".to_owned())).await.unwrap();
    assert_eq!(stage.diff_ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_a_wasm_image_from_an_archive_of_the_client() {
    let place = place().await;
    let wasm = String::from_utf8(WASM.to_vec()).unwrap();
    let tar = tar_of(&[
        (
            "sub/My.dockerfile",
            "FROM scratch\nARG TARGETPLATFORM\nLABEL on=$TARGETPLATFORM\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]",
        ),
        ("app.wasm", &wasm),
    ]);
    let mut request = BuildRequest::new(BuildContext::Archive(Box::new(std::io::Cursor::new(gzip(&tar)))));
    request.dockerfile = "sub/My.dockerfile".to_owned();
    request.platforms = vec!["wasi/wasm".parse().unwrap()];
    request.tags = vec![Reference::parse("hello").unwrap()];
    let id = place.store.build(request, &|_| {}).await.unwrap();
    let image = place.store.resolve("hello", None).await.unwrap();
    assert_eq!(
        (&image.id, image.kind(), image.config.labels["on"].as_str()),
        (&id, WorkloadKind::Component, "wasi/wasm")
    );
    let (path, _) = place.store.component(&id, &image.config.entrypoint.unwrap()[0]).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), WASM);
    assert_eq!(place.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_with_a_line_and_a_reason() {
    let place = place().await;
    for (dockerfile, expected, kind) in [
        ("FROM scratch\nADD git@example.invalid:x /x", "cannot fetch git@example.invalid:x: ", ErrorKind::Unavailable),
        ("FROM scratch\nADD a http://127.0.0.1:1/x /x/", "cannot fetch http://127.0.0.1:1/x", ErrorKind::Unavailable),
        ("FROM scratch\nADD http://127.0.0.1:1/ /", "cannot determine filename", ErrorKind::Invalid),
        ("FROM scratch\nADD http://127.0.0.1:1/x /x", "cannot fetch http://127.0.0.1:1/x", ErrorKind::Unavailable),
        ("FROM scratch\nRUN make", "RUN is not offered by this builder: nothing runs", ErrorKind::Unsupported),
        ("FROM scratch\nONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger", ErrorKind::Invalid),
        ("FROM scratch\nONBUILD ONBUILD USER x", "Chaining ONBUILD", ErrorKind::Invalid),
        (
            "FROM scratch\nCOPY gone /x",
            "COPY failed on line 2: file not found in build context or excluded by .dockerignore: stat gone",
            ErrorKind::Invalid,
        ),
        ("FROM scratch\nCOPY *.gone /x/", "no source files were specified", ErrorKind::Invalid),
        ("FROM scratch\nCOPY hidden /x", "excluded by .dockerignore", ErrorKind::Invalid),
        ("FROM scratch\nCOPY a b /x", "must be a directory and end with a /", ErrorKind::Invalid),
        ("FROM scratch\nCOPY a", "requires at least two arguments", ErrorKind::Invalid),
        ("FROM scratch\nCOPY --chown=nobody a /x", "unable to find user nobody", ErrorKind::Invalid),
        ("FROM scratch\nCOPY --chmod=rwx a /x", "invalid chmod parameter", ErrorKind::Invalid),
        ("FROM scratch\nCOPY --from=3 a /x", "invalid stage index 3", ErrorKind::Invalid),
        ("FROM scratch\nCOPY ../../etc/passwd /x", "file not found", ErrorKind::Invalid),
        ("FROM scratch\nCOPY a /f\nCOPY d /f", "cannot copy to non-directory: /f", ErrorKind::Invalid),
        ("FROM scratch\nENV x", "must have two arguments", ErrorKind::Invalid),
        ("FROM scratch\nEXPOSE none", "invalid containerPort: none", ErrorKind::Invalid),
        ("FROM scratch\nSTOPSIGNAL SIGNOPE", "invalid signal", ErrorKind::Invalid),
        ("FROM scratch\nSHELL sh", "in JSON form", ErrorKind::Invalid),
        ("FROM scratch\nLABEL a=${b", "failed to process", ErrorKind::Invalid),
        ("FROM $nothing", "should not be blank", ErrorKind::Invalid),
        ("FROM Upper", "must be lowercase", ErrorKind::Invalid),
        ("FROM --platform=what scratch", "unknown operating system or architecture", ErrorKind::Invalid),
        ("FROM --platform=wasm32 scratch", "did you mean wasi/wasm?", ErrorKind::Invalid),
        ("FROM scratch\nCOPY --exclude=[ a /x", "invalid --exclude", ErrorKind::Invalid),
    ] {
        let files = [
            ("Dockerfile", dockerfile),
            (".dockerignore", "hidden"),
            ("a", "x"),
            ("b", "x"),
            ("hidden", "x"),
            ("d/e", "x"),
        ];
        let error = build(&place, &files, no_change).await.expect_err(dockerfile);
        assert!(error.to_string().contains(expected), "{dockerfile}: {error}");
        assert_eq!(error.kind(), kind, "{dockerfile}");
    }
    let error = build(&place, &[("Dockerfile", "")], no_change).await.unwrap_err();
    assert_eq!(error.to_string(), "the Dockerfile (Dockerfile) cannot be empty");
    let error = build(&place, &[("x", "")], no_change).await.unwrap_err();
    assert_eq!(error.to_string(), "Cannot locate specified Dockerfile: Dockerfile");
    let target = |request: &mut BuildRequest| request.target = Some("nope".to_owned());
    let error = build(&place, &[("Dockerfile", "FROM scratch")], target).await.unwrap_err();
    assert!(error.to_string().contains("target stage \"nope\" could not be found"), "{error}");
    assert!(place.store.list().await.unwrap().is_empty());
}
