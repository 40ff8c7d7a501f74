//! What a process costs, as `/proc` tells it (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// How many ticks the times of `/proc/PID/stat` have in a second: `USER_HZ`, which is 100 on all
/// processors that Linux runs on today.
const TICKS: u64 = 100;

/// The time that a process has used a processor, that of ended threads included, in steps of 10 ms.
/// `None` where the process is gone.
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (user, system) = ticks(&stat)?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

/// The ticks in user mode and in system mode, of a line of `/proc/PID/stat`.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    // The name, in brackets, may hold blanks and brackets itself. After it comes field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(14 - 3);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The memory that a process has resident (`VmRSS`), in bytes.
pub fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = field(&status, "VmRSS:")?;
    Some(kib.strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// A figure of `/proc/PID/io`, as `rchar`.
pub fn io(pid: u32, name: &str) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    field(&io, &format!("{name}:"))?.parse().ok()
}

/// How often each thread of a process has gone to sleep, by the thread's number: each time it was
/// woken for something.
pub fn sleeps(pid: u32) -> BTreeMap<String, u64> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return BTreeMap::new();
    };
    let of_thread = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let slept = field(&status, "voluntary_ctxt_switches:")?.parse().ok()?;
        Some((task.file_name().to_string_lossy().into_owned(), slept))
    };
    tasks.flatten().filter_map(of_thread).collect()
}

/// How often threads were woken between two looks by [`sleeps`]. One that has begun or ended counts,
/// too.
pub fn woken(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    let of_living = after
        .iter()
        .map(|(thread, slept)| match before.get(thread) {
            Some(earlier) => slept.saturating_sub(*earlier),
            None => slept + 1,
        });
    let ended = before.keys().filter(|thread| !after.contains_key(*thread));
    of_living.sum::<u64>() + ended.count() as u64
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 31 11 5 6 20 0 1 0";
        assert_eq!(ticks(stat), Some((31, 11)));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_described() {
        let pid = std::process::id();
        assert!(cpu(pid).is_some());
        assert!(resident(pid).unwrap() > 1 << 16);
        assert!(io(pid, "rchar").unwrap() > 0);
        assert!(!sleeps(pid).is_empty());
    }

    #[test]
    fn threads_that_sleep_count_and_so_do_new_and_ended_ones() {
        let look = |threads: &[(&str, u64)]| {
            let threads = threads.iter();
            threads
                .map(|(name, slept)| ((*name).to_owned(), *slept))
                .collect()
        };
        let before = look(&[("1", 5), ("2", 7)]);
        assert_eq!(woken(&before, &before), 0);
        assert_eq!(woken(&before, &look(&[("1", 8), ("2", 7)])), 3);
        assert_eq!(woken(&before, &look(&[("1", 5)])), 1);
        assert_eq!(woken(&before, &look(&[("1", 5), ("2", 7), ("3", 0)])), 1);
    }
}
