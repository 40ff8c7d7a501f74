//! The `dotlockfs` command: parses the arguments and runs the chosen subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    dotlockfs::cli::main()
}
