//! `dotlockfs run`: one command with a directory guarded at its own path, for nobody else.
//!
//! ```text
//!   dotlockfs run       waits, passes signals on, ends as the command has ended (`supervise`)
//!    |- the daemon      outside of the namespaces, in a session of its own (`daemon`)
//!    `- the command     in namespaces of its own, with the mount in them (`inside`)
//! ```
//!
//! The daemon stays outside, so that it reaches the directory as the user that it is, with all
//! groups, and sees the programs that it serves. The mount is made inside, where a user may, and its
//! descriptor of `/dev/fuse` is handed out. Nobody else keeps one: when the daemon is killed the
//! programs get ENOTCONN, and none of them hangs. And the mount is in no other namespace: it ends
//! with the last process that uses it, whatever has become of the rest.

mod daemon;
mod inside;
mod refusal;
mod supervise;
mod witness;

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{RunArgs, mount};
use crate::backing;
use crate::config::error::shown;
use crate::config::{MountOptions, Rules};
use crate::sys::{self, mount_table, process};
use supervise::Signals;

/// Where this command itself has failed, and the other command was not started: as env(1) and
/// timeout(1) have it.
pub const OWN_FAILURE: u8 = 125;

/// More about it, for `--help`.
pub const HELP: &str = "\
The directory is guarded at its own path, for this command and what it starts, in namespaces of \
their own. Others see no mount, and nothing is to be undone. The rules are those of .dotlockfs.toml \
in the directory, unless --config or --guard says otherwise. In a directory that is guarded already \
the command is just run.

Only what COMMAND and its children open themselves is guarded. `dotlockfs run COMMAND >> FILE` lets \
your shell open FILE, outside. Write this:
  dotlockfs run -- sh -c 'COMMAND >> FILE'

Exit status:
  that of COMMAND; where a signal has ended it, the same signal ends this one
  127  COMMAND was not found
  126  it cannot be run
  125  anything else keeps it from being started";

/// Examples, for `-h` and `--help`.
pub const EXAMPLES: &str = "\
Examples:
  dotlockfs run -- sh -c 'echo \"$host,$result\" >> results.csv'
  dotlockfs run --source /net/data --guard '*.csv' -- ./simulate";

/// What is guarded, and how.
struct Plan {
    /// The directory, by its canonical path.
    dir: PathBuf,
    /// The same, opened before anything is mounted over it.
    root: OwnedFd,
    rules: Rules,
    read_only: bool,
    no_exec: bool,
    /// Root mounts for all users, in the user namespace that it is in.
    as_root: bool,
    /// The working directory, if it lies in the guarded directory.
    cwd: Option<PathBuf>,
}

/// Runs it, and gives the exit status for this process; where the command was ended by a signal,
/// this process is ended by the same.
pub fn run(args: RunArgs) -> ExitCode {
    start(args).unwrap_or_else(|error| {
        eprintln!("dotlockfs: {error}");
        ExitCode::from(OWN_FAILURE)
    })
}

fn start(args: RunArgs) -> Result<ExitCode, Box<dyn Error>> {
    let inherited = process::descriptors()?;
    // The server may not answer, and then this process must still end by Ctrl-C.
    let plan = check(&args)?;
    let signals = Signals::take()?;
    let Some(plan) = plan else {
        return Ok(ExitCode::from(inside::become_command(&args, &signals)));
    };
    let pair = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
    };
    // Between the daemon and what becomes the command; and between the daemon and this process.
    let (to_daemon, from_command) = pair()?;
    let (watch, watched) = pair()?;
    let Some(daemon) = process::fork_with_id()? else {
        drop((to_daemon, watch));
        process::close_inherited(&inherited);
        return Ok(daemon::run(plan, from_command, watched));
    };
    drop((from_command, watched));
    let own = nix::unistd::getpid();
    let Some(command) = process::fork_with_id()? else {
        drop(watch);
        let code = inside::run(&args, plan, to_daemon, &signals, own);
        return Ok(ExitCode::from(code));
    };
    drop((to_daemon, plan));
    // Whoever reads what the command writes waits for its end, not for ours.
    process::close_inherited(&inherited);
    process::leave_input_and_output()?;
    supervise::until_all_is_done(command, daemon, &watch, &signals)
}

/// Looks at what is to be guarded; `None` if it is guarded already.
fn check(args: &RunArgs) -> Result<Option<Plan>, Box<dyn Error>> {
    backing::check_proc()?;
    let asked = args.source.as_deref().unwrap_or(Path::new("."));
    let fail = |error: io::Error| mount::unusable(asked, "cannot guard it", &error);
    let dir = fs::canonicalize(asked).map_err(fail)?;
    let root = mount::open_source(&dir).map_err(|error| match mount::is_not_connected(&error) {
        true => format!(
            "{}: lies in a mount whose daemon has ended; start that again first, or end it: \
             umount -l",
            shown(&dir)
        ),
        false => fail(error),
    })?;
    if let Some(living) = mount_table::ours(mount_table::id_of(&root)?)? {
        if args.config.is_some() || !args.guards.is_empty() {
            eprintln!(
                "dotlockfs: {}: is guarded already, by the mount at {}, whose rules hold; --guard \
                 and --config do nothing",
                shown(&dir),
                shown(&living.point)
            );
        }
        return Ok(None);
    }
    if dir == Path::new("/") {
        return Err("/: the root directory cannot be guarded; name one below it".into());
    }
    let options = MountOptions {
        guard: args.guards.clone(),
        ..MountOptions::default()
    };
    let file = args.config.as_deref();
    let rules = mount::Origin::new(file, &options, &dir, (&root, &[]))?.load()?;
    // One that is not to be seen is left as it is.
    let cwd = std::env::current_dir().ok();
    Ok(Some(Plan {
        read_only: sys::fs::is_read_only(&root)?,
        no_exec: sys::fs::is_no_exec(&root)?,
        as_root: sys::creds::euid() == 0,
        cwd: cwd.filter(|cwd| cwd.starts_with(&dir)),
        dir,
        root,
        rules,
    }))
}
