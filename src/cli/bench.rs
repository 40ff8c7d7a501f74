//! `dotlockfs bench`: how fast a directory is, a mount of it by dotlockfs, and one by bindfs.
//!
//! All are measured in the same run, in rounds that take turns, since only ratios within one run mean
//! something. What works are processes of their own; directories and mounts are held by guards, so
//! each way out takes them down.

mod aside;
mod chart;
mod daemon;
mod figures;
mod host;
mod job;
mod measures;
mod place;
mod rounds;
mod table;
mod together;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::stage::interrupt::{self, Failure, Interrupts};
use super::stage::mounts;
use super::{BenchArgs, print};
use chart::ChartFile;
use figures::{Idle, Memory, Records, Row};
use host::{Ground, Host};
pub use measures::Group;
use place::Place;
use rounds::{Amounts, Bench};

/// What `--help` says after the options.
pub const HELP: &str = "\
In each DIR a new directory is made, and mounted by dotlockfs with rules that guard only what is \
appended to, and by bindfs, where that is installed. Each round measures the plain directory and \
the mounts one after another, each round beginning with another. Where the kernel reads and \
writes unguarded files by itself (passthrough), dotlockfs is also measured without that. \
Everything is removed at the end, also after Ctrl-C.

To let several hosts append at the same time, run `dotlockfs bench --role NAME --hosts N DIR` on \
each of them, with the same options but for the name. DIR is one shared directory. The hosts wait for each other before each run; appends only are \
measured, and each host reports what it has appended itself.

With --json, one object: what it ran on (\"host\", \"places\"); \"measures\", for each \"subjects\" \
with \"median\", \"least\", \"most\", \"samples\", \"cpu_microseconds\" for each unit, and ratios \
(\"to_plain\", \"to_bindfs\"); \"memory\", \"idle\", and \"records\": what became of them.

Groups:
  appends  records of 90 bytes by 1, 2 and 8 processes to one guarded file; none
           may be missing, torn or there twice
  large    a large file, written (fsync at the end), read after it was dropped
           from memory, and read again
  random   4 KiB reads anywhere in it
  small    small files: made, asked for, renamed, removed
  walk     a tree, listed and asked for; cold (only as root) and again
  memory   of the daemon, for each file that it knows
  idle     how often the daemon wakes up when there is nothing to do

Exit status:
  0    dotlockfs kept all records
  1    it did not, or something failed
  130  it was interrupted";

/// Examples, for `-h` and `--help`.
pub const EXAMPLES: &str = "\
Examples:
  dotlockfs bench --quick /net/data      half a minute, for a first look
  dotlockfs bench /net/data /var/tmp     NFS beside a local disk
  dotlockfs bench --only appends --json  for scripts";

/// Everything that a run has found.
#[derive(Debug, Serialize)]
pub struct Report {
    host: Host,
    /// The name of this host among several.
    role: Option<String>,
    /// How many those are.
    hosts: Option<u16>,
    rounds: u32,
    /// How long each run appends or reads at random.
    seconds: f64,
    large_bytes: u64,
    files: u32,
    places: Vec<Ground>,
    measures: Vec<Row>,
    memory: Vec<Memory>,
    idle: Vec<Idle>,
    /// By the way to the directory.
    records: BTreeMap<&'static str, Records>,
}

/// Reads a number of seconds.
///
/// # Errors
/// What is wrong with it.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    if !(0.01..=3600.0).contains(&seconds) {
        return Err("from 0.01 to 3600".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Reads the name of a role, which is to be part of names of files.
///
/// # Errors
/// What is wrong with it.
pub fn role(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match (1..=32).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("up to 32 letters, digits, - and _".into()),
    }
}

/// Measures, or does the work of one process.
///
/// # Errors
/// One line for the user.
pub fn run(args: &BenchArgs) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(job) = &args.job {
        job::run(job)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.role.is_some() && args.dirs.len() != 1 {
        return Err("with --role give one DIR, the same on all hosts".into());
    }
    interrupt::exit_status(measure(args))
}

/// Measures and reports; says whether dotlockfs kept all records.
fn measure(args: &BenchArgs) -> Result<bool, Failure> {
    mounts::check_conditions()?;
    let interrupts = Interrupts::watch()?;
    let dotlockfs = std::env::current_exe().map_err(|error| {
        Failure::Failed(format!("cannot find the dotlockfs executable: {error}"))
    })?;
    // Before the work, which would be lost if it could not be written.
    let chart = args.svg.as_deref().map(ChartFile::open).transpose()?;
    let groups = groups(args);
    let bench = Bench {
        dotlockfs: &dotlockfs,
        interrupts: &interrupts,
        amounts: amounts(args),
    };
    let report = {
        let host = Host::look();
        let role = args.role.as_deref().zip(args.hosts.map(usize::from));
        let mut places = Vec::new();
        for dir in directories(args) {
            places.push(Place::set(&dir, role, &host, &dotlockfs, &interrupts)?);
        }
        report(args, host, &bench, &places, &groups)?
    };
    // The mounts are gone by now.
    let failed = |error| Failure::Failed(format!("cannot write to standard output: {error}"));
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)
            .map(|text| text + "\n")
            .map_err(|error| failed(error.into()))?,
        false => table::text(&report),
    };
    print(&text).map_err(failed)?;
    if let Some(file) = chart {
        file.write(&chart::svg(&report))?;
    }
    let ours = report.records.get(measures::Kind::Dotlockfs.name());
    let kept = ours.is_none_or(Records::are_kept);
    if !kept {
        eprintln!(
            "dotlockfs: records were not kept through dotlockfs; please report it, with this output"
        );
    }
    Ok(kept)
}

fn report(
    args: &BenchArgs,
    host: Host,
    bench: &Bench<'_>,
    places: &[Place],
    groups: &[Group],
) -> Result<Report, Failure> {
    bench.prepare(places, groups)?;
    let outcome = bench.rounds(places, &measures::blocks(groups, host.root))?;
    let (mut memory, mut idle) = (Vec::new(), Vec::new());
    for (number, place) in places.iter().enumerate() {
        if groups.contains(&Group::Memory) {
            memory.extend(bench.memory(number, place)?);
        }
        if groups.contains(&Group::Idle) {
            idle.extend(bench.idle(number, place)?);
        }
    }
    let rows = outcome.samples.iter();
    let amounts = bench.amounts;
    Ok(Report {
        host,
        role: args.role.clone(),
        hosts: args.hosts,
        rounds: amounts.rounds,
        seconds: amounts.time.as_secs_f64(),
        large_bytes: amounts.large,
        files: amounts.files,
        measures: rows
            .map(|(place, measure, samples)| Row::of(*place, *measure, samples))
            .collect(),
        places: places.iter().map(|place| place.ground.clone()).collect(),
        memory,
        idle,
        records: outcome.records,
    })
}

fn directories(args: &BenchArgs) -> Vec<PathBuf> {
    if !args.dirs.is_empty() {
        return args.dirs.clone();
    }
    // Not /tmp, which is often memory.
    let temporary = std::env::var_os("TMPDIR").filter(|path| !path.is_empty());
    vec![temporary.map_or_else(|| ".".into(), PathBuf::from)]
}

fn groups(args: &BenchArgs) -> Vec<Group> {
    let chosen = |group: &Group| args.only.is_empty() || args.only.contains(group);
    let shared = |group: &Group| args.role.is_none() || *group == Group::Appends;
    let all = Group::value_variants().iter().copied();
    all.filter(|group| chosen(group) && shared(group)).collect()
}

fn amounts(args: &BenchArgs) -> Amounts {
    let usual = match args.quick {
        false => Amounts {
            rounds: 3,
            time: Duration::from_millis(300),
            large: 256 << 20,
            files: 10_000,
            inodes: 100_000,
        },
        true => Amounts {
            rounds: 2,
            time: Duration::from_millis(100),
            large: 16 << 20,
            files: 500,
            inodes: 5_000,
        },
    };
    Amounts {
        rounds: args.rounds.unwrap_or(usual.rounds),
        time: args.seconds.unwrap_or(usual.time),
        large: args.size.map_or(usual.large, |size| size.as_u64().max(1)),
        files: args.files.unwrap_or(usual.files),
        inodes: args.inodes.unwrap_or(usual.inodes),
    }
}
