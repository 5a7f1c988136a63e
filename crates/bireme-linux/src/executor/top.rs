//! `docker top` and network counters, read from `/proc`: dockerd runs the host's `ps`, which may not be there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;

use bireme_core::clock::now_nanos;
use bireme_core::executor::InterfaceStats;
use bireme_core::{ErrorKind, ExecError, ProcessTable};

/// Ticks of USER_HZ in a second, the same on every architecture we run on. Source: proc(5), time(7).
const TICKS: u64 = 100;

/// The columns of a process table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Columns(Vec<(String, Column)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Uid,
    User,
    Pid,
    Ppid,
    C,
    Stime,
    Tty,
    Time,
    Cmd,
    Comm,
    State,
    CpuPercent,
    MemPercent,
    Vsz,
    Rss,
    Etime,
    Nice,
    Threads,
}

use Column as C;

impl Columns {
    /// Reads the arguments of ps(1) as far as they choose columns: none or `-ef`, `aux`, `-o`/`-eo` with a list.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub(super) fn parse(ps_args: &str) -> Result<Self, ExecError> {
        let words: Vec<&str> = ps_args.split_whitespace().collect();
        let list = |pairs: &[(&str, Column)]| {
            Self(pairs.iter().map(|(title, column)| ((*title).to_owned(), *column)).collect())
        };
        match words.as_slice() {
            [] | ["-ef" | "-e" | "-f" | "ef"] => Ok(list(&[
                ("UID", C::Uid),
                ("PID", C::Pid),
                ("PPID", C::Ppid),
                ("C", C::C),
                ("STIME", C::Stime),
                ("TTY", C::Tty),
                ("TIME", C::Time),
                ("CMD", C::Cmd),
            ])),
            ["aux" | "-aux" | "auxw" | "auxww"] => Ok(list(&[
                ("USER", C::User),
                ("PID", C::Pid),
                ("%CPU", C::CpuPercent),
                ("%MEM", C::MemPercent),
                ("VSZ", C::Vsz),
                ("RSS", C::Rss),
                ("TTY", C::Tty),
                ("STAT", C::State),
                ("START", C::Stime),
                ("TIME", C::Time),
                ("COMMAND", C::Cmd),
            ])),
            [option, rest @ ..] if is_output_option(option) => {
                let inline = option.trim_start_matches('-').split_once('o').map_or("", |(_, list)| list);
                let names = std::iter::once(inline)
                    .chain(rest.iter().copied().filter(|word| !is_output_option(word)))
                    .flat_map(|word| word.split(','))
                    .filter(|name| !name.is_empty());
                let columns = names.map(Self::one).collect::<Result<Vec<_>, _>>()?;
                if columns.iter().any(|(_, column)| *column == C::Pid) {
                    Ok(Self(columns))
                } else {
                    let message = "couldn't find PID field in ps output: add pid to the columns after -o";
                    Err(ExecError::new(ErrorKind::Invalid, message))
                }
            }
            _ => {
                let message =
                    format!("ps arguments {ps_args:?} are not supported; use none, aux, or -o with a list of columns");
                Err(ExecError::new(ErrorKind::Invalid, message))
            }
        }
    }

    fn one(name: &str) -> Result<(String, Column), ExecError> {
        let (name, title) = name.split_once('=').map_or((name, None), |(name, title)| (name, Some(title)));
        let (default, column) = match name {
            "uid" => ("UID", C::Uid),
            "user" | "uname" | "euser" => ("USER", C::User),
            "pid" => ("PID", C::Pid),
            "ppid" => ("PPID", C::Ppid),
            "c" => ("C", C::C),
            "stime" | "start" | "start_time" | "lstart" => ("STIME", C::Stime),
            "tty" | "tt" | "tname" => ("TTY", C::Tty),
            "time" | "cputime" => ("TIME", C::Time),
            "cmd" => ("CMD", C::Cmd),
            "args" | "command" => ("COMMAND", C::Cmd),
            "comm" | "ucmd" | "ucomm" => ("COMMAND", C::Comm),
            "stat" | "state" | "s" => ("STAT", C::State),
            "%cpu" | "pcpu" => ("%CPU", C::CpuPercent),
            "%mem" | "pmem" => ("%MEM", C::MemPercent),
            "vsz" | "vsize" => ("VSZ", C::Vsz),
            "rss" | "rssize" | "rsz" => ("RSS", C::Rss),
            "etime" => ("ELAPSED", C::Etime),
            "ni" | "nice" => ("NI", C::Nice),
            "nlwp" | "thcount" => ("NLWP", C::Threads),
            _ => return Err(ExecError::new(ErrorKind::Invalid, format!("unknown column {name:?} in ps arguments"))),
        };
        Ok((title.unwrap_or(default).to_owned(), column))
    }
}

fn is_output_option(word: &str) -> bool {
    let letters = word.trim_start_matches('-');
    let before = letters.split_once('o').map(|(before, _)| before);
    matches!(before, Some("" | "e" | "a" | "ax" | "ae" | "A"))
}

/// One row for each process that still exists.
pub(super) fn table(columns: &Columns, pids: &[u32]) -> ProcessTable {
    let machine = Machine::read();
    let titles = columns.0.iter().map(|(title, _)| title.clone()).collect();
    let mut left = ALL_ARGUMENTS;
    let rows = pids
        .iter()
        .filter_map(|pid| Process::read(*pid))
        .map(|process| process.within(&mut left))
        .map(|process| columns.0.iter().map(|(_, column)| process.field(*column, &machine)).collect())
        .collect();
    ProcessTable { titles, rows }
}

struct Machine {
    /// Seconds since the machine started.
    uptime: u64,
    /// KiB.
    memory: u64,
    users: BTreeMap<u32, String>,
}

impl Machine {
    fn read() -> Self {
        let first = |path: &str| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let uptime = first("/proc/uptime").split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let memory = first("/proc/meminfo").split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
        // As the host's ps would print it, which is how Docker does.
        let users = first("/etc/passwd")
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((fields.nth(1)?.parse().ok()?, name))
            })
            .collect();
        Self { uptime, memory, users }
    }
}

struct Process {
    pid: u32,
    uid: u32,
    /// KiB.
    resident: u32,
    comm: String,
    args: String,
    /// The fields of `/proc/PID/stat` from the state on. Source: proc_pid_stat(5), where it is field 3.
    stat: Vec<String>,
}

/// Bytes of arguments that are shown of all processes together.
const ALL_ARGUMENTS: usize = 16 << 20;

/// Bytes of arguments that are shown of a process.
const ARGUMENTS: u64 = 4096;

impl Process {
    fn read(pid: u32) -> Option<Self> {
        // No text: a process calls itself by any bytes.
        let read = |file: &str| {
            fs::read(format!("/proc/{pid}/{file}")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read("stat").ok()?;
        // The name may hold spaces and parentheses.
        let (before, after) = text.rsplit_once(')')?;
        let comm = before.split_once('(')?.1.to_owned();
        let status = read("status").ok()?;
        let named = |name: &str, nth: usize| {
            status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().nth(nth)?.parse::<u32>().ok()
        };
        // The second is the effective one; a kernel thread or a zombie has no memory.
        let (uid, resident) = (named("Uid:", 1)?, named("VmRSS:", 0).unwrap_or(0));
        // As much as ps shows: a process may have megabytes of arguments, and share them with thousands of children.
        let mut raw = Vec::new();
        let _ =
            fs::File::open(format!("/proc/{pid}/cmdline")).and_then(|file| file.take(ARGUMENTS).read_to_end(&mut raw));
        let args = String::from_utf8_lossy(&raw).trim_end_matches('\0').replace('\0', " ");
        let args = if args.is_empty() { format!("[{comm}]") } else { args };
        Some(Self { pid, uid, resident, comm, args, stat: after.split_whitespace().map(str::to_owned).collect() })
    }

    /// With its name alone where the arguments would take more than what is left.
    fn within(mut self, left: &mut usize) -> Self {
        match left.checked_sub(self.args.len()) {
            Some(rest) => *left = rest,
            None => self.args = format!("[{}]", self.comm),
        }
        self
    }

    /// Field `number` of proc_pid_stat(5).
    fn number(&self, number: usize) -> i64 {
        self.stat.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn ticks(&self) -> u64 {
        (self.number(14) + self.number(15)).unsigned_abs()
    }

    fn age(&self, machine: &Machine) -> u64 {
        machine.uptime.saturating_sub(self.number(22).unsigned_abs() / TICKS)
    }

    fn percent(&self, machine: &Machine) -> f64 {
        let age = self.age(machine).max(1);
        #[expect(clippy::cast_precision_loss, reason = "a percentage with one decimal")]
        let percent = (self.ticks() * 100) as f64 / (TICKS * age) as f64;
        percent
    }

    fn field(&self, column: Column, machine: &Machine) -> String {
        match column {
            C::Uid | C::User => machine.users.get(&self.uid).cloned().unwrap_or_else(|| self.uid.to_string()),
            C::Pid => self.pid.to_string(),
            C::Ppid => self.number(4).to_string(),
            C::C => format!("{:.0}", self.percent(machine).min(99.0)),
            C::Stime => {
                let now = now_nanos().unsigned_abs() / 1_000_000_000;
                let began = now.saturating_sub(self.age(machine)) % 86_400;
                format!("{:02}:{:02}", began / 3600, began / 60 % 60)
            }
            C::Tty => match self.number(7) {
                0 => "?".to_owned(),
                device if device >> 8 & 0xfff == 136 => format!("pts/{}", (device & 0xff) | (device >> 12 & 0xfff00)),
                _ => "?".to_owned(),
            },
            C::Time => {
                let seconds = self.ticks() / TICKS;
                format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            C::Cmd => self.args.clone(),
            C::Comm => self.comm.clone(),
            C::State => self.stat.first().cloned().unwrap_or_default(),
            C::CpuPercent => format!("{:.1}", self.percent(machine)),
            #[expect(clippy::cast_precision_loss, reason = "a percentage with one decimal")]
            C::MemPercent => format!("{:.1}", f64::from(self.resident) * 100.0 / machine.memory as f64),
            C::Vsz => (self.number(23) / 1024).to_string(),
            C::Rss => self.resident.to_string(),
            C::Etime => {
                let age = self.age(machine);
                format!("{:02}:{:02}:{:02}", age / 3600, age / 60 % 60, age % 60)
            }
            C::Nice => self.number(19).to_string(),
            C::Threads => self.number(20).to_string(),
        }
    }
}

/// The counters of every interface but the loopback in the network namespace of process `pid`.
pub(super) fn networks(pid: u32) -> BTreeMap<String, InterfaceStats> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> = counters.split_whitespace().filter_map(|text| text.parse().ok()).collect();
            let [
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                _,
                _,
                _,
                _,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
                ..,
            ] = counters[..]
            else {
                return None;
            };
            let stats = InterfaceStats {
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
            };
            Some((name.trim().to_owned(), stats))
        })
        .filter(|(name, _)| name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &str, expected: Option<&[&str]>) {
        let got =
            Columns::parse(args).ok().map(|columns| columns.0.into_iter().map(|(title, _)| title).collect::<Vec<_>>());
        assert_eq!(
            got.as_deref().map(|titles| titles.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
            expected,
            "{args}"
        );
    }

    #[test]
    fn reads_what_people_pass_to_docker_top() {
        check("", Some(&["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]));
        check("-o pid,cmd", Some(&["PID", "CMD"]));
        check("-eo pid,ppid,comm", Some(&["PID", "PPID", "COMMAND"]));
        check("-opid,args", Some(&["PID", "COMMAND"]));
        check("-o pid -o user", Some(&["PID", "USER"]));
        check("-o cmd", None);
        check("-o pid,nonsense", None);
        check("--forest", None);
    }

    #[test]
    fn nobody_hides_behind_a_name_that_is_no_text() {
        let (named, name) = std::sync::mpsc::channel();
        let (over, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            rustix::thread::set_name(c"\xff\xfe").unwrap();
            named.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = wait.recv();
        });
        let process = Process::read(u32::try_from(name.recv().unwrap()).unwrap());
        drop(over);
        thread.join().unwrap();
        assert_eq!(process.unwrap().comm, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn shows_this_process() {
        let columns = Columns::parse("-o pid,comm,stat").unwrap();
        let rows = table(&columns, &[std::process::id()]).rows;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0][0], std::process::id().to_string());
    }
}
