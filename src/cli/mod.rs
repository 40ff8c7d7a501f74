//! The command line: what can be asked for, and the dispatch to one module for each subcommand.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

use crate::config::options::address;

pub mod bare;
pub mod bench;
pub mod break_lock;
pub mod check_config;
pub mod demo;
pub mod doctor;
pub mod generate;
pub mod locks;
pub mod mount;
pub mod run;
pub mod stage;
pub mod status;

/// Mount a directory so that programs on many hosts update its files safely, even on NFS.
#[derive(Debug, Parser)]
#[command(
    name = "dotlockfs",
    version,
    about,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    // What is set by hand in the texts fits this, on any terminal and in a pipe.
    max_term_width = 80,
    after_help = mount::EXAMPLES,
    after_long_help = both(mount::HELP, mount::EXAMPLES)
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    mount: Option<MountArgs>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one command with a directory guarded for it, without root
    Run(RunArgs),
    /// Check a rule file and say in words what each rule does
    CheckConfig(CheckConfigArgs),
    /// Show what mounts of this host are doing: who waits, for whom, and how much was done
    Status(StatusArgs),
    /// Test whether a directory and this host are fit for dotlockfs
    Doctor(DoctorArgs),
    /// List the locks that are held under a directory, and by whom
    Locks(LocksArgs),
    /// End a lock whose holder is known to be dead, and fence the file
    Break(BreakArgs),
    /// Measure a directory, and mounts of it by dotlockfs and bindfs
    Bench(BenchArgs),
    /// Show on this machine what is lost without it, and kept with it
    Demo(DemoArgs),
    /// Write the man pages and the completions of shells, for packages
    #[command(hide = true)]
    Generate(GenerateArgs),
}

/// Arguments of the mount itself, the default command.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The directory to guard, most often on NFS
    #[arg(value_hint = ValueHint::DirPath)]
    pub source: PathBuf,
    /// Where the guarded view appears; may be SOURCE itself
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,
    /// Mount options, separated by commas, as in allow_other,ro,guard=GLOB
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Rule file to use in place of SOURCE/.dotlockfs.toml
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Stay in the foreground and log to standard error
    #[arg(short, long)]
    pub foreground: bool,
    /// How much to log: error, warn, info, debug or trace; RUST_LOG overrides it
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: log::LevelFilter,
    /// Threads that read requests from the kernel; 1 is fastest for one program at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// Serve metrics for Prometheus over HTTP at this port of 127.0.0.1, or at ADDRESS:PORT
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = metrics_address)]
    pub metrics: Option<SocketAddr>,
}

/// Arguments of `dotlockfs demo`.
#[derive(Debug, Args)]
#[command(after_long_help = demo::HELP)]
pub struct DemoArgs {
    /// Lines that each of the four processes appends in each run
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub records: u32,
    /// Keep the directory with the files that were written
    #[arg(long)]
    pub keep: bool,
    /// Work in a new directory inside DIR, on an NFS mount for example, not in the temporary one
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// Be one of the demo's own writing processes: its number
    #[arg(long, hide = true, requires = "writer_file")]
    pub writer: Option<u32>,
    /// Be one of the demo's own writing processes: the file to append to
    #[arg(long, hide = true, requires = "writer")]
    pub writer_file: Option<PathBuf>,
}

/// Arguments of `dotlockfs check-config`.
#[derive(Debug, Args)]
#[command(
    after_help = check_config::EXAMPLES,
    after_long_help = both(check_config::HELP, check_config::EXAMPLES)
)]
pub struct CheckConfigArgs {
    /// The rule file, or a directory that holds a .dotlockfs.toml
    #[arg(default_value = ".dotlockfs.toml", value_hint = ValueHint::AnyPath)]
    pub file: PathBuf,
    /// Say which rule applies to this path (relative to the root of the mount); may be repeated
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    address::parse(text).map_err(|wanted| format!("it may be {wanted}"))
}

/// Arguments of `dotlockfs status`.
#[derive(Debug, Args)]
#[command(
    after_help = status::EXAMPLES,
    after_long_help = both(status::HELP, status::EXAMPLES)
)]
pub struct StatusArgs {
    /// A mount, or a directory in it; without it all mounts of this host are shown, in short
    #[arg(value_name = "MNT", value_hint = ValueHint::DirPath)]
    pub mount: Option<PathBuf>,
    /// Write JSON, for scripts
    #[arg(long)]
    pub json: bool,
    /// Look again every second, until Ctrl-C or the end of the mount
    #[arg(short, long)]
    pub watch: bool,
}

/// Arguments of `dotlockfs locks`.
#[derive(Debug, Args)]
#[command(
    after_help = locks::EXAMPLES,
    after_long_help = both(locks::HELP, locks::EXAMPLES)
)]
pub struct LocksArgs {
    /// A directory, on the file system itself or in a mount of dotlockfs
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Show also files whose lock is free
    #[arg(long)]
    pub all: bool,
    /// Write JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dotlockfs break`.
#[derive(Debug, Args)]
#[command(
    after_help = break_lock::EXAMPLES,
    after_long_help = both(break_lock::HELP, break_lock::EXAMPLES)
)]
pub struct BreakArgs {
    /// The file, on the file system itself or in a mount of dotlockfs
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Do not wait for a holder that may live; what it answers until it notices may be lost
    #[arg(long)]
    pub now: bool,
    /// Rule file to use in place of the nearest .dotlockfs.toml above the file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// Arguments of `dotlockfs bench`.
#[derive(Debug, Args)]
#[command(
    after_help = bench::EXAMPLES,
    after_long_help = both(bench::HELP, bench::EXAMPLES)
)]
pub struct BenchArgs {
    /// Where to measure, each in a new directory [default: $TMPDIR, or this directory]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dirs: Vec<PathBuf>,
    /// Measure only these groups, separated by commas
    #[arg(
        long,
        value_name = "GROUP",
        value_enum,
        value_delimiter = ',',
        help_heading = WHAT,
        hide_possible_values = true
    )]
    pub only: Vec<bench::Group>,
    /// How often everything is measured [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = WHAT)]
    pub rounds: Option<u32>,
    /// How long each run appends, or reads at random [default: 0.3]
    #[arg(long, value_name = "S", value_parser = bench::seconds, help_heading = WHAT)]
    pub seconds: Option<Duration>,
    /// The size of the large file [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = WHAT)]
    pub size: Option<bytesize::ByteSize>,
    /// How many small files, and files of the tree [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = WHAT)]
    pub files: Option<u32>,
    /// How many files the daemon gets to know for its memory [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000_000), help_heading = WHAT)]
    pub inodes: Option<u32>,
    /// A small run: 2 rounds of 0.1 seconds, 16MiB, 500 files, 5000 for the memory
    #[arg(long, help_heading = WHAT)]
    pub quick: bool,
    /// Be one of several hosts that append in DIR at the same time, of this name
    #[arg(
        long,
        value_name = "NAME",
        requires_all = ["hosts", "dirs"],
        value_parser = bench::role,
        help_heading = HOSTS
    )]
    pub role: Option<String>,
    /// How many hosts that are
    #[arg(
        long,
        value_name = "N",
        requires = "role",
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = HOSTS
    )]
    pub hosts: Option<u16>,
    /// Write JSON, for scripts
    #[arg(long)]
    pub json: bool,
    /// Write a chart of the ratios to FILE, too
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// Be one of the processes that work
    #[arg(long, hide = true, value_name = "JOB", exclusive = true)]
    pub job: Option<String>,
}

/// Arguments of `dotlockfs doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = doctor::EXAMPLES,
    after_long_help = both(doctor::HELP, doctor::EXAMPLES)
)]
pub struct DoctorArgs {
    /// The directory to guard, or a mount of dotlockfs
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Write JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dotlockfs run`.
#[derive(Debug, Args)]
#[command(
    after_help = run::EXAMPLES,
    after_long_help = both(run::HELP, run::EXAMPLES)
)]
pub struct RunArgs {
    /// The directory to guard, in place of the present one
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub source: Option<PathBuf>,
    /// Guard the files that match, in place of the rules in DIR/.dotlockfs.toml; may be repeated
    #[arg(long = "guard", value_name = "GLOB", conflicts_with = "config")]
    pub guards: Vec<String>,
    /// Rule file to use in place of DIR/.dotlockfs.toml
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The command, and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_hint = ValueHint::CommandWithArguments
    )]
    pub command: Vec<OsString>,
}

/// Arguments of `dotlockfs generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Where to write man1/*.1 and completions/*; made if it is missing
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

/// Headings of the options of `dotlockfs bench`.
const WHAT: &str = "What is measured";
const HOSTS: &str = "Several hosts";

/// The end of a long help: what there is to know, and the examples.
fn both(help: &str, examples: &str) -> String {
    format!("{help}\n\n{examples}")
}

/// Runs the command and gives the exit status of the process: 0 for success, 1 for a failure
/// that was reported, 2 for arguments that could not be understood. Called as mount(8)'s helper, it
/// gives that one's statuses. `dotlockfs run` gives that of the command that it runs, and
/// [`run::OWN_FAILURE`] for failures of its own.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if mount::helper::is_called(arguments.next().as_deref()) {
        return mount::helper::main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && std::env::args_os().nth(1) == Some("run".into()) => {
            let _ = error.print();
            return ExitCode::from(run::OWN_FAILURE);
        }
        Err(error) => error.exit(),
    };
    let outcome = match (cli.command, cli.mount) {
        (Some(Command::Demo(args)), _) => demo::run(&args),
        (Some(Command::CheckConfig(args)), _) => check_config::run(&args),
        (Some(Command::Status(args)), _) => status::run(&args),
        (Some(Command::Locks(args)), _) => locks::run(&args),
        (Some(Command::Break(args)), _) => break_lock::run(&args),
        (Some(Command::Bench(args)), _) => bench::run(&args),
        (Some(Command::Doctor(args)), _) => doctor::run(&args),
        (Some(Command::Run(args)), _) => Ok(run::run(args)),
        (Some(Command::Generate(args)), _) => generate::run(&args, &Cli::command()),
        (None, Some(args)) => mount::run(args),
        (None, None) => unreachable!("clap asks for SOURCE and MOUNTPOINT"),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dotlockfs: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a command's whole answer to standard output.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // A reader such as `head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clap would break, and with it the columns.
    #[test]
    fn what_is_set_by_hand_in_a_help_fits_80_columns() {
        let cli = Cli::command();
        let mut looked_at = 0;
        for command in cli.get_subcommands().chain([&cli]) {
            let helps = [command.get_after_help(), command.get_after_long_help()];
            for help in helps.into_iter().flatten() {
                let help = help.to_string();
                for line in help.lines().filter(|line| line.starts_with(' ')) {
                    assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
                    looked_at += 1;
                }
            }
        }
        assert_ne!(looked_at, 0);
    }
}
