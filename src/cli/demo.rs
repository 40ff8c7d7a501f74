//! `dotlockfs demo`: real processes append to one shared file, first in a plain directory, then
//! through two mounts of dotlockfs as if on two hosts, and a table shows what became of the
//! records.
//!
//! Everything that the demo makes is held by a guard (writers, mounts, directories), so each way
//! out, an interruption included, takes it all down again in the right order.

mod report;
mod writers;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::DemoArgs;
use super::stage::bar::Bar;
use super::stage::interrupt::{self, Failure, Interrupts};
use super::stage::judge::{self, Expectation};
use super::stage::mounts::{self, Mount};
use super::stage::scratch::{Scratch, make_directory};
use report::{Outcome, Place};
use writers::{Program, Run};

const HOSTS: [&str; 2] = ["host1", "host2"];
const WRITERS: u32 = 4;
const PREFIX: &str = "dotlockfs-demo-";
const RULES: &str = "\
version = 1

[[guard]]
files = [\"results.csv\", \"buffered.txt\"]
record = \"\\n\"
";

/// More about it, for `--help`.
pub const HELP: &str = "\
Four processes append to one file, first in a plain directory, then through two mounts of dotlockfs, \
two processes on each, as on two hosts; a table shows what became of the records. Everything is \
removed at the end, also after Ctrl-C.

Exit status:
  0    dotlockfs kept every record
  1    it did not, or something failed
  130  it was interrupted";

impl Program {
    fn file(self) -> &'static str {
        match self {
            Program::ShellLoop => "results.csv",
            Program::Buffered => "buffered.txt",
        }
    }
}

/// Runs the demo, or one of its writers.
pub fn run(args: &DemoArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let (Some(writer), Some(file)) = (args.writer, &args.writer_file) {
        writers::write_records(file, writer, args.records)?;
        return Ok(ExitCode::SUCCESS);
    }
    interrupt::exit_status(demonstrate(args))
}

/// Sets the stage, runs all, prints; says whether dotlockfs kept everything.
fn demonstrate(args: &DemoArgs) -> Result<bool, Failure> {
    mounts::check_conditions()?;
    let interrupts = Interrupts::watch()?;
    let stage = Stage::set(args)?;
    interrupts.check()?;

    let mut output = io::stdout().lock();
    let unwritable = |error| Failure::Failed(format!("cannot write to standard output: {error}"));
    introduce(&mut output, args, &stage).map_err(unwritable)?;

    let mut outcomes = Vec::new();
    for program in [Program::ShellLoop, Program::Buffered] {
        for place in [Place::Plain, Place::Guarded] {
            outcomes.push(stage.run(program, place, args.records, &interrupts)?);
        }
    }

    report::write_table(&mut output, &outcomes).map_err(unwritable)?;
    report::write_meaning(&mut output, &outcomes, &stage.file_system).map_err(unwritable)?;
    Ok(report::all_kept(&outcomes))
}

fn introduce(output: &mut impl Write, args: &DemoArgs, stage: &Stage) -> io::Result<()> {
    writeln!(
        output,
        "{WRITERS} processes append {} lines each to one file: first in a plain directory,\n\
         then through two mounts of dotlockfs, two processes on each, as on two hosts.",
        args.records
    )?;
    if args.dir.is_some() {
        writeln!(
            output,
            "Directory: {} ({}); both mounts are on this one host.",
            stage.shared.path.display(),
            stage.file_system
        )?;
    }
    writeln!(output)
}

/// The directories and the mounts. The order of the fields is that of taking down: mounts first.
struct Stage {
    mounts: Vec<Mount>,
    shared: Scratch,
    local: Scratch,
    dotlockfs: PathBuf,
    file_system: String,
}

impl Stage {
    fn set(args: &DemoArgs) -> Result<Stage, Failure> {
        let dotlockfs = std::env::current_exe().map_err(|error| {
            Failure::Failed(format!("cannot find the dotlockfs executable: {error}"))
        })?;
        let temporary = std::env::temp_dir();
        let parent = args.dir.as_deref().unwrap_or(&temporary);
        let shared = Scratch::new(parent, PREFIX, args.keep)?;
        // Not in DIR: a mount point must be a local directory that is surely ours.
        let local = Scratch::new(&temporary, PREFIX, false)?;
        let file_system = mounts::file_system_of(&shared.path).unwrap_or("unknown type".into());
        let mut stage = Stage {
            mounts: Vec::new(),
            shared,
            local,
            dotlockfs,
            file_system,
        };

        make_directory(&stage.plain())?;
        make_directory(&stage.source())?;
        let rules = stage.source().join(".dotlockfs.toml");
        fs::write(&rules, RULES).map_err(|error| Failure::on("write", &rules, error))?;
        for host in HOSTS {
            let point = stage.local.path.join(host);
            make_directory(&point)?;
            let log = stage.local.path.join(format!("{host}.log"));
            let mount = Mount::new(
                mounts::command(&stage.dotlockfs),
                &stage.source(),
                &point,
                &log,
            )?;
            stage.mounts.push(mount);
        }
        Ok(stage)
    }

    fn plain(&self) -> PathBuf {
        self.shared.path.join("plain")
    }

    fn source(&self) -> PathBuf {
        self.shared.path.join("guarded")
    }

    /// Runs one workload in one place and judges the file, seen from the plain directory.
    fn run(
        &self,
        program: Program,
        place: Place,
        records: u32,
        interrupts: &Interrupts,
    ) -> Result<Outcome, Failure> {
        let (directories, seen_from) = match place {
            Place::Plain => (vec![self.plain()], self.plain()),
            Place::Guarded => {
                let mounts = HOSTS.map(|host| self.local.path.join(host));
                (mounts.to_vec(), self.source())
            }
        };
        let directories: Vec<&Path> = directories
            .iter()
            .map(PathBuf::as_path)
            .cycle()
            .take(WRITERS as usize)
            .collect();
        let file = seen_from.join(program.file());
        let expectation = Expectation {
            shape: program.shape(),
            records: &[records; WRITERS as usize],
        };

        let bar = Bar::new(expectation.bytes());
        bar.say(format!("{}, {}", program.name(), place.name()));
        let time = Run {
            program,
            dotlockfs: &self.dotlockfs,
            directories: &directories,
            file: program.file(),
            plain_file: &file,
            records,
            logs: &self.local.path,
        }
        .to_the_end(interrupts, |size| bar.set(size))?;
        drop(bar);

        let content = fs::read(&file).map_err(|error| Failure::on("read", &file, error))?;
        Ok(Outcome {
            program,
            place,
            verdict: judge::judge(&content, expectation),
            time,
        })
    }
}
