//! The `Range` and `If-None-Match` headers, as RFC 9110 has them.

/// What of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Whole,
    Part {
        from: u64,
        length: u64,
    },
    /// Nothing that the file has.
    Outside,
}

/// Reads a `Range` header for a file of `size` bytes.
///
/// A header that is malformed, of another unit or of several ranges asks for the whole, which RFC 9110 (14.2) permits.
pub(crate) fn read(header: &str, size: u64) -> Range {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Range::Whole;
    };
    let (from, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => (first, size),
        (Err(_), Ok(count)) if first.is_empty() => (size.saturating_sub(count), size),
        _ => return Range::Whole,
    };
    if from < end { Range::Part { from, length: end - from } } else { Range::Outside }
}

/// Whether an `If-None-Match` header names `tag`.
pub(crate) fn names(header: &str, tag: &str) -> bool {
    header.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::{Range, names, read};

    #[test]
    fn a_range_is_a_part_the_whole_or_outside() {
        let part = |from, length| Range::Part { from, length };
        let check = |header: &str, size, expected| assert_eq!(read(header, size), expected, "{header} of {size}");
        check("bytes=0-0", 10, part(0, 1));
        check("bytes=2-5", 10, part(2, 4));
        check("bytes=2-500", 10, part(2, 8));
        check("bytes=2-18446744073709551615", 10, part(2, 8));
        check("bytes=7-", 10, part(7, 3));
        check("bytes=-3", 10, part(7, 3));
        check("bytes=-30", 10, part(0, 10));
        check("bytes=10-", 10, Range::Outside);
        check("bytes=-0", 10, Range::Outside);
        check("bytes=0-", 0, Range::Outside);
        for whole in ["bytes=5-2", "bytes=a-b", "bytes=", "bytes=-", "lines=1-2", "bytes=0-1,4-5", ""] {
            check(whole, 10, Range::Whole);
        }
    }

    #[test]
    fn a_tag_is_found_in_a_list() {
        assert!(names("\"a\", W/\"b\"", "\"b\""));
        assert!(names("*", "\"b\""));
        assert!(!names("\"a\"", "\"b\""));
    }
}
