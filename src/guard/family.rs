//! Which programs belong together.
//!
//! A lock that a shell holds must not keep out the `mv` that it starts, and a child that has
//! inherited a descriptor must not wait for its parent. So what one process holds does not stand
//! in the way of its ancestors and descendants. Two children of one parent are strangers.

use std::fs;

/// How far up the ancestors of a process are looked for.
const GENERATIONS: usize = 64;

/// How far up a read is remembered for those that a shell has started; see [`readers`].
const SHELLS: usize = 4;

/// A process, told apart from another that had the same number before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number (thread group id); 0 where it lives in a pid namespace that cannot be seen.
    pub pid: u32,
    /// When it began, in clock ticks since boot.
    pub start: u64,
}

/// What `/proc/PID/stat` says (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    dead: bool,
    deep_sleep: bool,
    parent: u32,
    session: u32,
    terminal: i32,
    flags: u64,
    threads: u32,
    start: u64,
    exit_code: i32,
}

/// The process that a thread belongs to; 0 where that cannot be seen.
pub fn process_of(tid: u32) -> u32 {
    if tid == 0 {
        return 0;
    }
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Whether one of two processes is the other, or its ancestor.
pub fn related(one: u32, other: u32) -> bool {
    if one == 0 || other == 0 {
        return false;
    }
    one == other || is_ancestor(one, other) || is_ancestor(other, one)
}

/// A process with those above it, looked up once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The process; 0 where it cannot be seen.
    pub pid: u32,
    above: Vec<u32>,
}

impl Line {
    /// That of the process `pid`.
    pub fn of(pid: u32) -> Line {
        Line {
            pid,
            above: ancestors(pid).collect(),
        }
    }

    /// Whether one is the other, or its ancestor.
    pub fn is_related(&self, other: &Line) -> bool {
        self.pid != 0
            && other.pid != 0
            && (self.pid == other.pid
                || self.above.contains(&other.pid)
                || other.above.contains(&self.pid))
    }
}

fn is_ancestor(ancestor: u32, of: u32) -> bool {
    ancestors(of).any(|pid| pid == ancestor)
}

/// The parent of a process, its parent, and so on.
fn ancestors(pid: u32) -> impl Iterator<Item = u32> {
    let parent = |pid: &u32| stat(*pid).map(|stat| stat.parent).filter(|pid| *pid != 0);
    std::iter::successors(parent(&pid), parent).take(GENERATIONS)
}

/// Those in whose name a process reads: itself, and the processes above it in its session, the
/// nearest first, so that what `cat` has read counts for the `mv` that the same script starts. An
/// interactive shell (it leads a session that has a terminal) does not count: what its user looked
/// at some time ago is not what the next command is made from.
pub fn readers(pid: u32) -> Vec<Process> {
    let Some(own) = stat(pid) else {
        return Vec::new();
    };
    let mut readers = vec![Process {
        pid,
        start: own.start,
    }];
    let mut above = own.parent;
    while readers.len() <= SHELLS
        && let Some(stat) = stat(above)
        && stat.session == own.session
        && !(stat.session == above && stat.terminal != 0)
    {
        readers.push(Process {
            pid: above,
            start: stat.start,
        });
        above = stat.parent;
    }
    readers
}

/// The process with this number, if it lives.
pub fn identify(pid: u32) -> Option<Process> {
    let stat = stat(pid).filter(|stat| !stat.dead)?;
    Some(Process {
        pid,
        start: stat.start,
    })
}

/// Whether a process has ended. One that cannot be seen is taken to live.
pub fn has_ended(process: Process) -> bool {
    process.pid != 0 && identify(process.pid) != Some(process)
}

/// Whether a process runs in one thread, so that it does nothing while that waits.
pub fn is_single_threaded(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.threads == 1)
}

/// Whether a process is in an uninterruptible sleep.
pub fn sleeps_deeply(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.deep_sleep)
}

/// Whether a thread is about to end because a signal killed its process.
pub fn is_killed(tid: u32) -> bool {
    /// The flag of a task that is getting shut down (`PF_EXITING` of linux/sched.h).
    const EXITING: u64 = 4;
    stat(tid).is_some_and(|stat| stat.flags & EXITING != 0 && stat.exit_code & 0x7f != 0)
}

fn stat(pid: u32) -> Option<Stat> {
    if pid == 0 {
        return None;
    }
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(line: &str) -> Option<Stat> {
    // The name of the program, in parentheses, may hold anything.
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first of these is the third of the line.
    let field = |number: usize| fields.get(number - 3);
    Some(Stat {
        dead: matches!(*field(3)?, "Z" | "X"),
        deep_sleep: *field(3)? == "D",
        parent: field(4)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        terminal: field(7)?.parse().ok()?,
        flags: field(9)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        start: field(22)?.parse().ok()?,
        exit_code: field(52).and_then(|code| code.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn parents_and_children_are_related_and_siblings_are_not() {
        let sleep = || {
            let mut command = Command::new("sleep");
            command.arg("60").stdin(Stdio::null()).spawn().unwrap()
        };
        let (mut one, mut other) = (sleep(), sleep());
        let own = std::process::id();
        assert!(related(own, one.id()) && related(other.id(), own));
        assert!(related(one.id(), one.id()));
        assert!(!related(one.id(), other.id()));
        assert!(!related(0, 0));
        let process = identify(one.id()).unwrap();
        assert!(!has_ended(process));
        assert!(readers(one.id()).contains(&identify(own).unwrap()));
        for child in [&mut one, &mut other] {
            child.kill().unwrap();
        }
        // Not waited for, it is dead all the same.
        while !has_ended(process) {
            std::thread::yield_now();
        }
        for child in [&mut one, &mut other] {
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_thread_belongs_to_its_process() {
        let tid = std::fs::read_link("/proc/thread-self").unwrap();
        let tid = tid.file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!(process_of(tid), std::process::id());
        assert_eq!(process_of(0), 0);
    }

    #[test]
    fn odd_names_of_programs_are_read_over() {
        let rest = "S 1 5 5 34816 5 4194304 1 2 3 4 5 6 7 8 20 0 7 0 12345 0 0 0";
        let stat = parse(&format!("99 (a) b (c) {rest}")).unwrap();
        assert_eq!((stat.parent, stat.session, stat.terminal), (1, 5, 34816));
        assert_eq!((stat.threads, stat.start), (7, 12345));
        assert_eq!(parse("nonsense"), None);
    }
}
