//! A runner mostly waits. What only the start needed is given back then: the heap's free pages, and the pages of code, which
//! the kernel keeps once for all runners and hands out again where they are touched.

use std::time::Duration;

use bireme_sys::memory;

/// How long nothing has to happen before it is worth it: most containers that end soon never come to it.
pub(crate) const AFTER: Duration = Duration::from_secs(2);

pub(crate) fn trim() {
    memory::trim_heap();
    // What cannot be given back stays.
    let _ = memory::discard_unwritten_file_pages();
}
