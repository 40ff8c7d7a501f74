//! `dotlockfs generate`: the man pages of section 1 and the completions of shells, made from what the
//! command line itself is made from. For packages and for `packaging/install`; so it is not listed
//! in the help.
//!
//! The pages of other sections are written by hand, in `packaging/man`.

mod completion;
mod page;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;

use super::GenerateArgs;
use crate::config::error::shown;

/// Writes `man1/*.1` and `completions/*` below a directory.
///
/// # Errors
/// One line for the user.
pub fn run(args: &GenerateArgs, command: &Command) -> Result<ExitCode, Box<dyn Error>> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let pages = args.dir.join("man1");
    make_directory(&pages)?;
    let date = page::date()?;
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for command in std::iter::once(&command).chain(subcommands) {
        let page = page::Page::of(command, &date);
        write(&pages.join(page.file_name()), &page.text()?)?;
    }
    let completions = args.dir.join("completions");
    make_directory(&completions)?;
    for (name, script) in completion::scripts(&command) {
        write(&completions.join(name), script.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| cannot("make", path, &error))
}

fn write(path: &Path, text: &[u8]) -> Result<(), String> {
    fs::write(path, text).map_err(|error| cannot("write", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("{}: cannot {what} it: {error}", shown(path))
}
