//! `--chmod`: permissions as a number, or as chmod(1) has them in letters.
//!
//! Source: BuildKit, `frontend/dockerfile/dockerfile2llb/convert.go`, `parseChmod`; POSIX, chmod, "Extended description".

/// What becomes of the permissions of what is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// These.
    Bits(u32),
    /// What they are, changed so, one after the other.
    Changes(Vec<Change>),
}

/// One change: `u=rw`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Bits of who is meant, for all three kinds of permission: `0o700` is the owner.
    who: u32,
    operator: char,
    letters: String,
}

/// Nobody is named: what this hides is left alone.
const UMASK: u32 = 0o022;

impl Mode {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok()?;
            return (bits <= 0o7777).then_some(Self::Bits(bits));
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '='])?;
            let (names, mut actions) = clause.split_at(at);
            let mut who = 0;
            for name in names.chars() {
                who |= match name {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return None,
                };
            }
            if names.is_empty() {
                who = 0o7777 & !UMASK;
            }
            while let Some(operator) = actions.chars().next() {
                let rest = &actions[1..];
                let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
                let letters = &rest[..end];
                let plain = letters.chars().all(|letter| "rwxXst".contains(letter));
                if !plain && !matches!(letters, "u" | "g" | "o") {
                    return None;
                }
                changes.push(Change { who, operator, letters: letters.to_owned() });
                actions = &rest[end..];
            }
        }
        Some(Self::Changes(changes))
    }

    /// The permissions of something that had `mode`.
    pub(crate) fn apply(&self, mode: u32, folder: bool) -> u32 {
        match self {
            Self::Bits(bits) => *bits,
            Self::Changes(changes) => changes.iter().fold(mode & 0o7777, |mode, change| change.apply(mode, folder)),
        }
    }
}

impl Change {
    fn apply(&self, mode: u32, folder: bool) -> u32 {
        let mut bits = 0;
        for letter in self.letters.chars() {
            bits |= match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if folder || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => ((mode >> 6) & 7) * 0o111,
                'g' => ((mode >> 3) & 7) * 0o111,
                'o' => (mode & 7) * 0o111,
                _ => 0,
            };
        }
        // The sticky bit is nobody's in particular.
        let sticky = bits & 0o1000;
        let bits = (bits & self.who) | sticky;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !(self.who & 0o6777)) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn letters_mean_what_chmod_makes_of_them() {
        for (text, before, folder, after) in [
            ("0755", 0o600, false, 0o755),
            ("4711", 0o600, false, 0o4711),
            ("u=rwx,go=rx", 0o600, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a+x", 0o600, false, 0o711),
            ("go-rwx", 0o777, false, 0o700),
            ("a=r", 0o755, false, 0o444),
            ("u+rwX,go+rX", 0o600, true, 0o755),
            ("u+rwX,go+rX", 0o600, false, 0o644),
            ("g=u", 0o740, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
            ("u=rw+x", 0o000, false, 0o700),
        ] {
            assert_eq!(Mode::parse(text).unwrap().apply(before, folder), after, "{text}");
        }
        for bad in ["", "x", "+z", "8", "77777", "u", "rw", "u=rw,", "q+x"] {
            assert_eq!(Mode::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_permissions(text in "[ugoa]{0,2}[-+=][rwxXst]{0,4}", mode in 0u32..0o10000, folder: bool) {
            let read = Mode::parse(&text).unwrap();
            prop_assert!(read.apply(mode, folder) <= 0o7777);
        }
    }
}
