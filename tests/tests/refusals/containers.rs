//! Containers, their networks and their volumes.

use super::Row;

pub(super) const ROWS: &[Row] = &[
    Row {
        subject: "container",
        input: "a name in use",
        code: 1,
        words: "is already in use by container",
        run: |b| {
            b.docker(&["create", "--name", "twin", "busybox", "true"]).stdout();
            let again = b.docker(&["create", "--name", "twin", "busybox", "true"]);
            b.docker(&["rm", "twin"]).stdout();
            again
        },
    },
    Row {
        subject: "container",
        input: "a program that is not there",
        code: 127,
        words: "executable file not found in $PATH",
        run: |b| b.docker(&["run", "--rm", "busybox", "nope"]),
    },
    Row {
        subject: "container",
        input: "a bind source that is not there",
        code: 125,
        words: "bind source path does not exist",
        run: |b| b.docker(&["run", "--rm", "--mount", "type=bind,src=/no/such/folder,dst=/x", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a mount over /",
        code: 125,
        words: "destination can't be '/'",
        run: |b| b.docker(&["run", "--rm", "-v", "/tmp:/", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a user that the image does not know",
        code: 125,
        words: "nobodyknows",
        run: |b| b.docker(&["run", "--rm", "-u", "nobodyknows", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a log driver that is not offered",
        code: 125,
        words: "no log driver named 'syslog' is registered",
        run: |b| b.docker(&["run", "--rm", "--log-driver", "syslog", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a tag of its log that is not offered",
        code: 125,
        words: "log opt 'tag': \".Odd\" is not offered: .ID,",
        run: |b| b.docker(&["run", "--rm", "--log-opt", "tag={{.Odd}}", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a link to one that is not there",
        code: 125,
        words: "could not get container for absent",
        run: |b| b.docker(&["run", "--rm", "--link", "absent:x", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "outbound permissions",
        code: 1,
        words: "label bireme.allow is not offered for containers yet",
        run: |b| b.docker(&["create", "--label", "bireme.allow=http://x", "busybox", "true"]),
    },
    Row {
        subject: "network",
        input: "one that is not there",
        code: 125,
        words: "network absent not found",
        run: |b| b.docker(&["run", "--rm", "--network", "absent", "busybox", "true"]),
    },
    Row {
        subject: "network",
        input: "an address for its ports that is none",
        code: 1,
        words: "is not an address of this host such as 127.0.0.1",
        run: |b| {
            let binding = "com.docker.network.bridge.host_binding_ipv4=127.0.0.l";
            b.docker(&["network", "create", "-o", binding, "misspelt"])
        },
    },
    Row {
        subject: "network",
        input: "a subnet that is taken",
        code: 1,
        words: "Pool overlaps with other one on this address space",
        run: |b| {
            b.docker(&["network", "create", "--subnet", "10.199.0.0/24", "wide"]).stdout();
            let again = b.docker(&["network", "create", "--subnet", "10.199.0.0/25", "narrow"]);
            b.docker(&["network", "rm", "wide"]).stdout();
            again
        },
    },
    Row {
        subject: "network",
        input: "a static address outside its subnet",
        code: 125,
        words: "no configured subnet or ip-range contain the IP address 10.1.1.1",
        run: |b| {
            b.docker(&["network", "create", "small"]).stdout();
            let refused = b.docker(&["run", "--rm", "--network", "small", "--ip", "10.1.1.1", "busybox", "true"]);
            b.docker(&["network", "rm", "small"]).stdout();
            refused
        },
    },
    Row {
        subject: "volume",
        input: "one in use",
        code: 1,
        words: "volume is in use",
        run: |b| {
            b.docker(&["create", "--name", "holder", "-v", "held:/x", "busybox", "true"]).stdout();
            let refused = b.docker(&["volume", "rm", "held"]);
            b.docker(&["rm", "holder"]).stdout();
            b.docker(&["volume", "rm", "held"]).stdout();
            refused
        },
    },
    Row {
        subject: "volume",
        input: "an option that nobody knows",
        code: 1,
        words: "create odd: invalid option: \"colour\"",
        run: |b| b.docker(&["volume", "create", "--opt", "colour=red", "odd"]),
    },
];
