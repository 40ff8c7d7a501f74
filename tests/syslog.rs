//! Messages of a daemon that is started before there is a syslog to take them, as at boot, or whose
//! syslog is started anew.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use common::machine::Machine;
use common::{DEADLINE, Who, daemons, end_of, send, wait_until};

/// Takes messages at `/dev/log` and writes them to a file, until the end of its input.
const SYSLOG: &str = "
import os, select, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind('/dev/log')
os.chmod('/dev/log', 0o666)
out = open(sys.argv[1], 'ab', buffering=0)
while True:
    ready, _, _ = select.select([server, sys.stdin], [], [])
    if server in ready:
        out.write(server.recv(65536) + b'\\n')
    elif not sys.stdin.buffer.read(1):
        break
os.unlink('/dev/log')
";

/// A `/dev` in which somebody may listen.
const SET_UP: &str = r#"
    mkdir "$1/dev"
    mount -t tmpfs none "$1/dev"
    for node in null zero urandom fuse; do
        touch "$1/dev/$node"
        mount --bind "/dev/$node" "$1/dev/$node"
    done
    mount --rbind "$1/dev" /dev
"#;

#[test]
fn messages_wait_until_there_is_a_syslog() {
    let world = World::new();
    let at_start = world.start();
    assert!(
        at_start.contains("no syslog here; messages wait until there is one"),
        "{at_start}"
    );

    // The first comes too late for the first message.
    let first = Listener::new(&world.machine, &world.log);
    world.wait_for("is mounted at");
    first.end();

    // Nobody listens for a while; then it is another.
    send(world.daemon(), libc::SIGTERM);
    world.wait_for_the_end();
    let second = Listener::new(&world.machine, &world.log);
    let said = world.start();
    assert_eq!(said, "", "there is a syslog");
    second.end();
    let third = Listener::new(&world.machine, &world.log);
    send(world.daemon(), libc::SIGTERM);
    world.wait_for_the_end();
    world.wait_for("ending by signal 15");
    world.wait_for("is unmounted");
    third.end();
    let lines = fs::read_to_string(&world.log).expect("read");
    let mounted = lines.lines().filter(|line| line.contains("is mounted at"));
    assert_eq!(mounted.count(), 2, "each once:\n{lines}");
    // Facility daemon, and the level of each: 3 * 8 + 6.
    assert!(
        lines.lines().all(|line| line.starts_with("<30>")),
        "{lines}"
    );
}

/// A machine without syslog, and what its syslog will get.
struct World {
    machine: Machine,
    log: PathBuf,
}

impl World {
    fn new() -> World {
        let machine = Machine::new();
        machine.shell(Who::Root, SET_UP, &[machine.path()]);
        let log = machine.path().join("log");
        World { machine, log }
    }

    /// Mounts in the background, and gives what was said.
    fn start(&self) -> String {
        let program = self.machine.name("dotlockfs");
        let arguments = [self.machine.name("source"), self.machine.name("mountpoint")];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mounted = self.machine.run(Who::Root, &program, &arguments);
        let said = mounted.stderr.clone();
        mounted.success();
        said
    }

    #[track_caller]
    fn daemon(&self) -> u32 {
        let found = daemons(&self.machine.path().join("mountpoint"));
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    }

    #[track_caller]
    fn wait_for_the_end(&self) {
        let place = self.machine.path().join("mountpoint");
        let ended = wait_until(DEADLINE, || daemons(&place).is_empty());
        assert!(ended, "the daemon goes on after SIGTERM");
    }

    #[track_caller]
    fn wait_for(&self, words: &str) {
        let read = || fs::read_to_string(&self.log).unwrap_or_default();
        let said = wait_until(DEADLINE, || read().contains(words));
        assert!(said, "no message says {words}:\n{}", read());
    }
}

/// Somebody who listens at `/dev/log`.
struct Listener(Child);

impl Listener {
    #[track_caller]
    fn new(machine: &Machine, log: &Path) -> Listener {
        let child = machine
            .command(Who::Root, "python3")
            .args(["-B", "-c", SYSLOG])
            .arg(log)
            .stdin(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let listener = Listener(child);
        let listens = || {
            let there = machine.run(Who::Root, "test", &["-S", "/dev/log"]);
            there.status.success()
        };
        assert!(wait_until(DEADLINE, listens), "nobody listens at /dev/log");
        listener
    }

    /// Ends it, and takes the socket away.
    #[track_caller]
    fn end(mut self) {
        drop(self.0.stdin.take());
        end_of(&mut self.0, "the syslog");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
