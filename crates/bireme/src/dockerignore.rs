//! `.dockerignore`: which files of a folder are not sent to a build.

/// The patterns of one file, in order; the last that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<(bool, Vec<String>)>,
}

impl Ignore {
    /// Reads the file's text. Source: the Dockerfile reference, ".dockerignore file".
    pub fn parse(text: &str) -> Self {
        let mut rules = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keep, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let parts: Vec<String> =
                pattern.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
            if !parts.is_empty() {
                rules.push((keep, parts));
            }
        }
        Self { rules }
    }

    /// Whether `path`, relative and with `/`, is left out.
    pub fn leaves_out(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let mut out = false;
        for (keep, pattern) in &self.rules {
            // A pattern that matches a folder matches everything in it.
            if out == *keep && (1..=parts.len()).any(|depth| matches(pattern, &parts[..depth])) {
                out = !keep;
            }
        }
        out
    }

    /// Whether anything below a folder that is left out may be kept again.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|(keep, _)| *keep)
    }
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([], _) => false,
        ([first, rest @ ..], _) if first == "**" => (0..=path.len()).any(|skip| matches(rest, &path[skip..])),
        (_, []) => false,
        ([first, rest @ ..], [name, below @ ..]) => part(first.as_bytes(), name.as_bytes()) && matches(rest, below),
    }
}

/// `*`, `?`, `[a-z]`, `[^a]` and `\x` within one name. Source: Go's `filepath.Match`.
fn part(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([], _) => false,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| part(rest, &name[skip..])),
        (_, []) => false,
        ([b'?', rest @ ..], [_, below @ ..]) => part(rest, below),
        ([b'[', rest @ ..], [letter, below @ ..]) => {
            let Some(end) = rest.iter().skip(1).position(|byte| *byte == b']').map(|at| at + 1) else { return false };
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            let (negated, set) = match set {
                [b'^', set @ ..] => (true, set),
                set => (false, set),
            };
            let mut found = false;
            let mut at = 0;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == b'-' {
                    found |= (set[at]..=set[at + 2]).contains(letter);
                    at += 3;
                } else {
                    found |= set[at] == *letter;
                    at += 1;
                }
            }
            found != negated && part(rest, below)
        }
        ([b'\\', escaped, rest @ ..], [letter, below @ ..]) => escaped == letter && part(rest, below),
        ([byte, rest @ ..], [letter, below @ ..]) => byte == letter && part(rest, below),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &str, path: &str, left_out: bool) {
        assert_eq!(Ignore::parse(rules).leaves_out(path), left_out, "{rules:?} on {path}");
    }

    #[test]
    fn patterns_are_dockers() {
        check("# note\n\ntarget", "target", true);
        check("target", "target/debug/x", true);
        check("target", "sub/target", false);
        check("**/target", "sub/target/x", true);
        check("*.md", "README.md", true);
        check("*.md", "docs/a.md", false);
        check("**/*.md", "docs/a.md", true);
        check("*.md\n!README.md", "README.md", false);
        check("*\n!src", "src/main.rs", false);
        check("*\n!src", "other", true);
        check("/a/b?", "a/bc", true);
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("./a", "a", true);
        check("a/**/z", "a/z", true);
    }
}
