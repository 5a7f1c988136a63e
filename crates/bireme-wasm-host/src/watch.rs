//! The memory of the process, which the kernel would end, with every component in it, at the limit of its cgroup.

use std::time::Duration;

use bireme_wasm::cgroup::SocketMemory;
use bireme_wasm::memory;

use crate::clients;

/// How often it is looked at.
const WATCH: Duration = Duration::from_millis(50);

/// Bytes of this process that are in memory.
pub(crate) struct Resident {
    pub anonymous: u64,
    /// Files and memory that may be shared with others.
    pub shared: u64,
}

/// `None` where /proc does not tell.
pub(crate) fn resident() -> Option<Resident> {
    // In pages: all, resident, and of these the shared. See proc_pid_statm(5).
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
    let size = rustix::param::page_size() as u64;
    let (resident, shared) = (pages.next()? * size, pages.next()? * size);
    Some(Resident { anonymous: resident.saturating_sub(shared), shared })
}

/// Looks in a row that free nothing before it is left off.
const FUTILE: u32 = 64;
/// Bytes by which less is held than before, to count as freed.
const FREED: u64 = 1 << 20;
/// Looks in a row after which instances are ended although there are connections to be closed: there always are some.
const CONNECTIONS_FIRST: u32 = 4;
/// Bytes for which one more instance is ended at a look, and how many at most.
const EACH: u64 = 16 << 20;
const MOST_AT_ONCE: u64 = 16;

/// What is held beyond what may be, from look to look. What instances leave that nobody gives back, such as stacks that stay
/// for the next, would otherwise have every connection closed and every instance ended from then on. Pure.
#[derive(Debug, Default)]
struct Pressure {
    before: Option<u64>,
    futile: u32,
    looks: u32,
    /// Nothing is done up to here.
    given_up_at: u64,
}

/// What is to be done at one look.
#[derive(Debug, PartialEq, Eq)]
struct Measures {
    /// Bytes that connections are to be closed for.
    excess: u64,
    /// Instances to be ended.
    ends: u64,
    /// Whether they are ended although connections were closed.
    both: bool,
}

impl Pressure {
    /// `held` are the bytes that there are, `may` those that may be. It is never given up beyond `most`.
    fn look(&mut self, held: u64, may: u64, most: u64) -> Option<Measures> {
        if held <= may {
            *self = Self::default();
            return None;
        }
        if held <= self.given_up_at {
            return None;
        }
        let freed = self.before.is_none_or(|before| held + FREED < before);
        self.futile = if freed { 0 } else { self.futile + 1 };
        self.before = Some(held);
        if self.futile >= FUTILE && held < most {
            *self = Self { given_up_at: (held + held / 16).min(most), ..Self::default() };
            return None;
        }
        self.looks += 1;
        let excess = held - may;
        let ends = (1 + excess / EACH).min(MOST_AT_ONCE);
        Some(Measures { excess, ends, both: self.looks > CONNECTIONS_FIRST })
    }
}

/// Closes connections that wait, then ends the largest instances, whenever the process has more memory than all its
/// workloads may have together, or the kernel has kept half of what it may in `sockets`. Instances are counted as they grow;
/// what is left is what the host's libraries and the kernel hold for them and for clients, without an account.
///
/// `workloads` answers what all of them may have together, in bytes; `end_largest` ends the instance that holds the most. Goes
/// on until it is aborted; ends where /proc does not tell.
pub(crate) async fn memory(sockets: Option<SocketMemory>, workloads: impl Fn() -> u64, end_largest: impl Fn()) {
    let machine = memory::of_machine();
    let mut every = tokio::time::interval(WATCH);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut of_memory, mut of_sockets) = (Pressure::default(), Pressure::default());
    loop {
        every.tick().await;
        let Some(resident) = resident() else { return };
        let workloads = workloads();
        let in_sockets = sockets.as_ref().and_then(SocketMemory::bytes).unwrap_or(0);
        let (soft, room) = (memory::soft(workloads, machine), memory::sockets(workloads, machine));
        let measures = [
            of_memory.look(resident.anonymous, soft, soft.saturating_add(memory::clients(workloads, machine) / 2)),
            of_sockets.look(in_sockets, room / 2, room / 4 * 3),
        ];
        for Measures { excess, ends, both } in measures.into_iter().flatten() {
            // What these hold is nobody's, and whoever waits may come again.
            let closed = clients::shed(excess);
            if closed == 0 || both {
                (0..ends).for_each(|_| end_largest());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn more_is_done_for_as_long_as_it_frees_something() {
        let mut pressure = Pressure::default();
        assert!(
            (0..500).all(|n| pressure.look((2000 - 2 * n) * MIB, 100 * MIB, 4000 * MIB).is_some()),
            "each frees two"
        );
        let mut pressure = Pressure::default();
        let look = |pressure: &mut Pressure, held: u64| pressure.look(held * MIB, 100 * MIB, 190 * MIB);
        assert_eq!((0..1000).filter(|_| look(&mut pressure, 160).is_some()).count(), FUTILE as usize);
        assert!(look(&mut pressure, 165).is_none(), "given up");
        assert!(look(&mut pressure, 180).is_some(), "more than it was given up at");
        assert!(look(&mut pressure, 90).is_none() && look(&mut pressure, 120).is_some(), "as at first");
        let mut pressure = Pressure::default();
        assert!((0..1000).all(|_| look(&mut pressure, 190).is_some()), "never given up so near to the end");
    }

    #[test]
    fn connections_are_closed_first_and_instances_ended_by_what_is_too_much() {
        let mut pressure = Pressure::default();
        let mut look = |held: u64| pressure.look(held * MIB, 100 * MIB, 1000 * MIB).unwrap();
        assert_eq!(look(101), Measures { excess: MIB, ends: 1, both: false });
        assert_eq!(look(150).ends, 4);
        assert!(!look(150).both && !look(150).both && look(150).both);
        assert_eq!(look(900).ends, MOST_AT_ONCE);
    }
}
