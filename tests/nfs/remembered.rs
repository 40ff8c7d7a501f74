//! What a host remembers of a file under its turn, while its programs append: whatever changes the
//! file, its name, or who may write it, counts for the next append all the same.

use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{BOTH, Directory, Lab, VIEW};
use crate::on_both_versions;
use crate::writers::{Found, Program, Writers};

/// A script that appends `count` records by `open(2)`, `write(2)` and `close(2)` each; what
/// stands in `between` is done, in python, after each.
fn appending(file: &str, count: usize, between: &str) -> String {
    format!(
        "python3 - <<'END'
import os
def append(file, text):
    # In a sticky directory nobody may open the file of another with O_CREAT.
    make = 0 if os.getuid() else os.O_CREAT
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | make, 0o666)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
for i in range({count}):
    append('{file}', f'{{i}}\\n')
    {between}
END"
    )
}

/// Python that does something as another user, and fails unless that exits with 0.
fn as_user(uid: u32, what: &str) -> String {
    format!(
        "if os.fork() == 0:
        os.setgroups([]); os.setgid({uid}); os.setuid({uid})
        {what}
    assert os.wait()[1] == 0, 'user {uid}'"
    )
}

/// Python that fails unless another user may not append to `FILE`.
fn refused(uid: u32) -> String {
    as_user(
        uid,
        "try:
            append(FILE, 'forbidden\\n')
        except PermissionError:
            os._exit(0)
        os._exit(1)",
    )
}

/// What stands in a file on the server, by line.
fn lines(lab: &Lab, directory: &Directory, name: &str) -> Vec<String> {
    let text = lab.server(&format!("cat {}/{name}", directory.server));
    text.lines().map(str::to_owned).collect()
}

/// The numbers from 0 to `count`, without it.
fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

/// No file that was moved aside stays. (One is, for a moment, if it is removed between `close(2)` and
/// the word of the kernel that it is closed.)
fn assert_none_aside(lab: &Lab, directory: &Directory) {
    let aside = || lab.server(&format!("find {} -name '.nfs*'", directory.server));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !aside().trim().is_empty() {
        assert!(Instant::now() < deadline, "{}", aside());
        thread::sleep(Duration::from_millis(100));
    }
}

on_both_versions! {
    /// Each name has a lock of its own, and what is known by one is changed by the other.
    fn two_names_of_one_file(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log*']");
        let _view = lab.view(&directory, &BOTH[..1]);
        lab.cluster.run_ok("host1", &format!("cd {VIEW} && echo begin >log && ln log log.2"));
        let script = appending(
            &format!("{VIEW}/log"),
            60,
            &format!("append('{VIEW}/log.2', f'{{i}}\\n')"),
        );
        lab.cluster.run_ok("host1", &script);
        let expected: Vec<String> = (0..60).flat_map(|i| [i.to_string(), i.to_string()]).collect();
        assert_eq!(lines(lab, &directory, "log")[1..], expected);
    }

    /// A second name comes while the file is appended to, and the file is emptied by it.
    fn emptied_by_another_name(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log*']\nreplace = 'serialise'");
        let _view = lab.view(&directory, &BOTH[..1]);
        let empty = format!(
            "if i == 10: os.link('{VIEW}/log', '{VIEW}/log.2')
    if i == 20: os.truncate('{VIEW}/log.2', 0)"
        );
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 40, &empty));
        assert_eq!(lines(lab, &directory, "log"), numbers(40)[21..]);
    }

    /// Emptied by its own name, and written anew in place.
    fn emptied_and_written_in_between(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']\nreplace = 'serialise'");
        let _view = lab.view(&directory, &BOTH[..1]);
        let between = format!(
            "if i % 10 == 4: os.truncate('{VIEW}/log', 0)
    if i % 10 == 8:
        with open('{VIEW}/log', 'r+') as log: log.write('new\\n')"
        );
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 40, &between));
        // Emptied after 34; "new" and its line end came over "35" and a part of "36".
        assert_eq!(lines(lab, &directory, "log"), ["new", "6", "37", "38", "39"]);
    }

    /// One program has the file open by the name that it had before, others by its new one.
    fn open_by_its_old_name(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log*']");
        let _view = lab.view(&directory, &BOTH[..1]);
        let both = format!(
            "if i == 0: old = os.open('{VIEW}/log', os.O_WRONLY | os.O_APPEND)
    if i == 0: os.rename('{VIEW}/log', '{VIEW}/log.1')
    if i: append('{VIEW}/log.1', f'{{i}} new\\n')
    os.write(old, f'{{i}} old\\n'.encode())
    if i: append('{VIEW}/log.1', f'{{i}} last\\n'); os.unlink('{VIEW}/log')"
        );
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 60, &both));
        let expected: Vec<String> = (0..60)
            .flat_map(|i| match i {
                0 => vec!["0".to_owned(), "0 old".to_owned()],
                _ => ["new", "old", "last"].map(|which| format!("{i} {which}")).into(),
            })
            .collect();
        assert_eq!(lines(lab, &directory, "log.1"), expected);
    }

    /// A program goes past the mount, on the same host: what it appends is not written over.
    fn written_past_the_mount(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']");
        let _view = lab.view(&directory, &BOTH[..1]);
        let past = format!("append('{}/log', f'{{i}} past\\n')", directory.nfs);
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 60, &past));
        let expected: Vec<String> = (0..60).flat_map(|i| [i.to_string(), format!("{i} past")]).collect();
        assert_eq!(lines(lab, &directory, "log"), expected);
    }

    /// The program that has it open for an update makes it longer, and appends, too; so does its child.
    fn made_longer_by_a_holder(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']");
        let _view = lab.view(&directory, &BOTH[..1]);
        let longer = format!(
            "if i % 3 == 0:
        held = os.open('{VIEW}/log', os.O_RDWR)
        os.lseek(held, 0, os.SEEK_END)
        os.write(held, b'longer\\n')
        append('{VIEW}/log', 'within\\n')
        os.lseek(held, 0, os.SEEK_END)
        os.write(held, b'and longer\\n')
        if i % 2: os.close(held)
    if i % 6 == 0:
        append('{VIEW}/log', 'within\\n')
        os.close(held)"
        );
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 60, &longer));
        let mut expected = Vec::new();
        for i in 0..60 {
            expected.push(i.to_string());
            if i % 3 == 0 {
                expected.extend(["longer", "within", "and longer"].map(str::to_owned));
            }
            if i % 6 == 0 {
                expected.push("within".to_owned());
            }
        }
        assert_eq!(lines(lab, &directory, "log"), expected);
    }

    /// What is appended after `mv log log.1` is in the new file, and nothing is moved aside.
    fn moved_away_in_between(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log*']");
        let _view = lab.view(&directory, &BOTH[..1]);
        let rotate = format!(
            "if i % 20 == 9: os.rename('{VIEW}/log', '{VIEW}/log.' + str(i // 20))
    if i % 20 == 19: os.rename('{VIEW}/log', '{VIEW}/old.' + str(i // 20)); os.unlink('{VIEW}/old.' + str(i // 20))"
        );
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 100, &rotate));
        for part in 0..5 {
            let name = format!("log.{part}");
            assert_eq!(lines(lab, &directory, &name), numbers(100)[part * 20..part * 20 + 10]);
        }
        assert_none_aside(lab, &directory);
    }

    /// A file that is removed while it is appended to is made anew, and the old one is gone.
    fn removed_in_between(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']");
        let _view = lab.view(&directory, &BOTH[..1]);
        let remove = format!(
            "if i % 10 == 9: os.unlink('{VIEW}/log')
    if i % 10 == 9: assert not os.path.exists('{VIEW}/log')"
        );
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 75, &remove));
        assert_eq!(lines(lab, &directory, "log"), numbers(75)[70..]);
        assert_none_aside(lab, &directory);
    }

    /// Another file takes the place, on the same host: what comes after it is in that.
    fn replaced_in_between(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']\nreplace = 'serialise'");
        let _view = lab.view(&directory, &BOTH[..1]);
        let replace = format!(
            "if i % 10 == 9:
        with open('{VIEW}/new', 'w') as new: new.write('new\\n')
        os.rename('{VIEW}/new', '{VIEW}/log')"
        );
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 55, &replace));
        let expected: Vec<String> = ["new".to_owned()]
            .into_iter()
            .chain(numbers(55)[50..].iter().cloned())
            .collect();
        assert_eq!(lines(lab, &directory, "log"), expected);
        assert_none_aside(lab, &directory);
    }

    /// Whoever may not write the file any more is refused at once, however lately they could.
    fn forbidden_in_between(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']");
        let _view = lab.view_of(&directory.nfs, &BOTH[..1], "-o allow_other");
        lab.cluster.run_ok("host1", &format!("umask 0; : >{VIEW}/log"));
        let script = refused(1000);
        let between = format!(
            "{}\n    os.chmod(FILE, 0o644)\n    {script}\n    os.chmod(FILE, 0o666)",
            as_user(1000, "append(FILE, f'{i}\\n')\n        os._exit(0)")
        );
        let between = between.replace("FILE", &format!("'{VIEW}/log'"));
        lab.cluster.run_ok("host1", &appending("/dev/null", 40, &between));
        assert_eq!(lines(lab, &directory, "log"), numbers(40));
    }

    /// What one user may do is not lent to another.
    fn of_two_users_only_one_may(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']");
        let _view = lab.view_of(&directory.nfs, &BOTH[..1], "-o allow_other");
        let make = format!("cd {VIEW} && echo first >log && chmod 600 log && chown 1000 log");
        lab.cluster.run_ok("host1", &make);
        let other = refused(1001);
        let between = as_user(1000, "append(FILE, f'{i}\\n')\n        os._exit(0)");
        let between = format!("{between}\n    {other}").replace("FILE", &format!("'{VIEW}/log'"));
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 20, &between));
        let expected: Vec<String> = (0..20).flat_map(|i| [i.to_string(), i.to_string()]).collect();
        assert_eq!(lines(lab, &directory, "log")[1..], expected);
    }

    /// A file that is open still, and has lost its name, is opened by way of its descriptor: what is
    /// appended so is in that file, not in the new one of its name.
    fn reopened_without_its_name(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']");
        let _view = lab.view(&directory, &BOTH[..1]);
        let reopen = format!(
            "old = os.open('{VIEW}/log', os.O_RDWR | os.O_APPEND)
    os.unlink('{VIEW}/log')
    append('{VIEW}/log', 'new\\n')
    again = os.open('/proc/self/fd/' + str(old), os.O_WRONLY | os.O_APPEND)
    os.write(again, b'reopened\\n')
    assert os.pread(old, 99, 0) == str(i).encode() + b'\\nreopened\\n', os.pread(old, 99, 0)
    os.close(again), os.close(old)
    os.unlink('{VIEW}/log')"
        );
        lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 20, &reopen));
    }

    /// Who could once open the file, and has it open, gets no further descriptor after `chmod`; nor does
    /// who has made it so that nobody may write to it.
    fn opened_again_after_chmod(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log*']");
        let _view = lab.view_of(&directory.nfs, &BOTH[..1], "-o allow_other");
        lab.cluster.run_ok("host1", &format!("mkdir -m 777 {VIEW}/d"));
        let tries = as_user(
            1000,
            "name = '/mnt/view/d/log.' + str(i)
        def refused():
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_APPEND))
            except PermissionError:
                return True
        os.umask(0)
        made = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o466)
        os.write(made, b'1\\n')
        first = refused()
        os.chmod(name, 0o666)
        fd = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b'2\\n')
        os.chmod(name, 0o466)
        os.write(fd, b'3\\n')
        os._exit(0 if first == refused() else 1)",
        );
        // (A server lets the owner of a file open it in any case, or not: it is the same both times.)
        lab.cluster.run_ok("host1", &appending("/dev/null", 20, &tries));
        for i in 0..20 {
            assert_eq!(lines(lab, &directory, &format!("d/log.{i}")), ["1", "2", "3"]);
        }
    }

    /// A directory that a user may not search any more shows them nothing of its files.
    fn a_directory_is_closed(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']");
        let _view = lab.view_of(&directory.nfs, &BOTH[..1], "-o allow_other");
        lab.cluster.run_ok(
            "host1",
            &format!("cd {VIEW} && umask 0 && mkdir d && : >d/log"),
        );
        let allowed = as_user(1000, "append(FILE, 'a\\n'); append(FILE, 'b\\n'); os._exit(0)");
        let other = refused(1000);
        let between = format!(
            "{allowed}\n    os.chmod('{VIEW}/d', 0o700)\n    {other}\n    os.chmod('{VIEW}/d', 0o777)"
        );
        let between = between.replace("FILE", &format!("'{VIEW}/d/log'"));
        lab.cluster.run_ok("host1", &appending("/dev/null", 20, &between));
        assert_eq!(lines(lab, &directory, "d/log").len(), 40);
    }

    /// On one host records are appended all the time; on the other the file is moved away again and
    /// again. All records are in one of the files, in order.
    fn moved_away_elsewhere(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log*']");
        let _view = lab.view(&directory, &BOTH);
        let mut writers = Writers::new(lab);
        writers.add("host1", "a", Program::ShellLoop, &format!("{VIEW}/log"), 1000);
        writers.start();
        let mut moved = 0;
        while writers.are_running() {
            moved += 1;
            let script = format!("cd {VIEW} && if test -e log; then mv log log.{moved}; fi");
            lab.cluster.run_ok("host2", &script);
        }
        let (expected, _) = writers.finish();
        let all = "cat $(ls -v log.*) $(ls | grep -x log) >records";
        lab.server(&format!("cd {} && {all}", directory.server));
        Found::in_file(lab, &format!("{}/records", directory.server), &expected).assert_all();
    }

    /// On one host records are appended one after another; on the other the file is emptied, moved
    /// away and replaced, which shows in the next record but one at the latest.
    fn changed_by_another_host(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log*']\nreplace = 'serialise'");
        let _view = lab.view(&directory, &BOTH);
        for round in 0..10 {
            lab.cluster.run_ok("host1", &appending(&format!("{VIEW}/log"), 10, "pass"));
            assert_eq!(lines(lab, &directory, "log"), numbers(10), "round {round}");
            let change = match round % 3 {
                0 => format!("cd {VIEW} && : >log"),
                1 => format!("cd {VIEW} && mv log log.old"),
                _ => format!("cd {VIEW} && : >new && mv new log"),
            };
            lab.cluster.run_ok("host2", &change);
        }
        assert_none_aside(lab, &directory);
    }

    /// Two hosts that append all the time go round: neither waits for the other to have finished.
    fn hosts_go_round(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']");
        let _view = lab.view(&directory, &BOTH);
        let mut writers = Writers::two_on_each(
            lab,
            &BOTH,
            Program::Held,
            &format!("{VIEW}/log"),
            2000,
        );
        writers.start();
        let (expected, _) = writers.finish();
        Found::in_file(lab, &format!("{}/log", directory.server), &expected)
            .assert_all();
        // One after the other would be one change of hosts; a turn lasts some dozens of records. (How
        // many of them each host has by when depends on which began first, and on the processors.)
        let lines = lines(lab, &directory, "log");
        let of_one = |line: &String| line.contains("host1");
        let changes = lines.windows(2).filter(|two| of_one(&two[0]) != of_one(&two[1]));
        let changes = changes.count();
        assert!(changes >= 15, "only {changes} changes of hosts in {} records", lines.len());
    }
}
