//! A runner mostly waits. What only the start needed is given back then: the heap's free pages, and the pages of code, which
//! the kernel keeps once for all runners and hands out again where they are touched.

use std::ops::Range;
use std::time::Duration;

use crate::raw;

/// How long nothing has to happen before it is worth it: most containers that end soon never come to it.
pub(crate) const AFTER: Duration = Duration::from_secs(2);

pub(crate) fn trim() {
    raw::trim_heap();
    for mapping in unwritten(&std::fs::read_to_string("/proc/self/smaps").unwrap_or_default()) {
        raw::discard_pages(mapping);
    }
}

/// The mappings of files in `smaps` that nobody can have written to. Pure.
fn unwritten(smaps: &str) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut of_file = None;
    for line in smaps.lines() {
        if let Some(pages) = line.strip_prefix("Anonymous:") {
            all.extend(of_file.take().filter(|_| pages.trim() == "0 kB"));
        } else if let Some(mapping) = header(line) {
            of_file = mapping;
        }
    }
    all
}

/// Whether a line begins a mapping, and which, if it is one of a file that may not be written to.
fn header(line: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let (rights, inode) = (words.next()?, words.nth(2)?);
    Some((!rights.contains('w') && rights.ends_with('p') && inode != "0").then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_equals_its_file_is_let_go() {
        let smaps = "\
55d0-55e0 r--p 00000000 00:2f 2 /bireme-runner
Rss: 8 kB
Anonymous: 0 kB
55e0-55f0 r-xp 00010000 00:2f 2 /bireme-runner
Anonymous: 0 kB
55f0-5600 r--p 00020000 00:2f 2 /bireme-runner
Anonymous: 16 kB
5600-5610 rw-p 00030000 00:2f 2 /bireme-runner
Anonymous: 0 kB
7ff0-8000 r-xp 00000000 00:00 0 [vdso]
Anonymous: 0 kB
";
        assert_eq!(unwritten(smaps), [0x55d0..0x55e0, 0x55e0..0x55f0]);
        assert!(unwritten("nonsense\n-\n").is_empty());
    }

    #[test]
    fn this_program_goes_on_after_it() {
        let words: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        trim();
        assert_eq!(words.iter().filter(|word| word.ends_with('7')).count(), 100);
    }
}
