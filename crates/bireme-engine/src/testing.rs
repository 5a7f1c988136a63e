//! What tests of several modules measure with.

/// By how many bytes the memory of this process grows at most while `act` is at work. Of use where each test has a process.
pub(crate) fn peak(act: impl FnOnce()) -> u64 {
    let figure = |name: &str| -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() << 10
    };
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = figure("VmRSS:");
    act();
    figure("VmHWM:").saturating_sub(before)
}
