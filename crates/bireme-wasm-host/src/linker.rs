//! Everything a component may import.

use bireme_core::nearest::nearest;
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::guest::Guest;
use crate::host;

/// Packages offered, with the versions that guests may ask for. A trailing `.` matches every patch release.
pub(crate) const OFFERED: &[(&str, &[&str])] = &[
    ("fermyon:spin/key-value", &["2.0.0"]),
    ("fermyon:spin/redis", &["2.0.0"]),
    ("fermyon:spin/redis-types", &[""]),
    ("fermyon:spin/variables", &["2.0.0"]),
    ("spin:key-value/key-value", &["3.0.0"]),
    ("spin:redis/redis", &["3.0.0"]),
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
    ("wasi:random/", &["0.2.", "0.3."]),
    ("wasi:sockets/", &["0.2.", "0.3."]),
];

/// Links every host interface. Once per process.
pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    host::sockets::add_to_linker(&mut linker)?;
    host::open::add_to_linker(&mut linker)?;
    host::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The linker of core modules that speak WASI preview 1.
pub(crate) fn new_p1(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<Guest>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |guest: &mut Guest| {
        guest.p1.as_mut().expect("stores of core modules are made by Guest::store_p1")
    })?;
    // The WASI crate takes codes above 125 for a failure of the guest; for a process they are codes like others.
    linker.allow_shadowing(true);
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::from(wasmtime_wasi::I32Exit(code & 0xff)))
    })?;
    host::open::add_to_linker_p1(&mut linker)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// Whether the interface `import` (`wasi:http/types@0.2.3`) is offered in that version.
pub(crate) fn offers(import: &str) -> bool {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    OFFERED.iter().any(|(offered, versions)| {
        let named = if offered.ends_with('/') { name.starts_with(offered) } else { name == *offered };
        let released = |want: &&str| {
            if want.ends_with('.') { version.starts_with(*want) && !version.contains('-') } else { version == *want }
        };
        named && versions.iter().any(released)
    })
}

/// A hint for an import that is not offered: the package's versions that are, or the nearest name.
pub(crate) fn hint(import: &str) -> String {
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
}
