//! A host reads what another one replaces: there is a document at any moment.

use std::collections::HashMap;
use std::time::Duration;

use crate::lab::{BOTH, Directory, Lab, VIEW, program};
use crate::on_both_versions;
use crate::table::{Cells, READS};
use crate::team::Team;
use crate::updaters::{JSON, Scale};

on_both_versions! {
    /// Never ENOENT, never ESTALE, never half a document or an older one than before.
    fn a_document_that_is_replaced(lab: &Lab) {
        read(lab, "JSON, replaced", JSON, Scale::of(lab, 200));
    }

    /// The same where it takes several READ calls: in between the file may be replaced, and
    /// the server has no use for the old one any more.
    fn a_large_document_that_is_replaced(lab: &Lab) {
        let make = "{ printf '{\"count\": 0, \"done\": [], \"more\": \"'
            head -c 1500000 /dev/zero | tr '\\0' x; echo '\"}'; } >state.json";
        read(lab, "JSON of 1.5 MB, replaced", make, Scale::of(lab, 12));
    }
}

/// Lets host2 read all the time while host1 replaces; `make` makes the first document.
fn read(lab: &Lab, title: &str, make: &str, replaces: usize) {
    let make = |directory: &Directory| {
        lab.server(&format!("cd {} && {make}", directory.server));
    };
    let guarded = lab.directory();
    guarded.rules(lab, "[[guard]]\nfiles = ['state.json']");
    make(&guarded);
    let view = lab.view(&guarded, &BOTH);
    let through = read_while_replaced(lab, VIEW, replaces);
    drop(view);

    let directory = lab.directory();
    make(&directory);
    let plain = read_while_replaced(lab, &directory.nfs, replaces);
    READS.print(lab, title, replaces, through.cells(), plain.cells());
    println!("straight on NFS: {}", plain.said);
    assert!(
        through.opens > 0 && through.whole == through.opens,
        "{}",
        through.said
    );
}

struct Reads {
    opens: usize,
    whole: usize,
    took: Duration,
    said: String,
}

impl Reads {
    fn cells(&self) -> Cells {
        Cells {
            counts: [self.opens, self.whole, self.opens - self.whole],
            took: self.took,
        }
    }
}

/// host1 replaces, host2 reads.
fn read_while_replaced(lab: &Lab, directory: &str, replaces: usize) -> Reads {
    let mut team = Team::new(lab);
    let file = format!("{directory}/state.json");
    let replacing = program("replace.py", &format!("lockf {file} host1.a {replaces}"));
    team.add("host1", 0, &format!("exec {replacing}"));
    let reading = program("read-again.py", &format!("{file} host2.a"));
    team.add("host2", 0, &format!("exec {reading}"));
    team.start();
    team.finish_on("host1");
    let took = team.since_the_start();
    team.stop();
    let (_, output) = team.finish_anyhow().remove(0);
    assert!(output.success(), "{output}");
    let said = output.stdout;
    let counts: HashMap<&str, usize> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(word, count)| (word, count.parse().expect("a count")))
        .collect();
    Reads {
        opens: counts["opens"],
        whole: counts["whole"],
        took,
        said: said.trim().replace('\n', ", "),
    }
}
