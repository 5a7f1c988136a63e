//! `RUN --mount`.
//!
//! Source: docs.docker.com/reference/dockerfile, "RUN --mount"; github.com/moby/buildkit,
//! `frontend/dockerfile/instructions/commands_runmount.go`.

use bireme_core::go::parse_bool;

use crate::error::ParseError;
use crate::instruction::Instruction;
use crate::suggest;
use crate::words::Expander;

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A folder that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret of the client.
    Secret,
    /// The client's agent.
    Ssh,
}

impl MountKind {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All.
    #[default]
    Shared,
    /// Each their own copy.
    Private,
    /// One after the other.
    Locked,
}

/// One mount of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Of bind and cache: the stage, image or named context; the build context without.
    pub from: Option<String>,
    /// A path in `from`; of a secret, its name with the client.
    pub source: Option<String>,
    /// Where it is seen; see [`Self::target_in`].
    pub target: Option<String>,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// The name of a cache, secret or agent as it is given; see [`Self::cache_id`], [`Self::secret_id`], [`Self::ssh_id`].
    pub id: Option<String>,
    /// Of a cache.
    pub sharing: Sharing,
    /// Of a secret or agent: without it the step fails.
    pub required: bool,
    /// Permissions: of a cache's folder (0755), a secret (0400), a socket (0600).
    pub mode: Option<u32>,
    /// Its owner, else 0.
    pub uid: Option<u32>,
    /// Its group, else 0.
    pub gid: Option<u32>,
    /// Of tmpfs: most bytes.
    pub size: Option<u64>,
    /// Of a secret: the variable that holds it.
    pub env: Option<String>,
}

const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
];

/// What can be said before variables have values.
pub(super) fn check(at: &Instruction, value: &str) -> Result<(), ParseError> {
    for field in fields(at, value)? {
        if let Some((key, value)) = field.split_once('=')
            && key.eq_ignore_ascii_case("from")
            && value.find('$').is_some_and(|dollar| dollar + 1 < value.len())
        {
            return Err(at.fault("'from' doesn't support variable expansion, define alias stage instead"));
        }
    }
    Ok(())
}

/// What the mounts of RUN come from, where they say so, and where they are seen; as written.
pub(crate) fn mounted_from(at: &Instruction) -> Result<Vec<(String, String)>, ParseError> {
    let mut found = Vec::new();
    for value in at.flag_values("mount") {
        let fields = fields(at, &value)?;
        let last = |keys: &[&str]| {
            let mut pairs = fields.iter().rev().filter_map(|field| field.split_once('='));
            pairs.find(|(key, _)| keys.contains(&key.to_lowercase().as_str())).map(|(_, word)| word.to_owned())
        };
        let target = last(&["target", "dst", "destination"]).unwrap_or_default();
        found.extend(last(&["from"]).filter(|name| !name.is_empty()).map(|from| (from, target)));
    }
    Ok(found)
}

/// The words of a mount in which variables may stand.
pub(crate) fn mount_words(value: &str) -> Vec<String> {
    let fields = super::csv::fields(value).unwrap_or_default();
    fields.iter().filter_map(|field| field.split_once('=')).map(|(_, word)| word.to_owned()).collect()
}

fn fields(at: &Instruction, value: &str) -> Result<Vec<String>, ParseError> {
    super::csv::fields(value).map_err(|reason| at.fault(format!("failed to parse csv mounts: {reason}")))
}

/// Reads one mount.
pub(super) fn mount(at: &Instruction, value: &str, expander: &mut Expander<'_>) -> Result<Mount, ParseError> {
    check(at, value)?;
    let mut mount = Mount::default();
    let mut sharing = None;
    let mut read_only = None;
    for field in fields(at, value)? {
        let fault = |reason: String| Err(at.fault(reason));
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        let secret_or_ssh = matches!(mount.kind, MountKind::Secret | MountKind::Ssh);
        let Some(value) = value else {
            match key.as_str() {
                "readonly" | "ro" => read_only = Some(true),
                "readwrite" | "rw" => read_only = Some(false),
                "required" if secret_or_ssh => mount.required = true,
                "required" => return fault(unexpected(&key, mount.kind)),
                _ => return fault(format!("invalid field '{field}' must be a key=value pair")),
            }
            continue;
        };
        let value = expander.word(value).map_err(|reason| at.fault(reason))?;
        let flag = || parse_bool(&value).ok_or_else(|| at.fault(format!("invalid value for {key}: {value}")));
        let number = || value.parse::<u32>().ok().filter(|_| !value.starts_with('+'));
        let given = || Some(value.clone()).filter(|value| !value.is_empty());
        match key.as_str() {
            "type" => {
                let kind = MountKind::ALL.into_iter().find(|kind| kind.as_str() == value.to_lowercase());
                let Some(kind) = kind else {
                    let kinds = MountKind::ALL.map(MountKind::as_str);
                    return fault(suggest::with_nearest(
                        format!("unsupported mount type {value:?}"),
                        &value,
                        kinds,
                        true,
                    ));
                };
                mount.kind = kind;
            }
            "from" => mount.from = given(),
            "source" | "src" => mount.source = given(),
            "target" | "dst" | "destination" => mount.target = given(),
            "readonly" | "ro" => read_only = Some(flag()?),
            "readwrite" | "rw" => read_only = Some(!flag()?),
            "required" if secret_or_ssh => mount.required = flag()?,
            "required" => return fault(unexpected(&key, mount.kind)),
            "size" if mount.kind == MountKind::Tmpfs => match bytes(&value) {
                Some(size) => mount.size = Some(size),
                None => return fault(format!("invalid value for size: {value}")),
            },
            "size" => return fault(unexpected(&key, mount.kind)),
            "id" => mount.id = given(),
            "sharing" => {
                sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => return fault(format!("unsupported sharing value {value:?}")),
                });
            }
            "mode" => match u32::from_str_radix(&value, 8).ok().filter(|_| !value.starts_with('+')) {
                Some(mode) => mount.mode = Some(mode),
                None => return fault(format!("invalid value {value} for mode")),
            },
            "uid" => match number() {
                Some(uid) => mount.uid = Some(uid),
                None => return fault(format!("invalid value {value} for uid")),
            },
            "gid" => match number() {
                Some(gid) => mount.gid = Some(gid),
                None => return fault(format!("invalid value {value} for gid")),
            },
            "env" => mount.env = given(),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return fault(suggest::with_nearest(message, &key, KEYS, true));
            }
        }
    }
    mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
    whole(&mount, sharing).map_err(|reason| at.fault(reason))?;
    mount.sharing = sharing.unwrap_or_default();
    Ok(mount)
}

fn unexpected(key: &str, kind: MountKind) -> String {
    format!("unexpected key '{key}' for mount type '{}'", kind.as_str())
}

/// What depends on several keys.
fn whole(mount: &Mount, sharing: Option<Sharing>) -> Result<(), String> {
    let kind = mount.kind.as_str();
    if matches!(mount.kind, MountKind::Bind | MountKind::Tmpfs) {
        for (key, given) in [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)] {
            if given.is_some() {
                return Err(format!("{key} not allowed for {kind:?} type mounts"));
            }
        }
    }
    if sharing.is_some() && mount.kind == MountKind::Secret {
        return Err("secret mount should not define sharing".to_owned());
    }
    if sharing.is_some() && mount.kind != MountKind::Cache {
        return Err(format!("invalid cache sharing set for {kind} mount"));
    }
    if mount.kind == MountKind::Secret {
        if mount.from.is_some() {
            return Err("secret mount should not have a from".to_owned());
        }
        if mount.source.is_none() && mount.target.is_none() && mount.id.is_none() {
            return Err("invalid secret mount. one of source, target required".to_owned());
        }
        if mount.source.is_some() && mount.id.is_some() {
            return Err("both source and id can't be set".to_owned());
        }
    }
    Ok(())
}

/// Bytes with the units of Docker: `10m`, `1.5GiB`.
///
/// Source: github.com/docker/go-units, `RAMInBytes`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.rfind(|letter: char| letter.is_ascii_digit() || letter == '.')? + 1;
    let number: f64 = lower[..digits].parse().ok()?;
    let unit = lower[digits..].strip_prefix(' ').unwrap_or(&lower[digits..]);
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let unit: u64 = match unit {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the units are powers of two, and a cast from f64 saturates"
    )]
    (number >= 0.0).then_some((number * unit as f64) as u64)
}

impl Mount {
    /// Where a mount of type bind, cache or tmpfs is seen, for a step in the folder `workdir`: absolute, without `.` and `..`.
    ///
    /// # Errors
    /// When it would cover everything.
    pub fn target_in(&self, workdir: &str) -> Result<String, String> {
        let target = clean(workdir, self.target.as_deref().unwrap_or_default());
        if target == "/" { Err(format!("invalid mount target {target:?}")) } else { Ok(target) }
    }

    /// The name of a cache: its target where no other is given.
    pub fn cache_id(&self, workdir: &str) -> Result<String, String> {
        match &self.id {
            Some(id) => Ok(id.clone()),
            None => self.target_in(workdir),
        }
    }

    /// The name of a secret with the client.
    pub fn secret_id(&self) -> &str {
        let target = || self.target.as_deref().unwrap_or_default().trim_end_matches('/');
        self.source.as_deref().or(self.id.as_deref()).unwrap_or_else(|| target().rsplit('/').next().unwrap_or_default())
    }

    /// Where a secret is seen as a file; `None` when a variable alone holds it.
    pub fn secret_target(&self) -> Option<String> {
        match (&self.target, &self.env) {
            (Some(target), _) => Some(target.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(format!("/run/secrets/{}", self.secret_id().rsplit('/').next().unwrap_or_default())),
        }
    }

    /// The name of an agent with the client.
    pub fn ssh_id(&self) -> &str {
        self.id.as_deref().or(self.source.as_deref()).unwrap_or("default")
    }
}

/// A path on top of a folder, without `.` and `..`.
fn clean(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let folder = if path.starts_with('/') { "" } else { folder };
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
