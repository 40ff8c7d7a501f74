//! The processes that write: shell loops, and a program with a buffer like that of C's stdio.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::stage::child::Worker;
use crate::cli::stage::interrupt::{Failure, Interrupts};
use crate::cli::stage::judge::{self, PATTERN, Shape};

/// The size of the writing program's buffer: that of C's stdio for a file on most systems.
pub const BUFFER: usize = 4096;

/// What the writing program takes to fill its buffer again. A program that computes what it
/// writes takes far longer; with no pause at all, one writer is done before the next begins.
pub const PAUSE: Duration = Duration::from_millis(1);

/// How long the file may stay as it is, with writers at work, before the demo gives up.
const STALL_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A way to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `echo ... >> FILE` in a loop: open, write, close for each line.
    ShellLoop,
    /// Opens the file once and appends through a buffer that ends anywhere in a line.
    Buffered,
}

impl Program {
    /// The form of the records that this program writes.
    pub fn shape(self) -> Shape {
        match self {
            Program::ShellLoop => Shape::Short,
            Program::Buffered => Shape::Long,
        }
    }

    /// The command that writes `records` records as `writer` to `file`, once its input ends.
    fn command(self, dotlockfs: &Path, file: &str, writer: u32, records: u32) -> Command {
        match self {
            Program::ShellLoop => {
                // Builtins only, so that the time goes into appending. `read` fails at the end
                // of the input, which is the sign to start.
                let script = format!(
                    "read -r go; i=1; while [ $i -le {records} ]; do \
                     echo w{writer},$i,{PATTERN},$i,w{writer} >> {file} || exit 1; \
                     i=$((i + 1)); done"
                );
                let mut command = Command::new("sh");
                command.arg("-c").arg(script);
                command
            }
            Program::Buffered => {
                let mut command = Command::new(dotlockfs);
                command.arg("demo").arg(format!("--writer={writer}"));
                command.arg(format!("--writer-file={file}"));
                command.arg(format!("--records={records}"));
                command
            }
        }
    }
}

/// One run: two processes in each of two directories append to the same file.
#[derive(Debug)]
pub struct Run<'a> {
    /// The way they append.
    pub program: Program,
    /// The `dotlockfs` executable.
    pub dotlockfs: &'a Path,
    /// Where each writer works: writer 1 in the first, and so on.
    pub directories: &'a [&'a Path],
    /// The name of the file within these directories.
    pub file: &'a str,
    /// The same file, seen from the plain directory, to watch it grow.
    pub plain_file: &'a Path,
    /// How many records each of them writes.
    pub records: u32,
    /// A directory for what the writers have to say.
    pub logs: &'a Path,
}

impl Run<'_> {
    /// Starts the writers, lets them go at once, and waits for the last. `progress` is told the
    /// size of the file now and then. Returns how long they took.
    pub fn to_the_end(
        &self,
        interrupts: &Interrupts,
        mut progress: impl FnMut(u64),
    ) -> Result<Duration, Failure> {
        let mut writers = Vec::new();
        for (number, directory) in (1..).zip(self.directories) {
            interrupts.check()?;
            writers.push(Writer::start(self, number, directory)?);
        }
        let start = Instant::now();
        for writer in &mut writers {
            // Nothing is written to them: the end of their input lets them go.
            drop(writer.worker.child.stdin.take());
        }
        let (mut size, mut grown) = (0, start);
        while !writers.is_empty() {
            interrupts.check()?;
            let mut still_at_work = Vec::new();
            for writer in writers {
                still_at_work.extend(writer.check()?);
            }
            writers = still_at_work;
            let now = fs::metadata(self.plain_file).map_or(0, |file| file.len());
            if now != size {
                (size, grown) = (now, Instant::now());
                progress(size);
            }
            if grown.elapsed() > STALL_DEADLINE {
                let seconds = STALL_DEADLINE.as_secs();
                let path = self.plain_file.display();
                return Err(Failure::Failed(format!(
                    "gave up: {path} has not grown for {seconds} s, and writers are waiting"
                )));
            }
            if !writers.is_empty() {
                thread::sleep(POLL);
            }
        }
        Ok(start.elapsed())
    }
}

/// A writing process.
#[derive(Debug)]
struct Writer {
    worker: Worker,
    file: PathBuf,
    log: PathBuf,
}

impl Writer {
    fn start(run: &Run, number: u32, directory: &Path) -> Result<Writer, Failure> {
        let log = run.logs.join(format!("writer-{number}.log"));
        let stderr = File::create(&log).map_err(|error| Failure::on("create", &log, error))?;
        let mut command = run
            .program
            .command(run.dotlockfs, run.file, number, run.records);
        command
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr);
        let worker = Worker::start(&mut command).map_err(|error| {
            let program = command.get_program().to_string_lossy();
            Failure::on(&format!("start {program} in"), directory, error)
        })?;
        let file = directory.join(run.file);
        Ok(Writer { worker, file, log })
    }

    /// Gives the writer back if it is still at work, nothing if it is done.
    fn check(mut self) -> Result<Option<Writer>, Failure> {
        let status = match self.worker.child.try_wait() {
            Ok(None) => return Ok(Some(self)),
            Ok(Some(status)) if status.success() => return Ok(None),
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let said = fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let reason = said.lines().next().unwrap_or(&status);
        Err(Failure::on("append to", &self.file, reason))
    }
}

/// What a child of the demo does: waits for the end of its input, then appends its records to
/// `file` through one descriptor and one buffer.
pub fn write_records(file: &Path, writer: u32, records: u32) -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new())?;
    let mut output = File::options().append(true).create(true).open(file)?;
    let mut buffer = Vec::with_capacity(2 * BUFFER);
    for number in 1..=records {
        buffer.extend_from_slice(judge::render(Shape::Long, writer, number).as_bytes());
        // Not io::BufWriter: it passes on what it holds before a line that does not fit, where
        // C's stdio fills its buffer to the brim and cuts the line.
        while buffer.len() >= BUFFER {
            output.write_all(&buffer[..BUFFER])?;
            buffer.drain(..BUFFER);
            thread::sleep(PAUSE);
        }
    }
    output.write_all(&buffer)
}
