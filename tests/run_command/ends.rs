//! However a run ends, no mount, no lock and no process is left that nobody wants.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};

use super::common::{ALICE, DEADLINE, Who, end_of, finish, send, shell, wait_until};
use super::{World, has_ended, start};

/// Holds the lock of a file, has a child, says who they are, and waits.
const HOLDER: &str = "exec 9>>held; flock 9; sleep 1000 & echo $$ $!; wait";

/// Counts the signals that it gets in a file, and goes on.
const COUNTER: &str = r#"
import os, signal, time
def note(number, frame):
    with open("seen", "a") as seen: seen.write(f"{number}\n")
for number in (1, 2, 3, 10, 12, 15, 28): signal.signal(number, note)
print(os.getpid(), flush=True)
while True: time.sleep(1)
"#;

fn send_to_group(leader: u32, signal: i32) {
    let group = libc::pid_t::try_from(leader).expect("a process id");
    // SAFETY: kill takes two numbers and touches no memory of ours.
    assert_eq!(unsafe { libc::kill(-group, signal) }, 0);
}

#[test]
fn killed_without_a_chance() {
    for who in [Who::Root, ALICE] {
        let world = World::new();
        let (mut child, pids) = start(&mut world.script(who, HOLDER));
        assert_eq!(pids.len(), 2);
        // It has the lock by now.
        send(child.id(), libc::SIGKILL);
        let status = end_of(&mut child, "dotlockfs run");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        for pid in &pids {
            assert!(wait_until(DEADLINE, || has_ended(pid)), "{pid} goes on");
        }
        world.nothing_is_left();
    }
}

#[test]
fn a_batch_system_sends_sigterm_and_then_sigkill_to_the_group() {
    let world = World::new();
    let mut run = world.run(ALICE, &[], "python3");
    run.args(["-c", COUNTER]).process_group(0);
    let (mut child, pids) = start(&mut run);
    send_to_group(child.id(), libc::SIGTERM);
    let seen = || fs::read_to_string(world.path("seen")).unwrap_or_default();
    assert!(wait_until(DEADLINE, || !seen().is_empty()));
    // The second one would have come before this.
    send_to_group(child.id(), libc::SIGUSR1);
    assert!(wait_until(DEADLINE, || seen().contains("10")));
    send(child.id(), libc::SIGUSR2);
    assert!(wait_until(DEADLINE, || seen().contains("12")));
    assert_eq!(seen(), "15\n10\n12\n");

    send_to_group(child.id(), libc::SIGKILL);
    let status = end_of(&mut child, "dotlockfs run");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    assert!(wait_until(DEADLINE, || has_ended(&pids[0])));
    world.nothing_is_left();
}

#[test]
fn signals_to_the_outer_process_alone_are_passed_on() {
    let world = World::new();
    let mut run = world.run(ALICE, &[], "python3");
    run.args(["-c", COUNTER]).process_group(0);
    let (mut child, _) = start(&mut run);
    let seen = || fs::read_to_string(world.path("seen")).unwrap_or_default();
    let mut expected = String::new();
    for signal in [1, 2, 3, 10, 12, 15, 28, 15] {
        send(child.id(), signal);
        expected += &format!("{signal}\n");
        assert!(wait_until(DEADLINE, || seen() == expected), "{}", seen());
    }
    send_to_group(child.id(), libc::SIGKILL);
    end_of(&mut child, "dotlockfs run");
    world.nothing_is_left();
}

#[test]
fn a_command_that_ends_by_sigterm_leaves_nothing() {
    let world = World::new();
    let (mut child, _) = start(world.script(ALICE, HOLDER).process_group(0));
    send_to_group(child.id(), libc::SIGTERM);
    let status = end_of(&mut child, "dotlockfs run");
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    world.nothing_is_left();
}

#[test]
fn what_a_command_leaves_behind_is_served_to_its_end() {
    let world = World::new();
    let fifo = world.home.path().join("fifo");
    shell(Who::Root, r#"mkfifo -m 666 "$1""#, &[&fifo]);
    let script = format!(
        "(read line; echo early >> log; echo \"$line\" >> log) >/dev/null 2>&1 <'{}' &
         echo first >> log",
        fifo.display()
    );
    // It does not wait for what is in the background, and keeps nothing open.
    finish(&mut world.script(ALICE, &script)).success();
    assert_eq!(world.read("log"), "first\n");
    assert_eq!(super::daemons(&world.dir).len(), 1, "the one that serves");
    let mut late = world.script(ALICE, "echo second >> log; echo late >\"$1\"");
    finish(late.arg("sh").arg(&fifo)).success();
    let all = "first\nsecond\nearly\nlate\n";
    assert!(
        wait_until(DEADLINE, || world.read("log") == all),
        "{}",
        world.read("log")
    );
    world.nothing_is_left();
}

#[test]
fn a_killed_daemon_hangs_nobody() {
    let world = World::new();
    let script = r#"
        echo $$ >"$1"; until [ -e "$2" ]; do sleep 0.01; done
        if cat log; then exit 1; fi; exit 3"#;
    let (pid, go) = (world.home.path().join("pid"), world.home.path().join("go"));
    let mut run = world.script(ALICE, script);
    fs::write(&pid, "").expect("write");
    std::os::unix::fs::chown(&pid, Some(1000), Some(1000)).expect("chown");
    fs::write(world.path("log"), "").expect("write");
    run.arg("sh").args([&pid, &go]);
    let run = std::thread::spawn(move || finish(&mut run));
    let is_told = || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'));
    assert!(wait_until(DEADLINE, is_told));
    // The daemon leads a session of its own; the others do not.
    let leads = |pid: &u32| {
        // SAFETY: takes and gives a number.
        unsafe { libc::getsid(*pid as i32) == *pid as i32 }
    };
    let daemon = super::daemons(&world.dir).into_iter().find(leads);
    send(daemon.expect("a daemon"), libc::SIGKILL);
    fs::write(&go, "").expect("write");
    let ended = run.join().expect("no panic");
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.stderr.contains("was killed"), "{ended:?}");
    world.nothing_is_left();
}

#[test]
fn signals_close_behind_one_another_come_once() {
    let world = World::new();
    let mut run = world.run(ALICE, &[], "python3");
    run.args(["-c", COUNTER]).process_group(0);
    let (mut child, pids) = start(&mut run);
    let seen = || fs::read_to_string(world.path("seen")).unwrap_or_default();
    let count = |number: &str| seen().lines().filter(|line| *line == number).count();
    for round in 1..=20 {
        // To the group at once, and then one that only the outer process gets.
        for signal in [1, 3, 10, 15] {
            send_to_group(child.id(), signal);
        }
        send(child.id(), 12);
        // A program that has not looked at a signal yet does not get the next of its kind.
        let all = ["1", "3", "10", "15", "12"];
        let has_all = || all.iter().all(|number| count(number) >= round);
        assert!(wait_until(DEADLINE, has_all), "{round}: {}", seen());
        for number in all {
            assert_eq!(count(number), round, "{number}: {}", seen());
        }
    }

    // One that is stopped alone is woken alone; the outer process goes on meanwhile.
    let pid = pids[0].parse().expect("a number");
    send(pid, libc::SIGSTOP);
    let state = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
        stat.rsplit(") ").next().expect("a state").chars().next()
    };
    assert!(wait_until(DEADLINE, || state(pid) == Some('T')));
    send(child.id(), 12);
    send(pid, libc::SIGCONT);
    assert!(wait_until(DEADLINE, || count("12") == 21), "{}", seen());

    send_to_group(child.id(), libc::SIGKILL);
    end_of(&mut child, "dotlockfs run");
    world.nothing_is_left();
}
