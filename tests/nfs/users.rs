//! Ordinary users of a mount that root made, on an export that takes root for nobody.

use crate::lab::{BOTH, Lab, VIEW};
use crate::on_both_versions;
use crate::writers::{Found, Program, Writers};

/// Where hosts mount the export with root_squash.
const SQUASHED: &str = "/mnt/squashed";

/// The same on the server's disk.
const SQUASHED_DISK: &str = "/mnt/exports/squash";

on_both_versions! {
    /// Two users on two hosts share a log that everybody may write.
    fn users_share_a_file_on_a_squashed_export(lab: &Lab) {
        lab.server(&format!("rm -rf {SQUASHED_DISK}/shared && mkdir -m 777 {SQUASHED_DISK}/shared"));
        let mount = format!(
            "mkdir -p {SQUASHED} && mount.cluster {} none squash {SQUASHED}",
            lab.vers_number()
        );
        lab.on_each(&BOTH, &mount);
        let view = lab.view_of(&format!("{SQUASHED}/shared"), &BOTH, "-o allow_other");

        // The first to append makes the file, and it is theirs.
        let file = format!("{VIEW}/log");
        let mut first = Writers::new(lab);
        first.add_as("host1", 1000, "f", Program::ShellLoop, &file, 3);
        first.start();
        let (expected, _) = first.finish();
        let disk = format!("{SQUASHED_DISK}/shared/log");
        Found::in_file(lab, &disk, &expected).assert_all();
        let owner = lab.server(&format!("stat -c '%u %g' {disk}"));
        assert_eq!(owner, "1000 1000\n");

        // Then all of them.
        lab.server(&format!("truncate -s 0 {disk}; chmod 666 {disk}"));
        let mut writers = Writers::new(lab);
        for host in BOTH {
            writers.add_as(host, 1000, "a", Program::ShellLoop, &file, 50);
            writers.add_as(host, 1001, "b", Program::Held, &file, 50);
        }
        writers.start();
        let (expected, _) = writers.finish();
        Found::in_file(lab, &disk, &expected).assert_all();

        drop(view);
        lab.on_each(&BOTH, &format!("umount {SQUASHED}"));
    }
}
