//! Flags, environment and defaults become one plain value here and nowhere else.

use std::path::PathBuf;

use bireme_api::Host;
use bireme_core::env as names;

use crate::cli::{ColorChoice, GlobalArgs};

/// Where settings other than flags come from; tests have their own.
pub trait Surroundings {
    /// The value of an environment variable; an empty one counts as absent.
    fn var(&self, name: &str) -> Option<String>;
    /// Whether we are root.
    fn is_root(&self) -> bool;
}

/// The surroundings of this process.
pub struct Process;

impl Surroundings for Process {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }
}

/// Who said where the engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--host`.
    Flag,
    /// The environment variable of this name.
    Environment(&'static str),
    /// Nobody: it is the default socket, and an engine is started there when none answers.
    Default,
}

/// What every command needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the engine listens.
    pub host: Host,
    /// Who said so.
    pub host_origin: Origin,
    /// Colours on a terminal.
    pub color: bool,
}

impl Settings {
    /// Flags over `BIREME_HOST` over `DOCKER_HOST` over the default socket.
    ///
    /// # Errors
    /// An address that cannot be read.
    pub fn resolve(flags: &GlobalArgs, around: &impl Surroundings) -> anyhow::Result<Self> {
        let from_env = |name: &'static str| around.var(name).map(|value| (value, Origin::Environment(name)));
        let named = flags
            .host
            .clone()
            .map(|value| (value, Origin::Flag))
            .or_else(|| from_env(names::BIREME_HOST))
            .or_else(|| from_env(names::DOCKER_HOST));
        let (host, host_origin) = match named {
            Some((text, origin)) => (text.parse()?, origin),
            None => (Host::Unix(default_socket(around)), Origin::Default),
        };
        let color = match flags.color {
            ColorChoice::Never => false,
            ColorChoice::Auto => around.var(names::NO_COLOR).is_none(),
        };
        Ok(Self { host, host_origin, color })
    }
}

/// The folder of the engine's socket when nobody says otherwise.
pub fn default_socket(around: &impl Surroundings) -> PathBuf {
    let folder = if around.is_root() {
        PathBuf::from("/run/bireme")
    } else {
        match around.var("XDG_RUNTIME_DIR") {
            Some(folder) => PathBuf::from(folder).join("bireme"),
            None => PathBuf::from("/run/bireme"),
        }
    };
    folder.join("bireme.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(&'static [(&'static str, &'static str)], bool);

    impl Surroundings for Fake {
        fn var(&self, name: &str) -> Option<String> {
            self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        }

        fn is_root(&self) -> bool {
            self.1
        }
    }

    fn check(flag: Option<&str>, around: &Fake, expected: &str, origin: Origin) {
        let flags = GlobalArgs { host: flag.map(str::to_owned), ..GlobalArgs::default() };
        let settings = Settings::resolve(&flags, around).unwrap();
        assert_eq!((settings.host.to_string().as_str(), settings.host_origin), (expected, origin));
    }

    #[test]
    fn the_host_is_the_flag_then_ours_then_dockers_then_the_default() {
        let both = [("BIREME_HOST", "unix:///b"), ("DOCKER_HOST", "unix:///d")];
        let both = Fake(Box::leak(Box::new(both)), true);
        check(Some("tcp://x:1"), &both, "tcp://x:1", Origin::Flag);
        check(None, &both, "unix:///b", Origin::Environment("BIREME_HOST"));
        check(None, &Fake(&[("DOCKER_HOST", "unix:///d")], true), "unix:///d", Origin::Environment("DOCKER_HOST"));
        check(None, &Fake(&[], true), "unix:///run/bireme/bireme.sock", Origin::Default);
        check(
            None,
            &Fake(&[("XDG_RUNTIME_DIR", "/run/user/1")], false),
            "unix:///run/user/1/bireme/bireme.sock",
            Origin::Default,
        );
    }

    #[test]
    fn no_color_is_heard() {
        let settings = Settings::resolve(&GlobalArgs::default(), &Fake(&[("NO_COLOR", "1")], true)).unwrap();
        assert!(!settings.color);
    }
}
