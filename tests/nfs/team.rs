//! Programs on several machines that begin together.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Job, Output};
use crate::lab::Lab;

/// No program takes longer, unless something is wrong.
const DEADLINE: Duration = Duration::from_secs(420);

/// Programs that are about to begin, or at work. Each says that it is ready by a file in the
/// barrier, and waits there for a file `go` (`start_together` in `programs/common.*`).
pub struct Team<'a> {
    pub lab: &'a Lab,
    barrier: PathBuf,
    jobs: Vec<(String, Job)>,
    started: Option<Instant>,
}

impl<'a> Team<'a> {
    /// No programs yet.
    pub fn new(lab: &'a Lab) -> Team<'a> {
        Team {
            lab,
            barrier: lab.barrier(),
            jobs: Vec::new(),
            started: None,
        }
    }

    /// One more program, of user `uid`; `script` is what the shell executes.
    pub fn add(&mut self, host: &str, uid: u32, script: &str) {
        let script = format!("export BARRIER={}\n{script}", self.barrier.display());
        let job = self.lab.cluster.spawn_as(host, uid, DEADLINE, &script);
        self.jobs.push((host.into(), job));
    }

    /// Lets all of them begin, as soon as all are ready.
    pub fn start(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready = || std::fs::read_dir(&self.barrier).map_or(0, Iterator::count);
        while ready() < self.jobs.len() {
            assert!(Instant::now() < deadline, "the programs do not start");
            if let Some(ended) = self.jobs.iter_mut().position(|(_, job)| !job.is_running()) {
                let (host, job) = self.jobs.swap_remove(ended);
                panic!("a program on {host} did not start: {}", job.wait());
            }
            thread::sleep(Duration::from_millis(10));
        }
        std::fs::write(self.barrier.join("go"), "").expect("cannot start the programs");
        self.started = Some(Instant::now());
    }

    /// Tells those that go on until they are stopped that it is enough.
    pub fn stop(&self) {
        std::fs::write(self.barrier.join("stop"), "").expect("cannot stop the programs");
    }

    /// Waits for the end of all; each must have succeeded. Says how long it took.
    pub fn finish(&mut self) -> Duration {
        for (_, job) in std::mem::take(&mut self.jobs) {
            job.wait_ok();
        }
        self.since_the_start()
    }

    /// Waits for the programs of one host; each must have succeeded.
    pub fn finish_on(&mut self, host: &str) {
        for (of, job) in std::mem::take(&mut self.jobs) {
            match of == host {
                true => _ = job.wait_ok(),
                false => self.jobs.push((of, job)),
            }
        }
    }

    /// Waits for the end of all, however they end: each one's host, and what it has said.
    pub fn finish_anyhow(&mut self) -> Vec<(String, Output)> {
        let jobs = std::mem::take(&mut self.jobs);
        jobs.into_iter()
            .map(|(host, job)| (host, job.wait()))
            .collect()
    }

    /// Waits until each program of these hosts has told `what` (`tell` in `programs/attempts.py`).
    pub fn wait_until_told(&self, what: &str, hosts: &[&str]) {
        let prefix = format!("{what}.");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let entries = std::fs::read_dir(&self.barrier).expect("the barrier");
            let names = entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok());
            let told: Vec<String> = names
                .filter(|name| {
                    let writer = name.strip_prefix(&prefix);
                    writer.is_some_and(|writer| hosts.iter().any(|host| writer.starts_with(host)))
                })
                .collect();
            let jobs = self
                .jobs
                .iter()
                .filter(|(host, _)| hosts.contains(&host.as_str()));
            if told.len() >= jobs.count() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not all have {what}: {told:?}; {}",
                self.last_failures()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Why each program has failed last, where it has.
    fn last_failures(&self) -> String {
        let entries = std::fs::read_dir(&self.barrier)
            .expect("the barrier")
            .flatten();
        let failures = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let writer = name.strip_prefix("failed.")?;
            let words = std::fs::read_to_string(entry.path()).ok()?;
            Some(format!("\n{writer}: {words}"))
        });
        failures.collect()
    }

    /// How long it is since all began.
    pub fn since_the_start(&self) -> Duration {
        self.started.expect("the programs were started").elapsed()
    }

    /// Is any of them still at work?
    pub fn are_running(&mut self) -> bool {
        self.jobs.iter_mut().any(|(_, job)| job.is_running())
    }

    /// The directory by which they are told to begin and to stop; each team has its own.
    pub fn barrier(&self) -> &Path {
        &self.barrier
    }
}
