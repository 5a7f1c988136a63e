//! Compose files, read by `bireme config`.

use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        subject: "Compose file",
        input: "a key that nobody knows",
        code: 1,
        words: "imagee",
        run: |b| b.compose("services:\n  web:\n    imagee: x\n"),
    },
    Row {
        subject: "Compose file",
        input: "a key that is not done",
        code: 1,
        words: "develop",
        run: |b| b.compose("services:\n  web:\n    image: x\n    develop:\n      watch: []\n"),
    },
    Row {
        subject: "Compose file",
        input: "a circle of dependencies",
        code: 1,
        words: "in a circle: a -> b -> a",
        run: |b| {
            b.compose("services:\n  a:\n    image: x\n    depends_on: [b]\n  b:\n    image: x\n    depends_on: [a]\n")
        },
    },
    Row {
        subject: "Compose file",
        input: "a variable that is required and not set",
        code: 1,
        words: "say which",
        run: |b| b.compose("services:\n  web:\n    image: ${BIREME_TEST_ABSENT:?say which}\n"),
    },
    Row {
        subject: "Compose file",
        input: "a malformed port",
        code: 1,
        words: "80:eighty",
        run: |b| b.compose("services:\n  web:\n    image: x\n    ports: [\"80:eighty\"]\n"),
    },
    Row {
        subject: "Compose file",
        input: "a malformed label of ours",
        code: 1,
        words: "bireme.timeout",
        run: |b| b.compose("services:\n  web:\n    image: x\n    labels:\n      bireme.timeout: soon\n"),
    },
    Row {
        subject: "Compose file",
        input: "no YAML",
        code: 1,
        words: "compose.yaml",
        run: |b| b.compose("services: [unclosed\n"),
    },
];
