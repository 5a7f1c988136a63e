//! Images: names, archives, builds, commits, pushes.

use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        subject: "image",
        input: "a name that is no reference",
        code: 125,
        words: "invalid reference format",
        run: |b| b.docker(&["run", "--rm", "Not_A Name"]),
    },
    Row {
        subject: "image",
        input: "one that is not here",
        code: 1,
        words: "No such image: absent:latest",
        run: |b| b.docker(&["create", "--pull", "never", "absent"]),
    },
    Row {
        subject: "image",
        input: "an archive that is noise",
        code: 1,
        words: "the archive is no image that can be loaded",
        run: |b| {
            let path = b.file("noise.tar", &[7u8; 4096]);
            b.docker(&["load", "-i", &path])
        },
    },
    Row {
        subject: "image",
        input: "another platform than it has",
        code: 1,
        words: "no matching manifest for wasi/wasm",
        run: |b| b.docker(&["create", "--pull", "never", "--platform", "wasi/wasm", "busybox"]),
    },
    Row {
        subject: "build",
        input: "a flag that is not done",
        code: 1,
        words: "RUN --device is not offered: devices of the host do not take part in builds",
        run: |b| b.build("FROM busybox\nRUN --device=vendor.example/card make\n"),
    },
    Row {
        subject: "build",
        input: "a command that fails",
        code: 3,
        words: "The command '/bin/sh -c exit 3' returned a non-zero code: 3",
        run: |b| b.build("FROM busybox\nRUN exit 3\n"),
    },
    Row {
        subject: "build",
        input: "a command in an image for components",
        code: 1,
        words: "commands are run in Linux images: RUN in a stage of one, and COPY --from it",
        run: |b| b.build("FROM --platform=wasi/wasm scratch\nCOPY Dockerfile /\nRUN make\n"),
    },
    Row {
        subject: "build",
        input: "an address that does not answer",
        code: 1,
        words: "cannot fetch http://127.0.0.1:1/x",
        run: |b| b.build("FROM scratch\nADD http://127.0.0.1:1/x /x\n"),
    },
    Row {
        subject: "commit",
        input: "a component",
        code: 1,
        words: "is a WebAssembly component and has no files of its own",
        run: |b| {
            b.docker(&["create", "--platform", "wasi/wasm", "--name", "filed", "hello"]).stdout();
            let refused = b.docker(&["commit", "filed"]);
            b.docker(&["rm", "filed"]).stdout();
            refused
        },
    },
    Row {
        subject: "import",
        input: "an archive that is noise",
        code: 1,
        words: "cannot be read",
        run: |b| {
            let noise = b.file("noise.tar", &[7; 4096]);
            b.docker(&["import", &noise])
        },
    },
    Row {
        subject: "push",
        input: "a name that is not here",
        code: 1,
        words: "An image does not exist locally with the tag: localhost:1/absent",
        run: |b| b.docker(&["push", "localhost:1/absent"]),
    },
    Row {
        subject: "build",
        input: "a word that is no instruction",
        code: 1,
        words: "unknown instruction",
        run: |b| b.build("FROM scratch\nCOPPY a b\n"),
    },
    Row {
        subject: "build",
        input: "a file that the context lacks",
        code: 1,
        words: "file not found in build context",
        run: |b| b.build("FROM scratch\nCOPY nothing /\n"),
    },
];
