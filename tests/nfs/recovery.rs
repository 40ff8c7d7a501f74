//! A daemon that is killed and started again, and the tools that look at locks, on NFS.

use serde_json::Value;

use crate::cluster::NFS;
use crate::lab::{BOTH, Lab, VIEW};
use crate::on_both_versions;

/// Opens a file all the time, and fails if it ever is on the device given: that of the NFS.
const LOOKS: &str = "
import errno, os, sys
path, bare = sys.argv[1], int(sys.argv[2])
seen = 0
print('started', file=open('/run/looking', 'w'))
while not os.path.exists('/run/stop-looking'):
    try:
        file = os.open(path, os.O_RDONLY)
        assert os.fstat(file).st_dev != bare, 'this is the bare directory'
        os.close(file)
        seen += 1
    except OSError as error:
        # The kernel gives EIO where it was copying a request or an answer just then.
        gone = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
        assert error.errno in gone, error
assert seen, 'it has never opened the file'
";

/// Kills the daemon, and starts it again by the same command.
const AGAIN: &str = "
    pkill -KILL -x dotlockfs || exit
    while pgrep -x dotlockfs >/dev/null; do sleep 0.05; done
    dotlockfs $NFS $NFS || exit
    echo line >>$NFS/$FILE || exit
";

on_both_versions! {
    /// Over the root of the NFS mount itself.
    fn in_place_the_bare_nfs_is_never_seen(lab: &Lab) {
        let directory = lab.directory();
        let file = directory.nfs.strip_prefix(NFS).expect("below it").to_owned() + "/log";
        let words = format!("export NFS={NFS} FILE={file}\n");
        let bare = lab.cluster.run_ok("host1", &format!("stat -c %d {NFS}"));
        let start = format!("{words} rm -f /run/looking /run/stop-looking\n dotlockfs $NFS $NFS && echo line >>$NFS/$FILE");
        lab.cluster.run_ok("host1", &start);
        let looks = lab.cluster.spawn(
            "host1",
            &format!("/usr/bin/python3 -c \"{LOOKS}\" {NFS}{file} {}", bare.trim()),
        );
        lab.cluster.run_ok("host1", "until [ -e /run/looking ]; do sleep 0.05; done");
        for _ in 0..3 {
            lab.cluster.run_ok("host1", &format!("{words}{AGAIN}"));
        }
        lab.cluster.run_ok("host1", "touch /run/stop-looking");
        looks.wait_ok();
        lab.cluster.run_ok(
            "host1",
            &format!("
                umount {NFS} || exit
                while pgrep -x dotlockfs >/dev/null; do sleep 0.05; done
                rm -f /run/looking /run/stop-looking
                [ $(grep -c ' {NFS} ' /proc/self/mountinfo) = 1 ] || exit
                [ $(stat -c %d {NFS}) = {} ]", bare.trim()),
        );
        let log = lab.server(&format!("cat {}/log", directory.server));
        assert_eq!(log, "line\n".repeat(4));
    }

    /// A lock of one host is seen on the other, in its view and on the NFS itself.
    fn locks_of_another_host_are_listed(lab: &Lab) {
        let directory = lab.directory();
        let view = lab.view(&directory, &BOTH);
        let holder = lab.cluster.spawn(
            "host1",
            &format!("flock {VIEW}/log sh -c 'until [ -e {VIEW}/stop ]; do sleep 0.1; done'"),
        );
        let list = |dir: &str, wanted: &str| {
            // Until the lock is there.
            let script = format!(
                "for ((i = 0; i < 300; i++)); do
                    dotlockfs locks {dir} --json >/run/locks || exit
                    grep -q '\"state\": \"{wanted}\"' /run/locks && break
                    sleep 0.1
                done
                cat /run/locks"
            );
            let text = lab.cluster.run_ok("host2", &script);
            serde_json::from_str::<Value>(&text).expect("JSON")
        };
        for dir in [VIEW, &directory.nfs] {
            let answer = list(dir, "held");
            let lock = &answer["locks"][0];
            assert_eq!(answer["clock"], "server", "{answer}");
            assert_eq!((&lock["file"], &lock["host"]), (&"log".into(), &"host1".into()), "{answer}");
            assert_eq!(lock["alive"], Value::Null, "of another host: {answer}");
        }
        lab.server(&format!("touch {}/stop", directory.server));
        holder.wait_ok();
        drop(view);
    }

    /// The tests of `doctor` find nothing wrong with a real NFS.
    fn doctor_finds_no_fault(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        for dir in [VIEW, &directory.nfs] {
            let outputs = lab.on_each(&BOTH, &format!("dotlockfs doctor {dir} --json"));
            for text in outputs {
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(answer["faults"], 0, "{answer}");
                let version = format!("NFS {}", lab.vers_number());
                for (subject, what) in [
                    ("file system", version.as_str()),
                    ("link(2) race", "exactly one got it"),
                    ("writing", "O_DIRECT|O_DSYNC works"),
                    ("mounts here", "served by process"),
                ] {
                    let all = answer["findings"].as_array().expect("a list");
                    let found = all.iter().any(|found| {
                        let words = found["what"].as_str().expect("words");
                        found["subject"] == subject && words.contains(what)
                    });
                    assert!(found, "{subject}: {what}: {answer}");
                }
            }
        }
        let left = lab.server(&format!("ls -A {}", directory.server));
        assert_eq!(left, "", "files of the tests are left");
    }
}
