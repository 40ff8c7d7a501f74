//! What shells complete, by clap_complete: without what is hidden, and on zsh with directories where
//! a subcommand may stand.

use clap::{Arg, Command};
use clap_complete::Shell;

/// The shells that are served, each with the name under which it looks for a script.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "dotlockfs"),
    (Shell::Zsh, "_dotlockfs"),
    (Shell::Fish, "dotlockfs.fish"),
];

/// The scripts, each with its name, for a command that was built before.
pub fn scripts(command: &Command) -> impl Iterator<Item = (&'static str, String)> {
    SHELLS.into_iter().map(|(shell, name)| {
        let script = match shell {
            Shell::Zsh => for_zsh(command),
            _ => script(shell, visible(command, |_| true)),
        };
        (name, script)
    })
}

fn script(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "dotlockfs", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// zsh's script expects a subcommand only behind the positional arguments of the command itself. So
/// it is made without those, and directories are offered beside the subcommands, and after one.
fn for_zsh(command: &Command) -> String {
    let script = script(
        Shell::Zsh,
        visible(command, |argument| !argument.is_positional()),
    );
    let first = "\": :{_alternative 'commands:command:_dotlockfs_commands' \
                 'directories:directory:_files -/'}\"";
    let script = script.replacen("\":: :_dotlockfs_commands\"", first, 1);
    // The first word is no subcommand, so the next is the mountpoint.
    let end = "\n        esac\n";
    script.replacen(end, &format!("\n(*)\n_files -/ && ret=0\n;;{end}"), 1)
}

/// The command without what is hidden, which completions would offer, and with those of its own
/// arguments that are `wanted`.
fn visible(command: &Command, wanted: fn(&Arg) -> bool) -> Command {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let shown = shown.map(|sub| without_subcommands(sub, |_| true));
    without_subcommands(command, wanted)
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .subcommands(shown)
}

fn without_subcommands(command: &Command, wanted: fn(&Arg) -> bool) -> Command {
    let mut bare = Command::new(command.get_name().to_owned()).disable_help_subcommand(true);
    if let Some(about) = command.get_about() {
        bare = bare.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        bare = bare.version(version.to_owned());
    }
    // --help and --version were made by the command's own build.
    let shown = command.get_arguments().filter(|argument| {
        !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version")
    });
    bare.args(shown.filter(|argument| wanted(argument)).cloned())
}
