//! Labels, routes and ports of components, and what a component cannot do.

use bireme_testing::free_port;

use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        subject: "label",
        input: "a key that does not exist",
        code: 1,
        words: "unknown label \"bireme.alow\": did you mean \"bireme.allow\"?",
        run: |b| b.labelled("bireme.alow=http://x"),
    },
    Row {
        subject: "label",
        input: "a malformed duration",
        code: 1,
        words: "label bireme.timeout: \"soon\" is not a duration such as 500ms, 30s or 1m30s",
        run: |b| b.labelled("bireme.timeout=soon"),
    },
    Row {
        subject: "label",
        input: "a malformed route",
        code: 1,
        words: "route \"tally\" has no path: it must be like /tally, /api/... or host/path",
        run: |b| b.labelled("bireme.http.route=tally"),
    },
    Row {
        subject: "label",
        input: "two routes that cannot be told apart",
        code: 1,
        words: "routes /a/:x and /a/:y cannot be told apart",
        run: |b| b.labelled("bireme.http.route=/a/:x,/a/:y"),
    },
    Row {
        subject: "label",
        input: "a malformed permission",
        code: 1,
        words: "has a bad port: use 1 to 65535, or *",
        run: |b| b.labelled("bireme.allow=http://x:0"),
    },
    Row {
        subject: "label",
        input: "a malformed schedule",
        code: 1,
        words: "label bireme.schedule: \"tomorrow\" is not five fields",
        run: |b| b.labelled("bireme.schedule=tomorrow"),
    },
    Row {
        subject: "route",
        input: "a clash on a shared host port",
        code: 1,
        words: "clashes with /... of first: give one of them another bireme.http.route or another port",
        run: |b| {
            let publish = format!("{}:80", free_port());
            b.docker(&["create", "--name", "first", "--platform", "wasi/wasm", "-p", &publish, "hello"]).stdout();
            let second = b.docker(&["create", "--name", "second", "--platform", "wasi/wasm", "-p", &publish, "hello"]);
            b.docker(&["rm", "first"]).stdout();
            second
        },
    },
    Row {
        subject: "port",
        input: "one that is taken, for a component",
        code: 125,
        words: "address already in use: stop what listens there, or publish another port",
        run: |b| {
            let publish = format!("{}:80", b.taken.local_addr().unwrap().port());
            b.docker(&["run", "--rm", "--platform", "wasi/wasm", "-p", &publish, "hello"])
        },
    },
    Row {
        subject: "port",
        input: "one that is taken, for a container",
        code: 125,
        words: "address already in use",
        run: |b| {
            let publish = format!("{}:80", b.taken.local_addr().unwrap().port());
            b.docker(&["run", "--rm", "-p", &publish, "busybox", "true"])
        },
    },
    Row {
        subject: "component",
        input: "imports that this engine does not offer",
        code: 1,
        words: "example:thing/made-up",
        run: |b| b.component("(component (import \"example:thing/made-up\" (instance (export \"f\" (func)))))"),
    },
    Row {
        subject: "component",
        input: "bytes that are no WebAssembly",
        code: 126,
        words: "is not a WebAssembly module or component",
        run: |b| {
            let path = b.file("noise.wasm", b"this is a letter, not a program");
            b.engine.bireme(["create", path.as_str()])
        },
    },
    Row {
        subject: "component",
        input: "exec into it",
        code: 1,
        words: "is a WebAssembly component and has no processes or shell to exec into",
        run: |b| {
            b.docker(&["run", "-d", "--name", "sealed", "--platform", "wasi/wasm", "hello"]).stdout();
            let refused = b.docker(&["exec", "sealed", "sh"]);
            b.docker(&["rm", "-f", "sealed"]).stdout();
            refused
        },
    },
    Row {
        subject: "component",
        input: "a health check that runs a command",
        code: 1,
        words: "cannot run a health check command: name a path to probe with the label bireme.health",
        run: |b| b.docker(&["create", "--platform", "wasi/wasm", "--health-cmd", "true", "hello"]),
    },
    Row {
        subject: "component",
        input: "a published UDP port",
        code: 125,
        words: "answers HTTP over TCP",
        run: |b| b.docker(&["run", "--rm", "--platform", "wasi/wasm", "-p", "9/udp", "hello"]),
    },
];
