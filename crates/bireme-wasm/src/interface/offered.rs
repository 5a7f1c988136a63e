//! What this engine offers to components, and what of them starts their instances: decided from names alone.

use bireme_core::ErrorKind;
use bireme_core::nearest::nearest;

use crate::protocol::{Refusal, Trigger};

/// Packages offered, with the versions that guests may ask for. A trailing `.` matches every patch release, a trailing `-` every
/// draft.
const OFFERED: &[(&str, &[&str])] = &[
    ("fermyon:spin/key-value", &["2.0.0"]),
    ("fermyon:spin/mqtt", &["2.0.0"]),
    ("fermyon:spin/mysql", &["2.0.0"]),
    ("fermyon:spin/postgres", &["2.0.0"]),
    ("fermyon:spin/rdbms-types", &["2.0.0"]),
    ("fermyon:spin/redis", &["2.0.0"]),
    ("fermyon:spin/redis-types", &[""]),
    ("fermyon:spin/sqlite", &["2.0.0"]),
    ("fermyon:spin/variables", &["2.0.0"]),
    ("spin:key-value/key-value", &["3.0.0"]),
    ("spin:mqtt/mqtt", &["3.0.0"]),
    ("spin:mysql/mysql", &["3.0.0"]),
    ("spin:postgres/postgres", &["3.0.0", "4.0.0", "4.1.0", "4.2.0"]),
    ("spin:redis/redis", &["3.0.0"]),
    ("spin:sqlite/sqlite", &["3.0.0", "3.1.0"]),
    ("spin:variables/variables", &["3.0.0"]),
    ("wasi:cli/", &["0.2.", "0.3."]),
    ("wasi:clocks/", &["0.2.", "0.3."]),
    ("wasi:config/store", &["0.2.0-draft-2024-09-27", "0.2.0-rc.1"]),
    ("wasi:filesystem/", &["0.2.", "0.3."]),
    ("wasi:http/", &["0.2.", "0.3."]),
    ("wasi:io/", &["0.2."]),
    ("wasi:keyvalue/atomics", &["0.2.0-draft2", "0.2.0-draft"]),
    ("wasi:keyvalue/batch", &["0.2.0-draft2", "0.2.0-draft"]),
    ("wasi:keyvalue/store", &["0.2.0-draft2", "0.2.0-draft"]),
    ("wasi:logging/logging", &["", "0.1.0-draft"]),
    ("wasi:random/", &["0.2.", "0.3."]),
    ("wasi:sockets/", &["0.2.", "0.3."]),
];

/// Packages that are not offered, and that SDKs of Spin import whether they are used or not: a component with them runs, and a
/// call of them traps.
const TRAPS: &[(&str, &[&str])] = &[
    ("fermyon:spin/llm", &["2."]),
    // Drafts that the world of the Python SDK has beside the release.
    ("wasi:cli/", &["0.3.0-rc-"]),
    ("wasi:clocks/", &["0.3.0-rc-"]),
    ("wasi:filesystem/", &["0.3.0-rc-"]),
    ("wasi:http/", &["0.3.0-rc-"]),
    ("wasi:random/", &["0.3.0-rc-"]),
    ("wasi:sockets/", &["0.3.0-rc-"]),
];

/// Whether calls of the interface `import` trap.
pub fn traps(import: &str) -> bool {
    is_among(TRAPS, import)
}

/// Whether the interface `import` (`wasi:http/types@0.2.3`) is offered in that version.
fn offers(import: &str) -> bool {
    is_among(OFFERED, import)
}

fn is_among(packages: &[(&str, &[&str])], import: &str) -> bool {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    packages.iter().any(|(offered, versions)| {
        let named = if offered.ends_with('/') { name.starts_with(offered) } else { name == *offered };
        let released = |want: &&str| match want.chars().last() {
            Some('.') => version.starts_with(*want) && !version.contains('-'),
            Some('-') => version.starts_with(*want),
            _ => version == *want,
        };
        named && versions.iter().any(released)
    })
}

/// A hint for an import that is not offered: the package's versions that are, or the nearest name.
fn hint(import: &str) -> String {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let package = OFFERED
        .iter()
        .find(|(offered, _)| if offered.ends_with('/') { name.starts_with(offered) } else { name == *offered });
    match package {
        Some((_, versions)) => {
            let versions: Vec<String> =
                versions.iter().map(|v| if v.ends_with('.') { format!("{v}x") } else { (*v).to_owned() }).collect();
            format!("{import} (version {version} is not offered; {} is)", versions.join(" and "))
        }
        None => match nearest(name, OFFERED.iter().map(|(offered, _)| *offered)) {
            Some(near) => format!("{import} (did you mean {near}?)"),
            None => import.to_owned(),
        },
    }
}

/// The refusal of what imports something that is not offered; `None` where all is.
pub fn refuse_imports(imports: &[String], is_module: bool) -> Option<Refusal> {
    let missing: Vec<String> = if is_module {
        imports.iter().filter(|import| !offered_p1(import)).cloned().collect()
    } else {
        imports.iter().filter(|import| !offers(import) && !traps(import)).map(|import| hint(import)).collect()
    };
    (!missing.is_empty()).then(|| missing_imports(&missing))
}

/// What starts instances of a core module with these exports.
///
/// # Errors
/// `Invalid` where nothing does.
pub fn module_trigger(exports: &[String]) -> Result<Trigger, Refusal> {
    let exports = |wanted: &str| exports.iter().any(|name| name == wanted);
    // Compilers of programs export _start too, and leave it to the handler.
    for (name, trigger) in [
        ("handle-http-request", Trigger::HttpSpin1),
        ("handle-redis-message", Trigger::RedisSpin1),
        ("_start", Trigger::CommandP1),
    ] {
        if exports(name) {
            return Ok(trigger);
        }
    }
    let text = "the module exports none of _start, handle-http-request and handle-redis-message, so there is nothing to run; \
                build it as a command or as a component";
    Err(Refusal::new(ErrorKind::Invalid, text))
}

fn missing_imports(missing: &[String]) -> Refusal {
    let text = format!(
        "the component imports what this engine does not offer: {}; build it without, or for an interface that is \
         offered",
        missing.join(", ")
    );
    Refusal::new(ErrorKind::Unsupported, text)
}

/// What starts instances of a component with these exports.
///
/// # Errors
/// `Unsupported` where nothing does, or several things do.
pub fn trigger(exports: &[String]) -> Result<Trigger, Refusal> {
    const KNOWN: &[(&str, &str, Trigger)] = &[
        ("wasi:http/incoming-handler", "0.2.", Trigger::HttpP2),
        ("wasi:http/handler", "0.3.0", Trigger::HttpP3),
        ("fermyon:spin/inbound-redis", "", Trigger::RedisP2),
        ("spin:redis/inbound-redis", "3.", Trigger::RedisP3),
        ("wasi:cli/run", "0.2.", Trigger::CommandP2),
        ("wasi:cli/run", "0.3.0", Trigger::CommandP3),
    ];
    let mut found: Vec<(&String, Trigger)> = exports
        .iter()
        .filter_map(|export| {
            let (name, version) = export.split_once('@').unwrap_or((export, ""));
            let known = KNOWN
                .iter()
                .find(|(known, want, _)| *known == name && version.starts_with(want) && !version.contains('-'));
            known.map(|(_, _, trigger)| (export, *trigger))
        })
        .collect();
    // Compilers of programs export a main function too, whatever the program is: of one that answers requests, it does nothing.
    if found.iter().any(|(_, trigger)| trigger.name() != "command") {
        found.retain(|(_, trigger)| trigger.name() != "command");
    }
    let Some(newest) = found.iter().map(|(_, trigger)| *trigger).max_by_key(|trigger| trigger.generation()) else {
        let has = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        let text = format!(
            "the component exports none of wasi:http/incoming-handler@0.2, wasi:http/handler@0.3.0, wasi:cli/run and \
             Spin's inbound-redis, so nothing would ever start it (it exports {has})"
        );
        return Err(Refusal::new(ErrorKind::Unsupported, text));
    };
    // The same trigger in several versions is one: tool chains export the old for hosts that know no better.
    if found.iter().all(|(_, trigger)| trigger.name() == newest.name()) {
        return Ok(newest);
    }
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let text = format!("the component exports {}: one trigger each is offered; split it", names.join(" and "));
    Err(Refusal::new(ErrorKind::Unsupported, text))
}

fn offered_p1(import: &str) -> bool {
    import.strip_prefix("wasi_snapshot_preview1.").is_some_and(|name| P1.contains(&name)) || SPIN1.contains(&import)
}

/// The functions of Spin's interfaces before components.
const SPIN1: &[&str] = &[
    "key-value.close",
    "key-value.delete",
    "key-value.exists",
    "key-value.get",
    "key-value.get-keys",
    "key-value.open",
    "key-value.set",
    "outbound-redis.del",
    "outbound-redis.execute",
    "outbound-redis.get",
    "outbound-redis.incr",
    "outbound-redis.publish",
    "outbound-redis.sadd",
    "outbound-redis.set",
    "outbound-redis.smembers",
    "outbound-redis.srem",
    "spin-config.get-config",
    "wasi-outbound-http.request",
];

/// The functions of WASI preview 1.
const P1: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_decide() {
        for (import, expected) in [
            ("wasi:http/types@0.2.0", true),
            ("wasi:http/types@0.2.9", true),
            ("wasi:http/client@0.3.0", true),
            ("wasi:http/types@0.3.0-rc-2026-03-15", false),
            ("wasi:http/types@0.4.0", false),
            ("wasi:nn/graph@0.2.0", false),
            ("acme:thing/api", false),
        ] {
            assert_eq!(offers(import), expected, "{import}");
        }
    }

    #[test]
    fn drafts_beside_a_release_may_be_imported_and_trap() {
        for (import, expected) in [
            ("wasi:http/client@0.3.0-rc-2026-03-15", true),
            ("wasi:cli/environment@0.3.0-rc-2026-03-15", true),
            ("fermyon:spin/llm@2.0.0", true),
            ("wasi:http/client@0.3.0", false),
            ("wasi:http/types@0.2.0-rc-2023-11-10", false),
            ("fermyon:spin/mysql@2.0.0", false),
        ] {
            assert_eq!(traps(import), expected, "{import}");
        }
        let imports = ["wasi:http/client@0.3.0-rc-2026-03-15", "wasi:http/client@0.3.0"].map(str::to_owned);
        assert!(refuse_imports(&imports, false).is_none());
    }

    #[test]
    fn of_one_trigger_in_several_versions_the_newest_is_taken() {
        let check = |exports: &[&str], expected: Option<Trigger>| {
            let exports: Vec<String> = exports.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(trigger(&exports).ok(), expected, "{exports:?}");
        };
        check(&["wasi:cli/run@0.2.6", "wasi:cli/run@0.3.0"], Some(Trigger::CommandP3));
        check(&["wasi:cli/run@0.3.0", "wasi:cli/run@0.2.0"], Some(Trigger::CommandP3));
        check(&["wasi:cli/run@0.2.0", "wasi:cli/run@0.2.6"], Some(Trigger::CommandP2));
        check(&["wasi:http/handler@0.3.0", "wasi:http/incoming-handler@0.2.6"], Some(Trigger::HttpP3));
        check(&["fermyon:spin/inbound-redis", "spin:redis/inbound-redis@3.0.0"], Some(Trigger::RedisP3));
        // A draft of 0.3 is none: the release beside it is taken.
        check(&["wasi:cli/run@0.3.0-rc-2025-09-16", "wasi:cli/run@0.2.6"], Some(Trigger::CommandP2));
        // As Rust's compiler makes of a program that is a server.
        check(&["wasi:cli/run@0.2.6", "wasi:http/incoming-handler@0.2.6"], Some(Trigger::HttpP2));
        check(&["fermyon:spin/inbound-redis", "wasi:http/incoming-handler@0.2.6"], None);
        check(&[], None);
    }
}
