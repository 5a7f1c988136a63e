//! Whether a text can be an image's name, and what a platform's parts are.
//!
//! Source: github.com/distribution/reference, `ParseNormalizedNamed`; github.com/containerd/platforms, `Parse`.

const LONGEST_NAME: usize = 255;

/// Whether it can be the name of an image, in its short form too.
pub(super) fn is_valid(text: &str) -> bool {
    if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return false;
    }
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    };
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (rest, None),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    domain.is_none_or(is_domain)
        && domain.map_or(0, str::len) + path.len() < LONGEST_NAME
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'));
    (bracketed || host.split('.').all(label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Letters and digits in lower case, with one dot, one or two underscores or any dashes between them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(alphanumeric) && text.bytes().last().is_some_and(alphanumeric);
    let separators = || text.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    ends && separators().all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.split(['-', '_', '+', '.']).all(|part| {
            part.starts_with(|first: char| first.is_ascii_alphabetic())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }) && hex.len() >= 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const MACHINES: [&str; 15] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm", "sparc64",
];

/// System and machine of a platform's words, under the names that they go by. `None` where it is none.
pub(super) fn platform(text: &str) -> Option<(String, String)> {
    let parts: Vec<String> = text.split('/').map(str::to_lowercase).collect();
    let good = |part: &String| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    if !parts.iter().all(good) {
        return None;
    }
    let system = |name: &str| if name == "macos" { "darwin".to_owned() } else { name.to_owned() };
    let machine = |name: &str| {
        match name {
            "i386" => "386",
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "armhf" | "armel" => "arm",
            other => other,
        }
        .to_owned()
    };
    match &parts[..] {
        [one] if SYSTEMS.contains(&system(one).as_str()) => Some((system(one), machine(std::env::consts::ARCH))),
        [one] if MACHINES.contains(&machine(one).as_str()) => Some(("linux".to_owned(), machine(one))),
        [os, arch] | [os, arch, _] => Some((system(os), machine(arch))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_names_of_images() {
        let hex = "0".repeat(64);
        for good in [
            "busybox",
            "a/b:c",
            "localhost:5000/a",
            "Reg.io/a__b/c-d",
            "a.b",
            &format!("a@sha256:{hex}"),
            "[::1]:5/a",
            "0",
        ] {
            assert!(is_valid(good), "{good}");
        }
        for bad in
            ["", "A", "a:", "a/B", "a@sha256:00", "a..b", "a-", "-a", "a:b:c", "a//b", "a b", &hex, "a___b", "$x"]
        {
            assert!(!is_valid(bad), "{bad}");
        }
        for (text, read) in [
            ("linux/amd64", Some(("linux", "amd64"))),
            ("x86_64", Some(("linux", "amd64"))),
            ("linux/aarch64/v8", Some(("linux", "arm64"))),
            ("wasi/wasm", Some(("wasi", "wasm"))),
            ("foo", None),
            ("a/b/c/d", None),
            ("", None),
        ] {
            let read = read.map(|(os, arch)| (os.to_owned(), arch.to_owned()));
            assert_eq!(platform(text), read, "{text}");
        }
    }
}
