//! `dotlockfs check-config`: reads a rule file as the mount would, and says in words what it
//! does, or which rule a path falls under.

use std::error::Error;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use super::CheckConfigArgs;
use crate::config::error::shown;
use crate::config::explain::hang;
use crate::config::{FILE_NAME, Rules};

/// More about it, for `--help`.
pub const HELP: &str = "\
The file is read as the mount would read it. A fault is shown with its line, and with what would be \
right; a value that has no effect beside others is a warning. dotlockfs.toml(5) describes the keys.

Exit status:
  0  it can be used
  1  it cannot, or cannot be read";

/// Examples, for `-h` and `--help`.
pub const EXAMPLES: &str = "\
Examples:
  dotlockfs check-config /net/data                 what do the rules do?
  dotlockfs check-config /net/data --path a/b.log  which one is for a/b.log?";

/// Prints what the rules do, or with `--path` which rule applies to each path. A rule file
/// that the mount would refuse is an error; warnings are not.
pub fn run(args: &CheckConfigArgs) -> Result<ExitCode, Box<dyn Error>> {
    let checked = Checked::load(&args.file)?;
    let mut text = String::new();
    if args.paths.is_empty() {
        text = checked.explained();
    }
    for path in &args.paths {
        text.push_str(&checked.line_for(path)?);
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The rules, and where they come from.
struct Checked {
    rules: Rules,
    file: PathBuf,
    /// There is no such file, so the built-in rule holds.
    missing: bool,
}

impl Checked {
    /// Reads the file, or the rule file of the directory, at `path`.
    fn load(path: &Path) -> Result<Self, Box<dyn Error>> {
        let file = match path.is_dir() {
            true => path.join(FILE_NAME),
            false => path.to_owned(),
        };
        match Rules::load(&file) {
            Ok(rules) => Ok(Self {
                rules,
                file,
                missing: false,
            }),
            // The name that the mount itself looks for may be missing where its directory is
            // not; any other name was meant to be there.
            Err(error) if error.is_not_found() && is_rule_file_of_a_directory(&file) => Ok(Self {
                rules: Rules::everything(),
                file,
                missing: true,
            }),
            Err(error) => Err(error.into()),
        }
    }

    fn explained(&self) -> String {
        let name = match self.missing {
            true => format!("{} does not exist", shown(&self.file)),
            false => shown(&self.file),
        };
        let mut text = self.rules.describe(&name);
        let warnings = self.rules.warnings();
        if !warnings.is_empty() {
            text.push('\n');
        }
        for warning in warnings {
            text.push_str(&hang(&format!("warning: {warning}"), 0, 9));
        }
        text
    }

    fn line_for(&self, path: &Path) -> Result<String, Box<dyn Error>> {
        let name = shown(path);
        let relative = relative(path).ok_or_else(|| {
            format!("{name}: a path below the root of the mount, without \"..\", is needed")
        })?;
        if self.rules.guards_everything_alike().is_some() {
            return Ok(format!(
                "{name}: guarded for appends and locks; there are no rules\n"
            ));
        }
        let Some((index, pattern)) = self.rules.place_of(&relative) else {
            let why = match relative.as_os_str() == FILE_NAME {
                true => "it is the rule file",
                false => "no rule matches",
            };
            return Ok(format!("{name}: not guarded; {why}\n"));
        };
        let rule = &self.rules.rules()[index];
        let number = index + 1;
        let pattern = shown(Path::new(&rule.files[pattern]));
        let but = match rule.guards_anything() {
            true => "",
            false => "; not guarded",
        };
        Ok(format!("{name}: rule {number} ({pattern}) applies{but}\n"))
    }
}

fn is_rule_file_of_a_directory(file: &Path) -> bool {
    let directory = match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return false,
    };
    file.file_name().is_some_and(|name| name == FILE_NAME) && directory.is_dir()
}

/// The path relative to the root of the mount, as the mount itself would write it: without a
/// leading `/`, `.` or doubled slashes. None for the root itself and for a path with `..`.
fn relative(path: &Path) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(relative).filter(|relative| !relative.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_relative_to_the_root() {
        for (path, expected) in [
            ("a/b", Some("a/b")),
            ("/a//b/", Some("a/b")),
            ("./a/./b", Some("a/b")),
            ("a/../b", None),
            ("..", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(
                relative(Path::new(path)),
                expected.map(PathBuf::from),
                "{path}"
            );
        }
    }
}
