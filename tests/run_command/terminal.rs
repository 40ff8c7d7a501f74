//! On a terminal, under a shell with job control.

use super::World;
use super::common::{ALICE, Who, command, finish};

/// Starts its arguments as a shell starts a job in the foreground of a terminal; types, and says
/// what becomes of it. The job says `ready` first.
const SHELL: &str = r#"
import os, pty, select, signal, sys, time
keys, job = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    # The shell: the leader of the terminal's session.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    started = os.fork()
    if started == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execvp(job[0], job)
    while True:
        _, status = os.waitpid(started, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            print("stopped", os.WSTOPSIG(status), flush=True)
            os.killpg(started, signal.SIGCONT)
            continue
        os.tcsetpgrp(0, os.getpgrp())
        print("ended", status, flush=True)
        os._exit(0)
said = b""
deadline = time.monotonic() + 60
while b"ended" not in said or not said.endswith(b"\n"):
    left = deadline - time.monotonic()
    if left < 0 or not select.select([terminal], [], [], left)[0]:
        sys.exit(f"not to the end: {said}")
    try:
        data = os.read(terminal, 1000)
    except OSError:
        data = b""
    if not data:
        break
    said += data
    while keys and (said.count(b"ready") + said.count(b"again")) > len(sys.argv[1]) - len(keys):
        os.write(terminal, keys[0].encode("latin-1"))
        keys = keys[1:]
os.waitpid(pid, 0)
print(said.decode().replace("\r", ""))
"#;

/// Counts what it gets, says so for each, and ends by itself at SIGQUIT.
const JOB: &str = r#"
import os, signal, time
count = 0
def interrupt(number, frame):
    global count
    count += 1
    os.write(1, b"again\n")
def resume(number, frame):
    os.write(1, b"again\n")
def leave(number, frame):
    with open("count", "w") as file: file.write(str(count))
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGQUIT)
signal.signal(signal.SIGINT, interrupt)
signal.signal(signal.SIGCONT, resume)
signal.signal(signal.SIGQUIT, leave)
os.write(1, b"ready\n")
while True: time.sleep(1)
"#;

fn on_terminal(world: &World, who: Who, keys: &str, job: &[&str]) -> String {
    let mut shell = command(who, "python3");
    shell
        .args(["-Bc", SHELL, keys])
        .arg(world.home.path().join("dotlockfs"))
        .args(["run", "--source"])
        .arg(&world.dir)
        .arg("--")
        .args(job)
        .current_dir(&world.dir);
    finish(&mut shell).success()
}

#[test]
fn keys_reach_the_command_once_and_it_can_be_stopped() {
    for who in [Who::Root, ALICE] {
        let world = World::new();
        // Ctrl-C twice, Ctrl-Z, Ctrl-C, and the end.
        let said = on_terminal(
            &world,
            who,
            "\x03\x03\x1a\x03\x1c",
            &["python3", "-Bc", JOB],
        );
        assert!(
            said.contains(&format!("stopped {}", libc::SIGTSTP)),
            "{said}"
        );
        assert!(said.contains(&format!("ended {}", libc::SIGQUIT)), "{said}");
        assert_eq!(world.read("count"), "3", "{said}");
        world.nothing_is_left();
    }
}

#[test]
fn ctrl_c_ends_a_command_that_does_not_catch_it() {
    let world = World::new();
    let job = "exec 9>>held; flock 9; echo x >> log; echo ready; while :; do echo x >> log; done";
    let said = on_terminal(&world, ALICE, "\x03", &["sh", "-c", job]);
    assert!(said.contains(&format!("ended {}", libc::SIGINT)), "{said}");
    world.nothing_is_left();
    assert!(world.read("log").lines().all(|line| line == "x"));
}
