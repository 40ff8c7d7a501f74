//! The rounds: each measures every subject once, in another order each time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::daemon;
use super::figures::{Records, Sample, Samples};
use super::job::{Done, Job};
use super::measures::{Ack, Group, Measure};
use super::place::{Place, Subject};
use crate::cli::stage::bar::Bar;
use crate::cli::stage::child::Worker;
use crate::cli::stage::interrupt::{Failure, Interrupts};
use crate::cli::stage::judge::{self, Expectation, Shape};

/// How long a process may work at one job.
const JOB_DEADLINE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(1);
/// The tree that is walked, below the source.
const TREE: &str = "tree";
/// Where small files are made, in a subject's own directory.
const SMALL: &str = "small";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    /// How often everything is measured.
    pub rounds: u32,
    /// How long is appended, or read at random.
    pub time: Duration,
    /// The size of the large file, in bytes.
    pub large: u64,
    /// Small files, and files of the tree.
    pub files: u32,
    /// Files that a daemon gets to know, to see how large it becomes.
    pub inodes: u32,
}

/// What measures.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The executable.
    pub dotlockfs: &'a Path,
    /// Signals that have arrived.
    pub interrupts: &'a Interrupts,
    /// How much.
    pub amounts: Amounts,
}

/// What the rounds have given.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Samples by place and measure, in the order in which they were measured.
    pub samples: Vec<(usize, Measure, Samples)>,
    /// What became of the records, by the name of the kind of subject.
    pub records: BTreeMap<&'static str, Records>,
}

impl Bench<'_> {
    /// Lets processes do a job each, all at once, and waits for the last.
    ///
    /// # Errors
    /// A signal, or the first line that one of them had to say.
    pub fn work(&self, jobs: &[Job]) -> Result<Vec<Done>, Failure> {
        let failed = |error: String| Failure::Failed(format!("cannot measure: {error}"));
        let mut workers = Vec::new();
        for job in jobs {
            self.interrupts.check()?;
            let job = serde_json::to_string(job).map_err(|error| failed(error.to_string()))?;
            let mut command = Command::new(self.dotlockfs);
            command
                .args(["bench", "--job", &job])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let worker = Worker::start(&mut command);
            workers.push(worker.map_err(|error| failed(error.to_string()))?);
        }
        for worker in &mut workers {
            // Nothing is written to them: the end of their input lets them go.
            drop(worker.child.stdin.take());
        }
        let deadline = Instant::now() + JOB_DEADLINE;
        let mut done = Vec::new();
        for mut worker in workers {
            let status = loop {
                self.interrupts.check()?;
                let ended = worker.child.try_wait();
                if let Some(status) = ended.map_err(|error| failed(error.to_string()))? {
                    break status;
                }
                if Instant::now() > deadline {
                    let seconds = JOB_DEADLINE.as_secs();
                    return Err(failed(format!("no end within {seconds} s: {jobs:?}")));
                }
                thread::sleep(POLL);
            };
            // A line each, so neither pipe was ever full.
            let (mut said, mut complaint) = (String::new(), String::new());
            if let Some(mut pipe) = worker.child.stdout.take() {
                let _ = pipe.read_to_string(&mut said);
            }
            if let Some(mut pipe) = worker.child.stderr.take() {
                let _ = pipe.read_to_string(&mut complaint);
            }
            done.push(serde_json::from_str(&said).map_err(|_| {
                let complaint = complaint.lines().next().unwrap_or_default();
                match complaint.trim_start_matches("dotlockfs: ") {
                    "" => failed(status.to_string()),
                    complaint => failed(complaint.to_owned()),
                }
            })?);
        }
        Ok(done)
    }

    /// Makes what the measures read.
    ///
    /// # Errors
    /// A signal, or a sentence.
    pub fn prepare(&self, places: &[Place], groups: &[Group]) -> Result<(), Failure> {
        let needed = |wanted: &[Group]| wanted.iter().any(|group| groups.contains(group));
        for place in places {
            let plain = &place.subjects[0];
            if needed(&[Group::Large, Group::Random]) {
                let (file, bytes) = (plain.large(), self.amounts.large);
                self.work(&[Job::Write { file, bytes }])?;
            }
            if needed(&[Group::Walk]) {
                let (tree, files) = (place.source.join(TREE), self.amounts.files);
                self.work(&[Job::Plant { tree, files }])?;
            }
        }
        Ok(())
    }

    /// Measures.
    ///
    /// # Errors
    /// A signal, or a sentence.
    pub fn rounds(&self, places: &[Place], blocks: &[Vec<Measure>]) -> Result<Outcome, Failure> {
        let subjects: Vec<(usize, &Subject)> = places
            .iter()
            .enumerate()
            .flat_map(|(number, place)| place.subjects.iter().map(move |subject| (number, subject)))
            .collect();
        let mut outcome = Outcome::default();
        for measure in blocks.iter().flatten() {
            for place in 0..places.len() {
                outcome.samples.push((place, *measure, Samples::new()));
            }
        }
        let steps = self.amounts.rounds as usize * blocks.len() * subjects.len();
        let bar = Bar::new(steps as u64);
        let mut done = 0;
        for round in 0..self.amounts.rounds {
            for (number, block) in blocks.iter().enumerate() {
                for step in 0..subjects.len() {
                    let turn = (round as usize + number + step) % subjects.len();
                    let (at, subject) = subjects[turn];
                    bar.say(format!("{}, {}", block[0].name(), subject.kind.name()));
                    for measure in block {
                        if !subject.kind.takes_part(*measure) {
                            continue;
                        }
                        let run = format!("{round}-{number}");
                        let sample = self.sample(
                            &places[at],
                            subject,
                            *measure,
                            &run,
                            &mut outcome.records,
                        )?;
                        let samples = outcome.samples.iter_mut();
                        for (_, _, samples) in
                            samples.filter(|(place, other, _)| (*place, other) == (at, measure))
                        {
                            samples.entry(subject.kind).or_default().push(sample);
                        }
                    }
                    done += 1;
                    bar.set(done);
                }
            }
        }
        Ok(outcome)
    }

    fn sample(
        &self,
        place: &Place,
        subject: &Subject,
        measure: Measure,
        run: &str,
        records: &mut BTreeMap<&'static str, Records>,
    ) -> Result<Sample, Failure> {
        if let Measure::Append { ack, writers, held } = measure {
            let records = records.entry(subject.kind.name()).or_default();
            return self.append(place, subject, (ack, writers, held), run, records);
        }
        let small = subject.own(SMALL);
        let (directory, files) = (small.clone(), self.amounts.files);
        let large = |forget| (subject.large(), forget);
        // Below and above a mount different pages may be kept.
        let both = || vec![subject.large(), place.subjects[0].large()];
        let tree = subject.root.join(TREE);
        let time = self.amounts.time;
        let written = subject.own("written");
        let job = match measure {
            Measure::Append { .. } | Measure::Write => Job::Write {
                file: written.clone(),
                bytes: self.amounts.large,
            },
            Measure::Read | Measure::ReadAgain => {
                let forget = if measure == Measure::Read {
                    both()
                } else {
                    Vec::new()
                };
                let (file, forget) = large(forget);
                Job::Read { file, forget }
            }
            Measure::RandomFirst => {
                let (file, forget) = large(both());
                Job::Random { file, forget, time }
            }
            Measure::RandomAgain => {
                let (file, forget) = (place.subjects[0].large(), Vec::new());
                self.work(&[Job::Read { file, forget }])?;
                let (file, forget) = large(Vec::new());
                Job::Random { file, forget, time }
            }
            Measure::Create => {
                fs::create_dir(&small)
                    .map_err(|error| Failure::on("create the directory", &small, error))?;
                Job::Create { directory, files }
            }
            Measure::Stat => Job::Stat { directory, files },
            Measure::Rename => Job::Rename { directory, files },
            Measure::Unlink => Job::Unlink { directory, files },
            Measure::WalkFirst => {
                let switch = Path::new("/proc/sys/vm/drop_caches");
                // 2: names and inodes, not pages.
                fs::write(switch, "2").map_err(|error| Failure::on("write to", switch, error))?;
                Job::Walk { tree }
            }
            Measure::WalkAgain => {
                // Here, and not in the block's first measure, which takes root.
                self.work(&[Job::Walk { tree: tree.clone() }])?;
                Job::Walk { tree }
            }
        };
        let sample = self.timed(subject, measure, &[job])?.0;
        let after = match measure {
            Measure::Write => fs::remove_file(&written).map_err(|error| (written, error)),
            Measure::Unlink => fs::remove_dir(&small).map_err(|error| (small, error)),
            _ => Ok(()),
        };
        after.map_err(|(path, error)| Failure::on("remove", &path, error))?;
        Ok(sample)
    }

    /// Lets processes work, and works out what that took. Gives what each has done, too.
    fn timed(
        &self,
        subject: &Subject,
        measure: Measure,
        jobs: &[Job],
    ) -> Result<(Sample, Vec<Done>), Failure> {
        let cpu = || subject.daemon.and_then(daemon::cpu);
        let fetched = || subject.daemon.and_then(|pid| daemon::io(pid, "read_bytes"));
        let before = (cpu(), fetched());
        let done = self.work(jobs)?;
        let after = (cpu(), fetched());
        let began = done.iter().map(|done| done.began).min().unwrap_or_default();
        let ended = done.iter().map(|done| done.ended).max().unwrap_or_default();
        let count: u64 = done.iter().map(|done| done.count).sum();
        let units = count as f64 / measure.unit_size();
        let from_disk = (measure.group() == Group::Large && measure != Measure::Write).then(|| {
            let by_daemon = before.1.zip(after.1);
            let by_daemon = by_daemon.map_or(0, |(before, after)| after - before);
            let by_workers: u64 = done.iter().map(|done| done.from_disk).sum();
            2 * (by_daemon + by_workers) > count
        });
        let sample = Sample {
            // The clock has steps, and there may be little to do.
            rate: units / (ended - began).max(Duration::from_micros(1)).as_secs_f64(),
            units,
            cpu: before.0.zip(after.0).map(|(before, after)| after - before),
            from_disk,
        };
        Ok((sample, done))
    }

    fn append(
        &self,
        place: &Place,
        subject: &Subject,
        (ack, writers, held): (Ack, u32, bool),
        run: &str,
        records: &mut Records,
    ) -> Result<Sample, Failure> {
        let name = Place::appended(subject, ack, run);
        let together = place.together();
        let first = 1 + writers * together.map_or(0, |(_, number)| number as u32);
        let job = |writer| Job::Append {
            file: subject.root.join(&name),
            writer,
            style: subject.kind.style(ack, held),
            time: self.amounts.time,
        };
        let jobs: Vec<Job> = (first..first + writers).map(job).collect();
        let point = format!("{}-{run}", subject.kind.name());
        if let Some((together, _)) = together {
            together.meet(&format!("begin-{point}"), "", self.interrupts)?;
        }
        let measure = Measure::Append { ack, writers, held };
        let (sample, done) = self.timed(subject, measure, &jobs)?;
        let mut counts: Vec<u32> = done.iter().map(|done| done.count as u32).collect();
        if let Some((together, _)) = together {
            let telling = counts
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(" ");
            let told = together.meet(&format!("end-{point}"), &telling, self.interrupts)?;
            let all = told.iter().flat_map(|(_, counts)| counts.split(' '));
            counts = all
                .map(|count| count.parse::<u32>())
                .collect::<Result<_, _>>()
                .map_err(|error| {
                    Failure::on("understand what hosts tell in", &together.path, error)
                })?;
        }
        // From the directory itself, whichever way it was written.
        let file = place.source.join(&name);
        let content = fs::read(&file).map_err(|error| Failure::on("read", &file, error))?;
        let shape = Shape::Even;
        records.add(judge::judge(
            &content,
            Expectation {
                shape,
                records: &counts,
            },
        ));
        if together.is_none() {
            let file = subject.root.join(&name);
            fs::remove_file(&file).map_err(|error| Failure::on("remove", &file, error))?;
        }
        Ok(sample)
    }
}
