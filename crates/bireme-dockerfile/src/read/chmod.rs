//! `--chmod` of COPY and ADD: octal digits, or the symbols of chmod(1).
//!
//! Source: POSIX, `chmod`, "Extended description". As with BuildKit, a clause that names nobody means all, and does not give
//! others than the owner the right to write.

/// What becomes of the permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// They are these.
    Octal(u32),
    /// They change so, one after the other.
    Symbolic(Vec<Change>),
}

/// One change: `u+x` of `u+x,g=r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Bits that it may touch: those of the user, group or others that are named.
    who: u32,
    /// Bits that a missing name takes out.
    umask: u32,
    operator: Operator,
    permissions: Permissions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permissions {
    /// For all; `who` picks. The flag is `X`.
    Bits(u32, bool),
    /// What the owner, group or others have: how far their bits are shifted.
    CopyOf(u32),
}

const UMASK: u32 = 0o022;
const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;

impl Chmod {
    /// Reads either form.
    ///
    /// # Errors
    /// When it is neither, in BuildKit's words.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Octal).ok_or_else(|| {
                format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
            });
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let names = clause.find(['+', '-', '=']).ok_or("invalid syntax")?;
            let (names, mut rest) = clause.split_at(names);
            let mut who = 0;
            for name in names.chars() {
                who |= match name {
                    'u' => USER,
                    'g' => GROUP,
                    'o' => OTHERS,
                    'a' => USER | GROUP | OTHERS,
                    _ => return Err("invalid syntax".to_owned()),
                };
            }
            let (who, umask) = if who == 0 { (USER | GROUP | OTHERS, UMASK) } else { (who, 0) };
            while let Some(sign) = rest.chars().next() {
                let operator = match sign {
                    '+' => Operator::Add,
                    '-' => Operator::Remove,
                    _ => Operator::Set,
                };
                rest = &rest[1..];
                let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
                let permissions = permissions(&rest[..end])?;
                rest = &rest[end..];
                changes.push(Change { who, umask, operator, permissions });
            }
        }
        Ok(Self::Symbolic(changes))
    }

    /// The permissions of a file or folder that had `mode`.
    pub fn apply(&self, mode: u32, folder: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => changes.iter().fold(mode & 0o7777, |mode, change| change.apply(mode, folder)),
        }
    }
}

fn permissions(letters: &str) -> Result<Permissions, String> {
    let copy = match letters {
        "u" => Some(6),
        "g" => Some(3),
        "o" => Some(0),
        _ => None,
    };
    if let Some(shift) = copy {
        return Ok(Permissions::CopyOf(shift));
    }
    let (mut bits, mut search) = (0, false);
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => search = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return Err("invalid syntax".to_owned()),
        }
    }
    Ok(Permissions::Bits(bits, search))
}

impl Change {
    fn apply(self, mode: u32, folder: bool) -> u32 {
        let bits = match self.permissions {
            Permissions::Bits(bits, true) if folder || mode & 0o111 != 0 => bits | 0o111,
            Permissions::Bits(bits, _) => bits,
            Permissions::CopyOf(shift) => (mode >> shift & 7) * 0o111,
        } & self.who
            & !self.umask;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => mode & !self.who | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Chmod;

    #[test]
    fn changes_permissions_as_chmod_does() {
        for (text, mode, folder, expected) in [
            ("755", 0o644, false, 0o755),
            ("u+x", 0o644, false, 0o744),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a=", 0o755, false, 0),
            ("+x", 0o644, false, 0o755),
            ("+w", 0o444, false, 0o644),
            ("go-rwx", 0o755, false, 0o700),
            ("g=u", 0o740, false, 0o770),
            ("u+s,+t", 0o755, false, 0o5755),
            ("o-rwx+x", 0o777, false, 0o771),
            ("a+X", 0o644, false, 0o644),
            ("u+", 0o644, false, 0o644),
        ] {
            assert_eq!(Chmod::read(text).unwrap().apply(mode, folder), expected, "{text} of {mode:o}");
        }
        for text in ["foo", "u", "u+q", "u+x,", "", "+xé"] {
            assert_eq!(Chmod::read(text), Err("invalid syntax".to_owned()), "{text}");
        }
        for text in ["8", "10000", "0o7"] {
            assert!(Chmod::read(text).unwrap_err().contains("between 0 and 07777"), "{text}");
        }
    }
}
