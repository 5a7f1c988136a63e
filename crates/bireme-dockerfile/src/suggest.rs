//! The nearest known word to a mistyped one, at the distance at which BuildKit suggests one.
//!
//! Source: github.com/moby/buildkit, `util/suggest`: fewer than three edits, the first of the nearest.

/// From this many edits on, another word was meant.
const TOO_FAR: usize = 3;
/// Nobody mistypes a longer word; it bounds the work.
const LONGEST: usize = 64;

/// The word of `known` nearest to `word`. `None` too where `word` is one of them.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, case_matters: bool) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let folded = |text: &str| if case_matters { text.to_owned() } else { text.to_lowercase() };
    let wanted = folded(word);
    let mut best = None;
    let mut least = TOO_FAR;
    for candidate in known.into_iter().filter(|candidate| candidate.len() <= LONGEST) {
        match distance(&wanted, &folded(candidate)) {
            0 => return None,
            edits if edits < least => (least, best) = (edits, Some(candidate)),
            _ => {}
        }
    }
    best
}

/// `message`, with the nearest of `known` in brackets behind it where there is one.
pub(crate) fn with_nearest<'a>(
    message: String,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    case_matters: bool,
) -> String {
    match nearest(word, known, case_matters) {
        Some(near) => format!("{message} (did you mean {near}?)"),
        None => message,
    }
}

/// Edits between two words: insert, delete, replace. From [`TOO_FAR`] on they are not counted further.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let left: Vec<char> = left.chars().collect();
    if left.len().abs_diff(right.len()) >= TOO_FAR {
        return TOO_FAR;
    }
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        // What lies far from the diagonal is too far in any case.
        let mut row = vec![TOO_FAR; right.len() + 1];
        row[0] = i + 1;
        for j in i.saturating_sub(TOO_FAR)..right.len().min(i + TOO_FAR) {
            row[j + 1] = (above[j] + usize::from(*l != right[j])).min(above[j + 1] + 1).min(row[j] + 1);
        }
        if row.iter().all(|edits| *edits >= TOO_FAR) {
            return TOO_FAR;
        }
        above = row;
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_buildkit_suggests() {
        assert_eq!(nearest("FRM", ["ADD", "FROM"], false), Some("FROM"));
        assert_eq!(nearest("froom", ["ADD", "FROM"], false), Some("FROM"));
        assert_eq!(nearest("prd", ["base", "prod"], true), Some("prod"));
        assert_eq!(nearest("zzzzz", ["base", "prod"], true), None);
        assert_eq!(nearest("foo", ["from"], true), Some("from"));
        assert_eq!(nearest("from", ["from"], true), None);
    }
}
