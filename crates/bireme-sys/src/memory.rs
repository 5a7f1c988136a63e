//! Memory that this process has and does not need, given back to the kernel.
#![expect(unsafe_code, reason = "malloc_trim and madvise have no safe wrapper")]

use std::io;
use std::ops::Range;

use crate::process;

/// Gives back what the heap has free, wherever it lies. Does nothing where the C library is not glibc.
///
/// Source: malloc_trim(3).
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches free memory alone, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets go of the pages of all mapped files that nobody can have written to, code above all: the kernel keeps those once for
/// all processes, and reads again what is touched later. For a process with one thread, as no other may map or write meanwhile.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] when there are other threads; those of reading `/proc/self/smaps`.
///
/// Source: madvise(2), `MADV_DONTNEED`; proc_pid_smaps(5).
pub fn discard_unwritten_file_pages() -> io::Result<()> {
    process::only_thread()?;
    for mapping in unwritten(&std::fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: the pages hold what the file holds, since the mapping is private and was never written to, so reading them
        // again gives the same bytes. That is so still: the caller is the only thread, it has written to no such mapping
        // since it asked (they cannot be written to), and what it has mapped since lies elsewhere.
        unsafe {
            libc::madvise(mapping.start as *mut libc::c_void, mapping.len(), libc::MADV_DONTNEED);
        }
    }
    Ok(())
}

/// The mappings of files in `smaps` that nobody can have written to: private, not writable, and without pages of their own, be
/// they in memory or swapped out (relocated data was written to before it became read-only). Pure.
fn unwritten(smaps: &str) -> Vec<Range<usize>> {
    let none = |pages: &str| pages.trim() == "0 kB";
    let mut all = Vec::new();
    let mut of_file = None;
    for line in smaps.lines() {
        if let Some(pages) = line.strip_prefix("Anonymous:") {
            of_file = of_file.filter(|_| none(pages));
        } else if let Some(pages) = line.strip_prefix("Swap:") {
            // The later of the two lines.
            all.extend(of_file.take().filter(|_| none(pages)));
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
Swap: 0 kB
55e0-55f0 r-xp 00010000 00:2f 2 /bireme-runner
Anonymous: 0 kB
Swap: 0 kB
55f0-5600 r--p 00020000 00:2f 2 /bireme-runner
Anonymous: 16 kB
Swap: 0 kB
5600-5610 r--p 00030000 00:2f 2 /bireme-runner
Anonymous: 0 kB
Swap: 16 kB
5610-5620 rw-p 00040000 00:2f 2 /bireme-runner
Anonymous: 0 kB
Swap: 0 kB
7ff0-8000 r-xp 00000000 00:00 0 [vdso]
Anonymous: 0 kB
Swap: 0 kB
";
        assert_eq!(unwritten(smaps), [0x55d0..0x55e0, 0x55e0..0x55f0]);
        assert!(unwritten("nonsense\n-\n").is_empty());
    }

    #[test]
    fn this_program_goes_on_after_it() {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(!unwritten(&smaps).is_empty(), "code is mapped from a file");
        assert!(process::tests::holds_in_a_copy(|| {
            let words: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
            trim_heap();
            discard_unwritten_file_pages().unwrap();
            words.iter().filter(|word| word.ends_with('7')).count() == 100
        }));
        std::thread::scope(|scope| {
            let (until, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert_eq!(discard_unwritten_file_pages().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
            drop(until);
        });
    }
}
