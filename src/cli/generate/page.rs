//! One man page of section 1: clap_mangen has the options, and the end of the long help becomes
//! sections, paragraphs and lists.
//!
//! That end is plain text: a line is a paragraph, unless it is indented, or a [heading](HEADINGS)
//! with a colon: those come last. Two blanks or more divide an indented line into a term and what it
//! means; a deeper line goes on with that.

use std::io;
use std::time::{Duration, SystemTime};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// Lines of the help, with a colon behind them, that become sections of the page.
const HEADINGS: [&str; 7] = [
    "Mount options",
    "Signals",
    "Columns",
    "Groups",
    "Exit status",
    "Files",
    "Examples",
];

/// Pages that say more.
const SEE_ALSO: [(&str, &str); 3] = [
    ("dotlockfs", "1"),
    ("dotlockfs.toml", "5"),
    ("mount.dotlockfs", "8"),
];

/// The beginning of the year 10000, which YYYY-MM-DD cannot say.
const MOST_SECONDS: u64 = 253_402_300_800;

/// The date for all pages, as YYYY-MM-DD: of `$SOURCE_DATE_EPOCH` where that is set, so that the same
/// source always gives the same page; else today's.
///
/// # Errors
/// A line for the user if the variable is no number of seconds.
pub fn date() -> Result<String, String> {
    let time = match std::env::var_os("SOURCE_DATE_EPOCH") {
        None => SystemTime::now(),
        Some(seconds) => seconds
            .to_str()
            .and_then(|seconds| seconds.parse().ok())
            .filter(|seconds| *seconds < MOST_SECONDS)
            .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .ok_or("SOURCE_DATE_EPOCH: is not a number of seconds since 1970; set it so, or not")?,
    };
    let mut date = humantime::format_rfc3339_seconds(time).to_string();
    date.truncate("YYYY-MM-DD".len());
    Ok(date)
}

/// The page of one command, which was built before.
pub struct Page<'a> {
    command: &'a Command,
    man: Man,
}

impl<'a> Page<'a> {
    /// Of a command, with a date for its foot.
    pub fn of(command: &'a Command, date: &str) -> Page<'a> {
        let version = env!("CARGO_PKG_VERSION");
        let man = Man::new(command.clone())
            .title(display_name(command).to_uppercase())
            .date(date)
            .source(format!("dotlockfs {version}"))
            .manual("User Commands");
        Page { command, man }
    }

    /// Its name, as `dotlockfs-run.1`.
    pub fn file_name(&self) -> String {
        format!("{}.1", display_name(self.command))
    }

    /// Its text, for man(1).
    ///
    /// # Errors
    /// None but those of writing to memory.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        let mut page = Vec::new();
        self.man.render_title(&mut page)?;
        self.man.render_name_section(&mut page)?;
        self.synopsis().to_writer(&mut page)?;
        let (description, sections) = self.long_help();
        description.to_writer(&mut page)?;
        self.man.render_options_section(&mut page)?;
        if self.command.get_subcommands().next().is_some() {
            self.man.render_subcommands_section(&mut page)?;
        }
        sections.to_writer(&mut page)?;
        self.see_also().to_writer(&mut page)?;
        Ok(page)
    }

    /// The usage, as the help has it.
    fn synopsis(&self) -> Roff {
        let mut roff = Roff::new();
        roff.control("SH", ["SYNOPSIS"]);
        let usage = self.command.clone().render_usage().to_string();
        for (number, line) in usage.trim_start_matches("Usage:").lines().enumerate() {
            if number > 0 {
                roff.control("br", []);
            }
            let mut text = Vec::new();
            for word in line.split_whitespace() {
                let plain = word.trim_start_matches(['<', '[']);
                let name = plain.trim_end_matches(['>', ']', '.']);
                let (before, after) = (&word[..word.len() - plain.len()], &plain[name.len()..]);
                text.extend([roman(before.replace('<', "")), named(name)]);
                text.push(roman(format!("{} ", after.replace('>', ""))));
            }
            roff.text(text);
        }
        roff
    }

    /// What stands behind the options in the long help: what belongs to the description, and the
    /// sections after it.
    fn long_help(&self) -> (Roff, Roff) {
        let (mut description, mut sections) = (Roff::new(), Roff::new());
        description.control("SH", ["DESCRIPTION"]);
        let about = self.command.get_about().map(ToString::to_string);
        description.text([roman(format!("{}.", about.unwrap_or_default()))]);
        let help = self.command.get_after_long_help();
        let help = help.map(ToString::to_string).unwrap_or_default();
        let mut roff = &mut description;
        let mut after_heading = false;
        // What is not a term with a meaning is a command, but for one section.
        let mut whole_line: fn(String) -> Inline = bold;
        for line in help.lines() {
            let first = std::mem::take(&mut after_heading);
            if let Some(heading) = line.strip_suffix(':').filter(|it| HEADINGS.contains(it)) {
                roff = &mut sections;
                roff.control("SH", [heading.to_uppercase().as_str()]);
                after_heading = true;
                whole_line = if heading == "Exit status" {
                    roman
                } else {
                    bold
                };
            } else if let Some(deeper) = line.strip_prefix("   ") {
                roff.text([roman(deeper.trim_start())]);
            } else if let Some(item) = line.strip_prefix("  ") {
                match item.split_once("  ") {
                    Some((term, meaning)) => {
                        roff.control("TP", []);
                        roff.text([bold(term)]);
                        roff.text([roman(meaning.trim_start())]);
                    }
                    None => {
                        if !first {
                            roff.control("PP", []);
                        }
                        roff.text([whole_line(item.to_owned())]);
                    }
                }
            } else if !line.is_empty() {
                roff.control("PP", []);
                roff.text([roman(line)]);
            }
        }
        (description, sections)
    }

    fn see_also(&self) -> Roff {
        let mut roff = Roff::new();
        roff.control("SH", ["SEE ALSO"]);
        let others = SEE_ALSO
            .iter()
            .filter(|(name, _)| *name != display_name(self.command));
        let mut text = Vec::new();
        for (name, section) in others {
            if !text.is_empty() {
                text.push(roman(", "));
            }
            text.extend([bold(*name), roman(format!("({section})"))]);
        }
        roff.text(text);
        roff
    }
}

/// A word of the usage: what is to be put in for it stands in capitals.
fn named(word: &str) -> Inline {
    match word.chars().all(|letter| letter.is_ascii_uppercase()) {
        true => italic(word),
        false => bold(word),
    }
}

fn display_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}
