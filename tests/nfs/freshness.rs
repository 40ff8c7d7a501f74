//! What one host has appended is seen by the next look of the other.

use std::collections::HashMap;
use std::time::Duration;

use crate::cluster::Output;
use crate::lab::{BOTH, Lab, VIEW, program};
use crate::on_both_versions;
use crate::writers::{Program, Writers};

on_both_versions! {
    /// Two hosts append in turns, a hundred times each; after each write the other sees the
    /// new size and the new bytes at once, whichever way it looks.
    fn the_next_look_sees_it(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        let listen = program("ping-pong.py", &format!("{VIEW}/log host1.a 100"));
        let call = program("ping-pong.py", &format!("{VIEW}/log host2.a 100 host1"));
        let deadline = Duration::from_secs(60);
        let jobs = [
            lab.cluster.spawn_as("host1", 0, deadline, &listen),
            lab.cluster.spawn_as("host2", 0, deadline, &call),
        ];
        let ended = jobs.map(|job| job.wait());
        assert!(ended.iter().all(Output::success), "host1: {}host2: {}", ended[0], ended[1]);
    }

    /// A host that has the file open for appending, and has read it, reads what another host
    /// appended, and no zeros in its place.
    fn a_host_that_appends_reads_what_others_append(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        let ready = lab.barrier();
        let script = format!(
            "exec 3>>{VIEW}/log && echo one >&3 && cat {VIEW}/log && : >{0}/read
            until [[ -e {0}/appended ]]; do sleep 0.02; done
            cat {VIEW}/log",
            ready.display()
        );
        let reader = lab.cluster.spawn("host2", &script);
        let appender = format!(
            "until [[ -e {0}/read ]]; do sleep 0.02; done
            echo two >>{VIEW}/log && : >{0}/appended",
            ready.display()
        );
        lab.cluster.run_ok("host1", &appender);
        assert_eq!(reader.wait_ok(), "one\none\ntwo\n");
    }

    /// Files are made, and put in the place of another, within one tick of the server's clock. A
    /// client that has looked in between finds the newest all the same.
    fn the_newest_file_is_found_within_a_tick(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        lab.server(&format!("echo none >{}/state", directory.server));
        let meeting = lab.barrier();
        let role = |role: &str, directory: &str| {
            let arguments = format!("{role} {directory}/state {} 40", meeting.display());
            program("within-a-tick.py", &arguments)
        };
        let watcher = lab.cluster.spawn("host1", &role("watch", VIEW));
        lab.server(&role("replace", &directory.server));
        assert_eq!(watcher.wait_ok(), "\n", "files that had been replaced");
    }

    /// `tail -f` on one host shows what the other appends, while it does.
    fn tail_follows(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        lab.server(&format!("install -m 666 /dev/null {}/log", directory.server));
        let follow = format!(
            "tail -n +1 -s 0.2 -f {VIEW}/log >/tmp/followed & tail=$!
            for ((i = 0; i < 300; i++)); do
                [[ $(wc -l </tmp/followed) == 20 ]] && break
                sleep 0.1
            done
            kill $tail
            cat /tmp/followed"
        );
        let follower = lab.cluster.spawn("host2", &follow);
        let appended = lab.cluster.run_ok(
            "host1",
            &format!("for i in {{1..20}}; do echo line $i | tee -a {VIEW}/log; sleep 0.05; done"),
        );
        assert_eq!(follower.wait_ok(), appended);
    }

    /// wc, grep and a mapping for reading see the whole file.
    fn readers_of_all_kinds_see_it_all(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        // Three rounds: what a round leaves in caches must not show in the next.
        for round in 1..=3 {
            lab.cluster.run_ok(
                "host1",
                &format!("seq -f 'round {round} line %g' 1000 >>{VIEW}/log"),
            );
            let seen = lab.cluster.run_ok(
                "host2",
                &format!(
                    "cd {VIEW} && wc -l <log && grep -c '^round {round} ' log
                    /usr/bin/python3 -c '
import mmap
with open(\"log\", \"rb\") as file:
    whole = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
print(whole[:].count(b\"\\n\"))
print(whole[-16:].decode().split(\"\\n\")[-2][-9:])
'"
                ),
            );
            let total = round * 1000;
            assert_eq!(seen, format!("{total}\n1000\n{total}\nline 1000\n"));
        }
    }

    /// A reader on the same host looks all the time while 3 MiB records arrive, each by several
    /// requests and WRITEs: it never sees a part of one.
    fn a_reader_here_sees_whole_records(lab: &Lab) {
        let seen = watched(lab, "host1", 3 << 20, 6);
        assert_eq!((seen.sizes, seen.settled, seen.contents), (0, 0, 0), "half a record: {seen:?}");
    }

    /// A reader on the other host while 64 KiB records arrive, each by one WRITE.
    fn a_reader_elsewhere_sees_whole_records(lab: &Lab) {
        let seen = watched(lab, "host2", 64 << 10, 60);
        assert_eq!((seen.sizes, seen.settled, seen.contents), (0, 0, 0), "half a record: {seen:?}");
    }

    /// The same with records of several WRITEs.
    fn a_reader_elsewhere_sees_whole_large_records(lab: &Lab) {
        let seen = watched(lab, "host2", 3 << 20, 6);
        assert_eq!((seen.sizes, seen.settled, seen.contents), (0, 0, 0), "half a record: {seen:?}");
    }

    /// A directory that the kernel keeps the listing of is read again as soon as the client of this
    /// host knows that another has changed it.
    fn a_listing_is_as_new_as_that_of_the_client(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = [\"log\"]");
        lab.server(&format!("mkdir -m 777 {0}/old && touch {0}/old/first", directory.server));
        let _view = lab.view(&directory, &BOTH);
        let old = format!("{VIEW}/old");
        let nfs = format!("{}/old", directory.nfs);
        // It is kept once the directory was seen to be left alone for 3 s.
        lab.cluster.run_ok("host1", &format!("for i in {{1..25}}; do ls {old}; sleep 0.2; done"));
        for name in ["second", "third"] {
            lab.cluster.run_ok("host2", &format!("touch {nfs}/{name}"));
            let seen = lab.cluster.run_ok(
                "host1",
                &format!("stat --cached=never {nfs} >/dev/null && ls {nfs} && echo - && ls {old}"),
            );
            let (client, view) = seen.split_once("-\n").expect("two lists");
            assert!(client.contains(name), "{seen}");
            assert_eq!(client, view);
        }
    }
}

/// How often a reader looked at a file, and what was wrong; see `programs/watch.py`.
#[derive(Debug)]
#[expect(dead_code, reason = "for the message of a test that fails")]
struct Seen {
    looks: usize,
    sizes: usize,
    settled: usize,
    contents: usize,
}

/// Lets host1 append `count` blocks while a program on `reader` looks at the file.
fn watched(lab: &Lab, reader: &str, size: usize, count: usize) -> Seen {
    let directory = lab.directory();
    let _view = lab.view(&directory, &BOTH);
    let file = format!("{VIEW}/blocks");
    let watch = program("watch.py", &format!("{file} {size} {}", size * count));
    let reader = lab.cluster.spawn(reader, &watch);
    let mut writers = Writers::new(lab);
    writers.add("host1", "a", Program::Blocks(size), &file, count);
    writers.start();
    writers.finish();
    let said = reader.wait_ok();
    let counts: HashMap<&str, usize> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(word, count)| (word, count.parse().expect("a count")))
        .collect();
    Seen {
        looks: counts["looks"],
        sizes: counts["size"],
        settled: counts["settled"],
        contents: counts["content"],
    }
}
