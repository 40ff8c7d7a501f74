//! The lock's own names beside a guarded file.

use crate::cluster::Output;
use crate::lab::{BOTH, Lab, VIEW};
use crate::on_both_versions;
use crate::writers::{Found, Program, Writers};

on_both_versions! {
    /// No listing of the mount shows them, and at rest hardly any is left on the disk.
    fn lock_names_are_hidden_and_cleaned_up(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        let names = ["one.log", "two.log"];
        let mut writers = Writers::new(lab);
        for host in BOTH {
            for (writer, name) in ["a", "b"].into_iter().zip(names) {
                let file = format!("{VIEW}/{name}");
                writers.add(host, writer, Program::HeldUntilStopped, &file, 100_000);
            }
        }
        writers.start();
        writers.wait_until_all_write();
        // There are some now, and a listing of the mount does not show them.
        let on_disk = lab.server(&format!("ls -A {}", directory.server));
        assert!(on_disk.contains(".one.log.turn."), "{on_disk}");
        let shown = lab.cluster.run_ok("host1", &format!("cd {VIEW} && ls -A && ls -f"));
        let mut shown: Vec<&str> = shown.lines().filter(|name| !name.ends_with(".lock")).collect();
        shown.sort_unstable();
        assert_eq!(shown, [".", "..", "one.log", "one.log", "two.log", "two.log"]);
        writers.stop();
        let (before, outputs) = writers.finish_anyhow();
        assert!(outputs.iter().all(Output::success), "{outputs:?}");

        // The mounts are there, but no file is open.
        let leftovers = format!("cd {} && for name in one two; do ls -A | grep -c ^.$name; done; :", directory.server);
        lab.wait_for("at most one hidden name for each file", &leftovers, |said| {
            said.lines().all(|count| matches!(count, "0" | "1"))
        });
        let all = lab.server(&format!("ls -A {}", directory.server));
        assert!(!all.contains(".claim."), "{all}");

        // From there it goes on as if nothing had been removed.
        let mut again = Writers::new(lab);
        for host in BOTH {
            again.add(host, "c", Program::Held, &format!("{VIEW}/one.log"), 20);
        }
        again.start();
        let (after, _) = again.finish();
        let expected = before.of("a").and(after);
        Found::in_file(lab, &format!("{}/one.log", directory.server), &expected).assert_all();
    }
}
