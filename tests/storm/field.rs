//! Where a storm takes place: hosts with dotlockfs and writers on each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Job, NFS, Output, SERVER_DATA};
use crate::journal::Journal;
use crate::{counters, documents};

pub const HOSTS: usize = 3;

/// Where the hosts see the directory through dotlockfs.
const VIEW: &str = "/mnt/view";

/// The rules of the directory.
const RULES: &str = r#"version = 1
[[guard]]
files = ["lines"]
record = "\n"
stale_after = "5s"
lock_timeout = "60s"
[[guard]]
files = ["plain"]
stale_after = "4s"
lock_timeout = "60s"
[[guard]]
files = ["checked.json"]
replace = "check"
stale_after = "6s"
lock_timeout = "60s"
[[guard]]
files = ["locked.json"]
update = "off"
stale_after = "4s"
lock_timeout = "60s"
[[guard]]
files = ["counter"]
update = "open"
stale_after = "4s"
lock_timeout = "60s"
"#;

/// Each host's writers: the letter, the program and how, the file, and what comes after the
/// writer's name: pauses in ms, and for appenders how rare a large record is.
const WRITERS: [(&str, &str, &str, &str); 7] = [
    ("a", "append.py held", "lines", "60 300"),
    ("b", "append.py each", "lines", "80 0"),
    ("c", "append.py held", "plain", "60 300"),
    ("d", "append.py each", "plain", "80 0"),
    ("e", "replace.py check", "checked.json", "300"),
    ("f", "replace.py lockf", "locked.json", "300"),
    ("g", "count.py", "counter", "200"),
];

/// The files, with what they are to begin with.
pub const FILES: [&str; 5] = ["lines", "plain", "checked.json", "locked.json", "counter"];

/// The programs, as they were when the test was built.
const PROGRAMS: [(&str, &str); 4] = [
    ("append.py", include_str!("programs/append.py")),
    ("count.py", include_str!("programs/count.py")),
    ("journal.py", include_str!("programs/journal.py")),
    ("replace.py", include_str!("programs/replace.py")),
];

/// How long whatever is done to a machine may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory on the NFS, with the writers of one round at work on it.
pub struct Field<'a> {
    cluster: &'a Cluster,
    seed: u64,
    name: String,
    /// Outside of NFS, and the same path on all machines: programs, journals, logs.
    state: PathBuf,
    jobs: Mutex<HashMap<String, Job>>,
    until: Duration,
}

impl<'a> Field<'a> {
    /// A new directory, mounted on all hosts, with all writers at work, for about `length`.
    pub fn new(cluster: &'a Cluster, round: usize, seed: u64, length: Duration) -> Field<'a> {
        let name = format!("storm{round}");
        let field = Field {
            cluster,
            seed,
            // The cluster removes `stage` when it is taken down.
            state: cluster.dir().join("stage").join(&name),
            name,
            jobs: Mutex::default(),
            until: length + Duration::from_secs(600),
        };
        field.bring_programs();
        field.make_files();
        field.on_all_hosts(|host| {
            field.mount(host);
            field.start_writers(host);
        });
        field
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory on the server's own disk.
    pub fn on_server(&self) -> String {
        format!("{SERVER_DATA}/{}", self.name)
    }

    fn bring_programs(&self) {
        let programs = self.state.join("programs");
        std::fs::create_dir_all(&programs).expect("no directory for the programs");
        for (name, text) in PROGRAMS {
            std::fs::write(programs.join(name), text).expect("cannot write a program");
        }
        let binary = env!("CARGO_BIN_EXE_dotlockfs");
        std::fs::copy(binary, programs.join("dotlockfs")).expect("cannot copy dotlockfs");
    }

    fn make_files(&self) {
        let counting: Vec<_> = (1..=HOSTS).map(|host| format!("host{host}.g")).collect();
        let zeros = counters::zeros(&counting);
        let empty = documents::EMPTY;
        let directory = self.on_server();
        self.server(&format!(
            "set -e
            mkdir -m 777 {directory}
            cd {directory}
            cat >.dotlockfs.toml <<'END'\n{RULES}END
            cat >counter <<'END'\n{zeros}END
            printf %s '{empty}' | tee checked.json >locked.json
            : >lines
            : >plain"
        ));
    }

    /// Mounts the view, over a dead one if there is such. Where nothing is mounted there is an
    /// empty directory that nobody can write to; else a program might replace a file there.
    pub fn mount(&self, host: &str) {
        let (state, name) = (self.state.display(), &self.name);
        self.host(
            host,
            &format!(
                "if grep -q ' {VIEW} fuse' /proc/mounts; then umount -l {VIEW}; fi
                [[ -d {VIEW} ]] || {{ mkdir {VIEW} && mount -t tmpfs -o ro none {VIEW}; }} || exit
                setsid {state}/programs/dotlockfs -f {NFS}/{name} {VIEW} \
                    >>{state}/log.{host} 2>&1 </dev/null &
                echo $! >/run/daemon
                for ((i = 0; i < 500; i++)); do
                    if grep -q ' {VIEW} fuse' /proc/mounts; then exit 0; fi
                    [[ -e /proc/$! ]] || break
                    sleep 0.1
                done
                echo 'dotlockfs does not mount:' >&2
                tail {state}/log.{host} >&2
                exit 1"
            ),
        );
    }

    pub fn unmount(&self, host: &str) {
        self.host(
            host,
            &format!(
                "umount {VIEW} || exit
                for ((i = 0; i < 400; i++)); do
                    [[ -e /proc/$(</run/daemon) ]] || exit 0
                    sleep 0.1
                done
                echo 'dotlockfs goes on though its mount is gone' >&2
                exit 1"
            ),
        );
    }

    /// Starts the writers of a host, which go on where those before them have ended.
    pub fn start_writers(&self, host: &str) {
        let state = self.state.display();
        let mut script = format!("export STORM_STATE={state} STORM_SEED={}\n", self.seed);
        for (letter, program, file, rest) in WRITERS {
            script += &format!(
                "python3 -B {state}/programs/{program} {VIEW}/{file} {host}.{letter} {rest} &\n"
            );
        }
        script += "bad=0\nfor job in $(jobs -p); do wait $job || bad=1; done\nexit $bad";
        let job = self.cluster.spawn_as(host, 0, self.until, &script);
        self.jobs().insert(host.into(), job);
    }

    /// A host's writers are no more: the host is.
    pub fn forget_writers(&self, host: &str) {
        self.jobs().remove(host);
    }

    /// Tells all writers to stop, and waits for them; says which hosts' writers failed, and how.
    pub fn stop_writers(&self, patience: Duration) -> Vec<String> {
        std::fs::write(self.state.join("stop"), "").expect("cannot stop the writers");
        let deadline = Instant::now() + patience;
        let mut jobs = std::mem::take(&mut *self.jobs());
        while jobs.values_mut().any(Job::is_running) {
            if Instant::now() > deadline {
                jobs.retain(|_, job| job.is_running());
                let hosts: Vec<_> = jobs.keys().map(String::as_str).collect();
                panic!(
                    "writers on {} do not stop within {patience:?}",
                    hosts.join(", ")
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
        let mut failed = Vec::new();
        for (host, job) in jobs {
            let output = job.wait();
            if !output.success() {
                failed.push(format!("writers on {host}: {output}"));
            }
        }
        failed
    }

    /// All writers that write to a file.
    pub fn writers_of(&self, file: &str) -> Vec<String> {
        let letters = WRITERS.iter().filter(|(_, _, of, _)| *of == file);
        let letters: Vec<_> = letters.map(|(letter, ..)| *letter).collect();
        (1..=HOSTS)
            .flat_map(|host| {
                letters
                    .iter()
                    .map(move |letter| format!("host{host}.{letter}"))
            })
            .collect()
    }

    /// What the writers of a file say.
    pub fn journals_of(&self, file: &str) -> Vec<Journal> {
        let journal = |writer: String| {
            let path = self.state.join(format!("journal.{writer}"));
            Journal::parse(&writer, &std::fs::read_to_string(path).unwrap_or_default())
        };
        self.writers_of(file).into_iter().map(journal).collect()
    }

    /// Waits until each writer has been told of one more success than now.
    pub fn wait_for_progress(&self, patience: Duration) {
        let count = || -> HashMap<String, usize> {
            let journals = FILES.iter().flat_map(|file| self.journals_of(file));
            journals
                .map(|j| (j.writer.clone(), j.acknowledged().count()))
                .collect()
        };
        let (before, deadline) = (count(), Instant::now() + patience);
        loop {
            let now = count();
            let stuck = |writer: &&String| now[*writer] <= before[*writer];
            let mut stuck: Vec<_> = before.keys().filter(stuck).cloned().collect();
            if stuck.is_empty() {
                return;
            }
            stuck.sort();
            let late = Instant::now() > deadline;
            assert!(
                !late,
                "all is well for {patience:?}, but these do not go on: {stuck:?}"
            );
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Does something for all hosts at once.
    pub fn on_all_hosts(&self, what: impl Fn(&str) + Sync) {
        thread::scope(|scope| {
            for host in self.cluster.hosts() {
                let what = &what;
                scope.spawn(move || what(&host));
            }
        });
    }

    /// Runs a script on a host, which must succeed.
    pub fn host(&self, host: &str, script: &str) -> String {
        let output = self.cluster.run_as(host, 0, PATIENCE, script);
        assert!(output.success(), "failed on {host}:\n{script}\n{output}");
        output.stdout
    }

    /// Runs a script on the server, which must succeed.
    pub fn server(&self, script: &str) -> String {
        self.host("server", script)
    }

    /// Copies all files from the server's disk to the state directory, as `final.FILE`, and the
    /// names that are there.
    pub fn fetch_files(&self) -> Output {
        let (from, state) = (self.on_server(), self.state.display());
        let files = FILES.join(" ");
        let script = format!(
            "cd {from} || exit
            ls -laiA --full-time >{state}/names 2>/dev/null
            for file in {files}; do cat $file >{state}/final.$file || exit; done"
        );
        self.cluster.run_as("server", 0, PATIENCE, &script)
    }

    /// A file as it was fetched.
    pub fn fetched(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.state.join(format!("final.{file}"))).expect("the file was fetched")
    }

    /// The state of all machines, for people, as far as they answer.
    pub fn describe(&self) -> String {
        let from = self.on_server();
        let mut said = String::new();
        let server = format!(
            "cd {from} && date +%s.%N && df -k . && ls -laiA --full-time 2>/dev/null
            for turn in .*.turn.*; do
                [[ -e ${{turn/.turn./.done.}} ]] || {{ echo \"== open: $turn\"; cat $turn; }}
            done"
        );
        let host = "date +%s.%N; grep /mnt/ /proc/mounts; tc qdisc show dev eth0
            ps -eo pid,ppid,stat,wchan:30,etimes,args | grep -e python -e dotlockfs
            for task in /proc/$(</run/daemon)/task/*; do
                echo \"== $(<$task/comm) $(<$task/wchan)\"
                cat $task/stack
            done
            dmesg | tail -n 5";
        let mut machines = self.cluster.hosts();
        machines.insert(0, "server".into());
        for machine in machines {
            let script = if machine == "server" { &server } else { host };
            let patience = Duration::from_secs(20);
            let output = self.cluster.run_as(&machine, 0, patience, script);
            said += &format!("===== {machine}\n{output}\n");
        }
        said
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
