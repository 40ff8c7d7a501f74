//! Two hosts, two writers on each, one file: every record is there, once, whole and in order.
//! Beside it the same programs straight on NFS, where losing records is a matter of chance.

use std::time::Duration;

use crate::lab::{BOTH, Lab, VIEW};
use crate::on_both_versions;
use crate::table::APPENDS;
use crate::writers::{Found, Program, Writers};

on_both_versions! {
    /// `echo ... >>results.csv` in a loop.
    fn shell_loops(lab: &Lab) {
        keeps_all(lab, "shell loop, `echo >>file`", Program::ShellLoop, 500, "");
    }

    /// python's `open("results.csv", "a")`: its buffer is cut in the middle of a line whenever
    /// it is full, and the rule file says what a whole record is.
    fn python_with_its_buffer(lab: &Lab) {
        let lines = "[[guard]]\nfiles = ['results.csv']\nrecord = \"\\n\"";
        keeps_all(lab, "python, open(file, 'a')", Program::Buffered, 1000, lines);
    }

    /// One descriptor for the whole run.
    fn descriptors_held_open(lab: &Lab) {
        keeps_all(lab, "descriptor held open", Program::Held, 1000, "");
    }

    /// The same, answered before it is done.
    fn descriptors_held_open_and_answered_at_once(lab: &Lab) {
        let rule = "[[guard]]\nfiles = ['results.csv']\nack = \"close\"";
        keeps_all(lab, "the same, ack = \"close\"", Program::Held, 3000, rule);
    }

    /// What was closed is seen by whoever opens the file then, on whichever host.
    fn who_opens_sees_what_was_closed(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']\nack = \"close\"");
        let _view = lab.view(&directory, &BOTH);
        for round in 0..10 {
            let (writer, reader) = (BOTH[round % 2], BOTH[(round + 1) % 2]);
            lab.cluster.run_ok(
                writer,
                &format!("for i in 1 2 3; do echo {round}.$i; done >>{VIEW}/log"),
            );
            let last = lab.cluster.run_ok(reader, &format!("tail -n 1 {VIEW}/log"));
            assert_eq!(last.trim(), format!("{round}.3"));
        }
    }

    /// More than one page, one WRITE.
    fn records_of_64_kib(lab: &Lab) {
        keeps_all(lab, "records of 64 KiB", Program::Blocks(64 << 10), 50, "");
    }

    /// More than one request of FUSE, more than one WRITE of NFS.
    fn records_of_3_mib(lab: &Lab) {
        keeps_all(lab, "records of 3 MiB", Program::Blocks(3 << 20), 3, "");
    }

    /// A process for each record, as `logger` and cron jobs are.
    fn many_short_lived_processes(lab: &Lab) {
        keeps_all(lab, "a process for each record", Program::ShortLived, 60, "");
    }

    /// One host knows what a record is, the other does not, and writes whole lines.
    fn a_record_rule_on_one_host_only(lab: &Lab) {
        let directory = lab.directory();
        lab.server(&format!(
            "printf '%s\\n' 'version = 1' '[[guard]]' 'files = [\"**\"]' 'record = \"\\n\"' \
             >{}/lines.toml",
            directory.server
        ));
        let config = format!("--config {}/lines.toml", directory.nfs);
        let _with = lab.view_of(&directory.nfs, &["host1"], &config);
        let _without = lab.view(&directory, &["host2"]);
        let mut writers = Writers::new(lab);
        let file = format!("{VIEW}/results.csv");
        writers.add("host1", "a", Program::Buffered, &file, 300);
        writers.add("host1", "b", Program::Buffered, &file, 300);
        writers.add("host2", "a", Program::ShellLoop, &file, 300);
        writers.add("host2", "b", Program::Held, &file, 300);
        writers.start();
        let (expected, _) = writers.finish();
        let file = format!("{}/results.csv", directory.server);
        Found::in_file(lab, &file, &expected).assert_all();
    }
}

/// Four writers append `each` records; through dotlockfs all are kept.
fn keeps_all(lab: &Lab, title: &str, program: Program, each: usize, rules: &str) {
    let guarded = lab.directory();
    guarded.rules(lab, rules);
    let view = lab.view(&guarded, &BOTH);
    let (found, took) = append_to(lab, VIEW, &guarded.server, program, each);
    drop(view);

    let plain = lab.directory();
    let lost = append_to(lab, &plain.nfs, &plain.server, program, each);

    let (guarded, plain) = (found.cells(took), lost.0.cells(lost.1));
    APPENDS.print(lab, title, found.expected, guarded, plain);
    found.assert_all();
}

fn append_to(
    lab: &Lab,
    seen: &str,
    stored: &str,
    program: Program,
    each: usize,
) -> (Found, Duration) {
    let file = format!("{seen}/results.csv");
    let mut writers = Writers::two_on_each(lab, &BOTH, program, &file, each);
    writers.start();
    let (expected, took) = writers.finish();
    let found = Found::in_file(lab, &format!("{stored}/results.csv"), &expected);
    (found, took)
}
