//! `>FILE` while others append.

use crate::lab::{BOTH, Lab, VIEW};
use crate::on_both_versions;
use crate::writers::{Found, Program, Writers};

on_both_versions! {
    /// One host empties the file again and again; what is in it at the end is whole records,
    /// in order.
    fn emptying_the_file_tears_nothing(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        let file = format!("{VIEW}/log");
        let mut writers = Writers::two_on_each(lab, &BOTH, Program::Held, &file, 400);
        writers.add("host2", "t", Program::Truncating, &file, 5);
        writers.start();
        let (expected, _) = writers.finish();
        let found = Found::in_file(lab, &format!("{}/log", directory.server), &expected);
        found.assert_clean();
        assert!(found.kept < found.expected, "nothing was cut off: {found}");
    }

    /// Records of several WRITEs, and a file that is emptied.
    fn emptying_the_file_tears_no_large_record(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        let file = format!("{VIEW}/log");
        let mut writers = Writers::two_on_each(lab, &BOTH, Program::Blocks(3 << 20), &file, 3);
        writers.add("host2", "t", Program::Truncating, &file, 3);
        writers.start();
        let (expected, _) = writers.finish();
        let found = Found::in_file(lab, &format!("{}/log", directory.server), &expected);
        found.assert_clean();
        assert!(found.kept < found.expected, "nothing was cut off: {found}");
    }
}
