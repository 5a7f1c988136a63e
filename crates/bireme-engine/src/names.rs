//! Names for workloads that were given none: a quality and something that floats. Also random IDs.

const QUALITIES: &[&str] = &[
    "agile", "amber", "bold", "brave", "bright", "calm", "clear", "cosy", "crisp", "daring", "deft", "eager", "early",
    "fair", "fleet", "fond", "frank", "gentle", "glad", "golden", "grand", "happy", "hardy", "keen", "kind", "lively",
    "lucid", "mellow", "merry", "modest", "nimble", "noble", "patient", "plucky", "proud", "quick", "quiet", "ready",
    "round", "serene", "sharp", "silent", "silver", "sleek", "sober", "steady", "stout", "sunny", "swift", "tidy",
    "tranquil", "trusty", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

const VESSELS: &[&str] = &[
    "argosy", "barge", "barque", "bireme", "brig", "caique", "canoe", "caravel", "catboat", "clipper", "cog",
    "coracle", "corvette", "cruiser", "currach", "cutter", "dhow", "dinghy", "dory", "ferry", "felucca", "frigate",
    "galleon", "galley", "gondola", "hulk", "junk", "kayak", "ketch", "launch", "lighter", "longship", "lugger",
    "packet", "pinnace", "pontoon", "praam", "punt", "raft", "sampan", "schooner", "scow", "skiff", "sloop", "smack",
    "tender", "trawler", "trireme", "tug", "wherry", "xebec", "yacht", "yawl",
];

/// A name of two words, such as `swift_trireme`; several thousand are possible, so a clash only means trying again.
pub(crate) fn random() -> String {
    let pick = |list: &[&'static str]| list[rand::random_range(0..list.len())];
    let number = rand::random_range(0..100u8);
    let name = format!("{}_{}", pick(QUALITIES), pick(VESSELS));
    // One in ten carries a number, so that the words never run out on a busy machine.
    if number < 10 { format!("{name}{number}") } else { name }
}

/// 64 random hexadecimal digits.
pub(crate) fn random_hex() -> String {
    bireme_core::WorkloadId::from_bytes(rand::random()).as_str().to_owned()
}
