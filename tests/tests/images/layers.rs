//! Layers, commits, imports and saved archives.

use super::Story;

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let story = Story::begin();
    let context = tempfile::tempdir().unwrap();
    let folder = context.path().join("d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), "x").unwrap();
    for name in ["b", "c"] {
        std::fs::hard_link(folder.join("a"), folder.join(name)).unwrap();
    }
    let dockerfile = "FROM busybox AS first\nCOPY d /d\nADD . /e\nRUN ln /d/a /d/z\nFROM busybox\nCOPY --from=first /d /f\n\
                      COPY --chown=7 d /g\nCOPY d/a d/b /h/\nRUN stat -c '%n %h %u' /f/* /g/* /h/*\n";
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let mut build = story.engine.command("docker", ["build", "--no-cache", "."]);
    build.current_dir(&context).env("DOCKER_BUILDKIT", "0");
    let log = story.engine.run(build);
    let said: Vec<&str> = log.stdout().lines().filter(|line| line.starts_with('/')).collect();
    // The command's own link is one with the copy of /d/a that the overlay made of it.
    let expected =
        ["/f/a 2 0", "/f/b 2 0", "/f/c 2 0", "/f/z 2 0", "/g/a 3 7", "/g/b 3 7", "/g/c 3 7", "/h/a 2 0", "/h/b 2 0"];
    assert_eq!(said, expected, "{log}");
    story.engine.docker(["system", "prune", "-af"]).stdout();
    story.end();
}

/// As empty layers do, and what is copied, removed and copied again: overlayfs takes no folder twice.
#[test]
fn a_layer_that_an_image_lists_twice_counts_where_it_is_topmost() {
    let story = Story::begin();
    let files = |dockerfile| [("f", "first\n"), ("Dockerfile", dockerfile)];
    let dockerfile = "FROM busybox\nCOPY f /f\nRUN rm /f\nCOPY f /f\nRUN cat /f && echo more > /g\nCOPY f /f\n";
    story.build(&files(dockerfile), &["-t", "twice"]).stdout();
    story.prints(&["run", "--name", "cc", "twice", "cat", "/f", "/g"], "first\nmore\n");
    story.prints(&["diff", "cc"], "");
    assert!(story.engine.docker(["cp", "cc:/f", "-"]).stdout().contains("first\n"));
    let archive = story.engine.folder().join("cc.tar");
    story.engine.docker(["export", "-o", archive.to_str().unwrap(), "cc"]).stdout();
    story.engine.docker(["rm", "cc"]).stdout();
    // Removed below, it is not there, whatever lies below that.
    let dockerfile = "FROM twice\nRUN rm /f\nWORKDIR /x\nRUN rmdir /x\nWORKDIR /x\nRUN pwd && ! cat /f\n";
    story.dockerfile(dockerfile, &["-t", "more"]).stdout();
    story.engine.docker(["run", "--rm", "more", "cat", "/f"]).fails(1, "No such file");
    story.end();
}

#[test]
fn a_container_becomes_an_image() {
    let story = Story::begin();
    let changed = ["run", "--name", "made", "-e", "A=1", "-w", "/srv", "-v", "/volume", "busybox", "sh", "-c"];
    let script = "echo data > /data; echo lost > /volume/x; rm /etc/group; mkdir -p /etc/deep";
    story.engine.docker(changed.iter().chain(&[script])).stdout();
    let commit =
        ["commit", "-m", "why", "-a", "who", "-c", "CMD [\"cat\", \"/data\"]", "-c", "ENV B=2", "made", "took:1"];
    let id = story.engine.docker(commit).stdout().trim().to_owned();
    story.prints(&["run", "--rm", "took:1"], "data\n");
    story.prints(
        &["run", "--rm", "took:1", "sh", "-c", "echo $A$B; pwd; ls /volume /etc/deep"],
        "12\n/srv\n/etc/deep:\n\n/volume:\n",
    );
    story.engine.docker(["run", "--rm", "took:1", "ls", "/etc/group"]).fails(1, "No such file");
    story.prints(&["inspect", "-f", "{{.Id}} {{.Comment}} {{.Author}}", "took:1"], &format!("{id} why who\n"));
    story.engine.docker(["commit", "-c", "RUN x", "made"]).fails(1, "RUN is not a valid change command");
    story.engine.docker(["commit", "nosuch"]).fails(1, "No such container: nosuch");

    story.engine.docker(["run", "-d", "--name", "busy", "busybox", "sleep", "1000"]).stdout();
    story.engine.docker(["commit", "busy", "still"]).stdout();
    story.prints(&["inspect", "-f", "{{.State.Status}}", "busy"], "running\n");

    let archive = story.engine.folder().join("tree.tar");
    let path = archive.to_str().unwrap();
    story.engine.docker(["export", "-o", path, "made"]).stdout();
    story.engine.docker(["import", "-c", "CMD [\"cat\", \"/data\"]", "-m", "brought", path, "brought:1"]).stdout();
    story.prints(&["run", "--rm", "brought:1"], "data\n");
    story.prints(&["inspect", "-f", "{{.Comment}} {{len .RootFS.Layers}}", "brought:1"], "brought 1\n");
    story.engine.docker(["rm", "-fv", "made", "busy"]).stdout();
    story.end();
}

#[test]
fn components_have_no_files_to_commit_and_run_no_commands() {
    let story = Story::begin();
    story.engine.build_guest("hello", "hello");
    story.engine.docker(["create", "--platform", "wasi/wasm", "--name", "component", "hello"]).stdout();
    story.engine.docker(["commit", "component"]).fails(1, "is a WebAssembly component and has no files of its own");
    story.engine.docker(["rm", "component"]).stdout();
    let log = story.dockerfile("FROM --platform=wasi/wasm scratch\nCOPY Dockerfile /\nRUN make\n", &[]);
    log.fails(1, "commands are run in Linux images");
    story.end();
}

#[test]
fn a_repository_is_saved_with_all_its_tags() {
    let story = Story::begin();
    for name in ["me/app:1", "me/app:2", "me/other:1"] {
        story.prints(&["tag", "busybox", name], "");
    }
    let archive = story.engine.folder().join("app.tar");
    story.prints(&["save", "-o", archive.to_str().unwrap(), "me/app"], "");
    story.engine.docker(["rmi", "me/app:1", "me/app:2"]).stdout();
    let loaded = story.engine.docker(["load", "-i", archive.to_str().unwrap()]);
    assert_eq!(loaded.stdout(), "Loaded image: me/app:1\nLoaded image: me/app:2\n");
    story.end();
}

#[test]
fn a_component_without_a_platform_is_known_or_told_of() {
    let story = Story::begin();
    let guest = bireme_testing::guest("command");
    let context = tempfile::tempdir().unwrap();
    std::fs::copy(guest, context.path().join("app.wasm")).unwrap();
    let build = |dockerfile: &str, args: &[&str]| {
        std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
        let mut command = story.engine.command("docker", ["build"].iter().chain(args));
        command.arg(context.path()).env("DOCKER_BUILDKIT", "0");
        story.engine.run(command)
    };
    let scratch = "FROM scratch\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n";
    let log = build(scratch, &["-t", "known"]);
    assert!(log.stdout().contains("/app.wasm is a WebAssembly component"), "{log}");
    story.prints(&["image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "known"], "wasi/wasm\n");
    story.engine.docker(["run", "--rm", "known", "spam", "2"]).stdout();
    // On a Linux image, or said to be for Linux: what to add is told.
    for (dockerfile, args) in [
        ("FROM busybox\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n", &["-t", "told"][..]),
        (scratch, &["-t", "told", "--platform", "linux/amd64"]),
    ] {
        build(dockerfile, args).stdout();
        let refused = story.engine.docker(["run", "--rm", "told"]);
        assert!(
            refused.stderr().contains("/app.wasm is a WebAssembly component, but its image says that it is for linux/")
                && refused
                    .stderr()
                    .contains("build the image with --platform wasi/wasm (in a Compose file: platform: wasi/wasm)"),
            "{refused}"
        );
    }
    // Docker's own client refuses it too, in fewer words.
    let refused = story.engine.request("POST", "/containers/create?platform=wasm32", br#"{"Image":"known"}"#);
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.text().contains("did you mean wasi/wasm?"), "{refused:?}");
    build(scratch, &["--platform", "linux/amd46"]).fails(1, "did you mean linux/amd64?");
    story.engine.docker(["tag", "known", "sha256:beef"]).fails(1, "digest algorithm as name");
    story.end();
}

#[test]
fn programs_are_found_in_images_that_have_no_path() {
    let story = Story::begin();
    story.engine.docker(["create", "--name", "tree", "busybox"]).stdout();
    let archive = story.engine.folder().join("tree.tar");
    story.engine.docker(["export", "-o", archive.to_str().unwrap(), "tree"]).stdout();
    story.engine.docker(["rm", "tree"]).stdout();
    story.engine.docker(["import", archive.to_str().unwrap(), "tree"]).stdout();
    story
        .dockerfile("FROM tree\nENV PATH=/x:$PATH\nRUN ls /bin/sh && echo $PATH > /path\n", &["-t", "pathed"])
        .stdout();
    let path = "/x:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
    story.prints(&["run", "--rm", "pathed", "cat", "/path"], path);
    story.prints(&["run", "--rm", "pathed", "sh", "-c", "echo $PATH"], path);
    story.end();
}
