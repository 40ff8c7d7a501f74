//! `--watch`: a new look every second. On a terminal it takes the place of the one before.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use console::Term;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::find::Asked;
use super::{json, look, text, width};
use crate::cli::StatusArgs;
use crate::config::error::shown;

/// How often there is a new look.
const EVERY: Duration = Duration::from_secs(1);

/// Looks again and again until a signal asks for the end, the mount that was asked for has gone, or
/// nobody reads what is written.
///
/// # Errors
/// A line for the user where that mount does not answer in the beginning.
pub(super) fn run(args: &StatusArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut asked = look(args)?;
    let ends = signals()?;
    let term = Term::buffered_stdout();
    let mut before: Option<(Asked, Instant)> = None;
    let mut screen = Screen {
        in_place: term.is_term() && !args.json,
        term,
        lines: 0,
    };
    loop {
        let now = Instant::now();
        let seen = if args.json {
            serde_json::to_string(&json(&asked))? + "\n"
        } else {
            let before = before.as_ref();
            let before = before.map(|(asked, at)| (asked, (now - *at).as_secs_f64()));
            let mut seen = text(args, &asked, before, width());
            for problem in &asked.problems {
                seen.push_str(problem);
                seen.push('\n');
            }
            seen
        };
        if screen.show(&seen).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        before = Some((asked, now));
        let next = now + EVERY;
        match ends.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Ok(ExitCode::SUCCESS),
        }
        match (look(args), &args.mount) {
            (Ok(new), _) => asked = new,
            (Err(_), Some(mount)) => {
                let mount = shown(mount);
                let line = format!("dotlockfs: {mount}: the mount does not answer any more");
                let _ = writeln!(io::stderr(), "{line}");
                return Ok(ExitCode::SUCCESS);
            }
            (Err(error), None) => return Err(error),
        }
    }
}

/// Tells of a signal that asks for the end. (One that comes in the middle of a line must not end it
/// there.)
fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let _ = sender.send(signal);
            }
        })?;
    Ok(receiver)
}

/// Where it is shown.
struct Screen {
    term: Term,
    in_place: bool,
    /// How many lines of the last look stand there.
    lines: usize,
}

impl Screen {
    fn show(&mut self, shown: &str) -> io::Result<()> {
        if !self.in_place {
            // Blocks, with an empty line between two.
            if self.lines > 0 && shown.lines().count() > 1 {
                self.term.write_line("")?;
            }
            self.lines = shown.lines().count();
            self.term.write_str(shown)?;
            return self.term.flush();
        }
        // What does not fit would make the terminal scroll, and the next look miss its place.
        let (rows, columns) = self.term.size();
        let lines = shown.lines().take(usize::from(rows).saturating_sub(1));
        if self.lines > 0 {
            self.term.move_cursor_up(self.lines)?;
        }
        self.lines = 0;
        for line in lines {
            self.term.clear_line()?;
            let line = console::truncate_str(line, usize::from(columns), "");
            self.term.write_line(&line)?;
            self.lines += 1;
        }
        self.term.clear_to_end_of_screen()?;
        self.term.flush()
    }
}
