//! Templates, what is on the disk, and a build from standard input.

use std::fs;

use bireme_testing::eventually;

use super::{bireme, engine};

#[test]
fn templates_print_what_dockers_client_prints() {
    let engine = engine();
    engine.docker([
        "run",
        "-d",
        "--name",
        "it",
        "--init",
        "-l",
        "a=1",
        "-l",
        "b.c=two words",
        "busybox",
        "sleep",
        "600",
    ]);
    let inspected = [
        "{{.Name}} {{.Config.Image}}",
        "{{.Config.Labels.missing}}",
        "{{index .Config.Labels \"missing\"}}|",
        "{{index .Config.Labels \"b.c\"}}",
        "{{index .Config.Cmd 0}} {{len .Config.Cmd}}",
        "{{index .Config.Cmd 9}}",
        "{{.Nope}}",
        "{{printf \"%T\" .Name}} {{printf \"%q %5s|%-5s|\" .Config.Image \"a\" \"b\"}}",
        "{{printf \"%d|%05d|%x\" .RestartCount 42 255}}",
        "{{printf \"%d %s\" .Name 7}}",
        "{{range .Config.Cmd}}<{{.}}>{{end}}",
        "{{range $i, $e := .Config.Cmd}}{{if $i}},{{end}}{{$e}}{{end}}",
        "{{range .Mounts}}x{{else}}none{{end}}",
        "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
        "{{with .State}}{{.Status}} {{$.Name}}{{end}}{{with .Mounts}}x{{else}}y{{end}}",
        "{{if eq .State.Status \"exited\"}}a{{else if .State.Running}}b{{else}}c{{end}}",
        "{{.Config.Cmd | json}} {{json .Config.Labels}}",
        "{{.Name | upper | printf \"%s!\"}}",
        "{{join .Config.Cmd \" \"}} {{title \"two words\"}} {{lower \"X\"}} {{split \"a:b\" \":\"}}",
        "{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}",
        "{{range .Config.Cmd}}{{if eq . \"600\"}}{{break}}{{end}}{{.}}{{end}}",
        "{{if and .State.Running (not .State.Paused)}}up{{end}} {{or \"\" \"b\"}}",
        "{{- .Name -}}   x",
        "{{print 1 2 \"a\" 3}} {{println \"x\"}}",
        "{{if .Name}",
        "{{end}}",
        "{{nope .Name}}",
    ];
    let listed = [
        "{{.Names}}\t{{.Label \"a\"}}|{{.Label \"zz\"}}",
        "table {{.Names}}\t{{.State}}",
        "{{.Nope}}",
        "{{upper .Names}}",
    ];
    let inspections = inspected.iter().map(|template| ["inspect", "-f", template, "it"].to_vec());
    let lists = listed.iter().map(|template| ["ps", "--format", template].to_vec());
    let mut wrong = Vec::new();
    for args in inspections.chain(lists) {
        let (theirs, ours) = (engine.docker(&args), engine.bireme(&args));
        // What each says of a mistake is its own; that it is one is not.
        let same =
            (theirs.code == 0) == (ours.code == 0) && (theirs.code != 0 || theirs.raw_stdout() == ours.raw_stdout());
        if !same {
            wrong.push(format!("{args:?}\n docker: {theirs}\n bireme: {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    engine.docker(["rm", "-f", "it"]);
    engine.finish();
}

#[test]
fn what_is_on_the_disk_is_told_and_freed_as_docker_does() {
    let engine = engine();
    engine.docker(["create", "--name", "gone", "busybox", "true"]);
    engine.docker(["volume", "create", "kept"]);
    engine.docker(["run", "-d", "--name", "up", "--init", "busybox", "sleep", "600"]);
    let summary = || (engine.docker(["system", "df"]), engine.bireme(["system", "df"]));
    let (theirs, ours) = summary();
    assert_eq!(theirs.raw_stdout(), ours.raw_stdout());
    let json = engine.bireme(["system", "df", "--format", "{{.Type}}={{.TotalCount}}"]);
    assert_eq!(json.stdout(), "Images=1\nContainers=2\nLocal Volumes=1\nBuild Cache=0\n");
    assert!(engine.bireme(["system", "df", "-v"]).stdout().contains("kept"));
    engine.bireme(["system", "prune"]).fails(1, "--force");
    let pruned = engine.bireme(["system", "prune", "-f"]);
    assert_eq!(pruned.code, 0, "{pruned}");
    assert!(pruned.stdout().contains("Deleted Containers:") && pruned.stdout().contains("Total reclaimed space:"));
    assert_eq!(engine.docker(["ps", "-a", "--format", "{{.Names}}"]).stdout(), "up\n");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "kept\n");
    assert_eq!(engine.bireme(["builder", "prune", "-af"]).code, 0);

    let updated = engine.bireme(["update", "--memory", "64m", "--memory-swap", "128m", "up"]);
    assert_eq!((updated.code, updated.stdout()), (0, "up\n"), "{updated}");
    assert_eq!(engine.docker(["inspect", "-f", "{{.HostConfig.Memory}}", "up"]).stdout(), "67108864\n");
    engine.bireme(["update", "up"]).fails(1, "you must provide one or more flags");
    engine.docker(["rm", "-f", "up"]);
    eventually("no container", || engine.docker(["ps", "-aq"]).stdout().is_empty().then_some(()));
    engine.finish();
}

#[test]
fn a_dockerfile_alone_is_built_from_standard_input() {
    let engine = engine();
    let build = |text: &str| {
        let mut command = engine.command(bireme(), ["build", "-q", "-t", "piped", "-"]);
        let path = engine.folder().join("input");
        fs::write(&path, text).unwrap();
        command.stdin(fs::File::open(path).unwrap());
        engine.run(command)
    };
    build("FROM busybox\nLABEL made=alone\n").stdout();
    assert_eq!(engine.docker(["inspect", "-f", "{{.Config.Labels.made}}", "piped"]).stdout(), "alone\n");
    build("NONSENSE\n").fails(1, "NONSENSE");
    let context = engine.folder().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), "FROM busybox\n").unwrap();
    let (file, context) = (engine.folder().join("id"), context.to_str().unwrap().to_owned());
    let named = |path: &str| engine.bireme(["build", "-q", "--iidfile", path, context.as_str()]);
    let id = named(file.to_str().unwrap()).stdout().trim().to_owned();
    assert_eq!(fs::read_to_string(&file).unwrap(), id);
    named("/dev/null").fails(1, "it is a device");
    engine.finish();
}
