//! One storm: rounds of faults and checks.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cluster::Cluster;
use crate::field::{FILES, Field, HOSTS};
use crate::journal::Journal;
use crate::report::{Found, print_head};
use crate::scenario::{self, Event, Kind};
use crate::{counters, documents, records};

/// A round is not longer, so that files stay small and faults are known soon.
const ROUND: Duration = Duration::from_secs(150);

/// How long all writers together may take to go on when all is well again. Whoever waits gets
/// EAGAIN after a minute.
const CALM: Duration = Duration::from_secs(90);

/// Storms on one version of NFS for as long as is wanted.
pub fn run(vers: &str) {
    let setting = |name: &str| std::env::var(name).ok();
    let minutes: f64 = setting("STORM_MINUTES").map_or(2.5, |text| text.parse().expect("minutes"));
    let kinds = match setting("STORM_ONLY") {
        Some(list) => Kind::listed(&list),
        None => Kind::ALL.map(|(kind, _)| kind).to_vec(),
    };
    let seed = match setting("STORM_SEED") {
        Some(text) => text.parse().expect("a number as seed"),
        None => since_1970().as_secs() % 1_000_000,
    };
    let length = Duration::from_secs_f64(minutes * 60.0);
    let rounds = length.as_secs_f64() / ROUND.as_secs_f64();
    let rounds = (1..)
        .find(|count| f64::from(*count) >= rounds)
        .expect("a number of rounds");

    let cluster = Cluster::up(HOSTS, vers);
    let mut faults = 0;
    for round in 0..rounds {
        let round = Round {
            cluster: &cluster,
            vers,
            seed: seed + u64::from(round),
            number: usize::try_from(round).expect("few rounds"),
            length: length / rounds,
            kinds: &kinds,
        };
        faults += round.run();
    }
    assert!(
        faults == 0,
        "{faults} faults on NFSv{vers}; they are told above"
    );
}

/// Some minutes on a directory of its own.
struct Round<'a> {
    cluster: &'a Cluster,
    vers: &'a str,
    seed: u64,
    number: usize,
    length: Duration,
    kinds: &'a [Kind],
}

impl Round<'_> {
    /// Runs it and says how many faults there were.
    fn run(&self) -> usize {
        let minutes = self.length.as_secs_f64() / 60.0;
        let Round { vers, seed, .. } = self;
        println!("\nNFSv{vers}: a storm of {minutes:.1} minutes with seed {seed}");
        let field = Field::new(self.cluster, self.number, *seed, self.length);
        let mut evidence = Evidence {
            field: &field,
            place: self.evidence(),
            only_panics: true,
        };
        field.wait_for_progress(CALM);
        let events = scenario::generate(*seed, self.length, HOSTS, self.kinds);
        self.rage(&field, &events);
        let began = Instant::now();
        field.wait_for_progress(CALM);
        let mut failed = field.stop_writers(CALM);
        println!(
            "all writers went on, and ended within {:.1?}",
            began.elapsed()
        );
        field.on_all_hosts(|host| field.unmount(host));
        let fetched = field.fetch_files();
        assert!(fetched.success(), "cannot fetch the files: {fetched}");

        let found: Vec<_> = FILES
            .iter()
            .map(|file| (*file, check(&field, file)))
            .collect();
        self.print(&field, &events, &found);
        failed.retain(|text| {
            println!("FAULT: {text}");
            true
        });
        let faults = failed.len() + found.iter().map(|(_, of)| of.faults.len()).sum::<usize>();
        evidence.only_panics = faults == 0;
        faults
    }

    /// Lets the faults happen, each at its time, and returns when all is as it was.
    fn rage(&self, field: &Field, events: &[Event]) {
        let began = Instant::now();
        let log = Mutex::new(String::new());
        let say = |what: String| {
            let (at, now) = (began.elapsed().as_secs_f64(), since_1970().as_secs_f64());
            let line = format!("{at:8.3} {now:.3} {what}");
            println!("{line}");
            let mut log = log.lock().expect("nobody panics with it");
            *log += &(line + "\n");
            let _ = std::fs::write(field.state().join("events"), &*log);
        };
        // One fault of a machine begins when the one before is over, however long that took.
        let machines: Vec<_> = (0..=HOSTS).map(|_| Mutex::new(())).collect();
        thread::scope(|scope| {
            for event in events {
                thread::sleep(event.at.saturating_sub(began.elapsed()));
                let (machine, say) = (&machines[event.host], &say);
                scope.spawn(move || {
                    let _alone = machine.lock().expect("the fault before has been mended");
                    say(event.to_string());
                    self.strike(field, event);
                    say(format!("over: {event}"));
                });
            }
            thread::sleep(self.length.saturating_sub(began.elapsed()));
        });
    }

    fn strike(&self, field: &Field, event: &Event) {
        let cluster = self.cluster;
        let (host, lasts) = (format!("host{}", event.host), event.lasts);
        let seconds = lasts.as_secs_f64();
        match event.kind {
            Kind::Pause => {
                cluster.pause(&host);
                thread::sleep(lasts);
                cluster.resume(&host);
            }
            Kind::Kill => {
                cluster.kill(&host);
                field.forget_writers(&host);
                thread::sleep(lasts);
                cluster.boot(&host);
                field.mount(&host);
                field.start_writers(&host);
            }
            Kind::Cut => {
                cluster.cut(&host);
                thread::sleep(lasts);
                cluster.heal(&host);
            }
            Kind::Slow => {
                cluster.slow(&host, event.delay);
                thread::sleep(lasts);
                cluster.heal(&host);
            }
            Kind::KillDaemon => {
                field.host(&host, "kill -KILL $(</run/daemon)");
                thread::sleep(lasts);
                field.mount(&host);
            }
            Kind::StopDaemon => {
                let script = format!(
                    "kill -STOP $(</run/daemon); sleep {seconds}; kill -CONT $(</run/daemon)"
                );
                field.host(&host, &script);
            }
            Kind::RestartNfsd => cluster.restart_nfsd(),
            Kind::FillDisk => _ = field.server(&fill_disk(seconds)),
        }
    }

    fn print(&self, field: &Field, events: &[Event], found: &[(&str, Found)]) {
        let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
        for event in events {
            *kinds.entry(event.kind).or_default() += 1;
        }
        let kinds: Vec<_> = kinds
            .iter()
            .map(|(kind, count)| format!("{count} {}", kind.name()))
            .collect();
        println!();
        println!("| storm with seed {}: {}", self.seed, kinds.join(", "));
        println!("| {}", logged(field));
        print_head(&format!("NFSv{}, {HOSTS} hosts", self.vers));
        for (file, of) in found {
            of.print(file);
        }
        println!();
        for (file, of) in found {
            of.explain(file);
        }
    }

    /// Where to keep what a failure leaves.
    fn evidence(&self) -> PathBuf {
        let name = format!("storm-{}-{}", self.vers, self.seed);
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
    }
}

fn check(field: &Field, file: &str) -> Found {
    let journals = field.journals_of(file);
    let journals: Vec<&Journal> = journals.iter().collect();
    let data = field.fetched(file);
    match file {
        "lines" => records::check(&data, &journals, false),
        "plain" => records::check(&data, &journals, true),
        "counter" => counters::check(&data, &journals),
        _ => documents::check(&String::from_utf8_lossy(&data), &journals),
    }
}

/// What the daemons have logged about broken turns and fences.
fn logged(field: &Field) -> String {
    let logs = (1..=HOSTS).map(|host| field.state().join(format!("log.host{host}")));
    let logs: String = logs
        .map(|path| std::fs::read_to_string(path).unwrap_or_default())
        .collect();
    let count = |word: &str| logs.lines().filter(|line| line.contains(word)).count();
    let again = count("is not in the file, and is made again");
    format!(
        "logged: {} turns broken, {} files fenced, {} turns lost, {again} appends made again",
        count("broke turn"),
        count("fenced after turn"),
        count("was ended by another host"),
    )
}

/// A script that leaves a few KB of the server's disk for some seconds.
fn fill_disk(seconds: f64) -> String {
    format!(
        "cd /mnt/disk || exit
        trap 'rm -f filler.*' EXIT
        n=0
        # What is freed meanwhile, perhaps much and late, is filled by a further pass: in pieces of 4K
        # that takes minutes.
        for pass in 1 2 3 4 5; do
            made=0
            for size in 4G 1G 256M 64M 16M 4M 1M 256K 64K 16K 4K; do
                for ((i = 0; i < 8; i++)); do
                    fallocate -l $size filler.$n 2>/dev/null || break
                    ((++n, ++made))
                done
            done
            ((made)) || break
        done
        rm -f filler.$n filler.$((n - 1)) filler.$((n - 2))
        sleep {seconds}"
    )
}

/// Keeps what is needed to understand a failure; when dropped after one.
struct Evidence<'a> {
    field: &'a Field<'a>,
    place: PathBuf,
    only_panics: bool,
}

impl Drop for Evidence<'_> {
    fn drop(&mut self) {
        if self.only_panics && !thread::panicking() {
            return;
        }
        let kept = catch_unwind(AssertUnwindSafe(|| {
            let said = self.field.describe();
            if thread::panicking() {
                println!("{said}");
            }
            let state = self.field.state();
            let _ = std::fs::write(state.join("machines"), said);
            self.field.fetch_files();
            let _ = std::fs::remove_dir_all(&self.place);
            std::fs::create_dir_all(&self.place).expect("no place for evidence");
            for entry in std::fs::read_dir(state).expect("state").flatten() {
                if entry.path().is_file() {
                    let to = self.place.join(entry.file_name());
                    std::fs::copy(entry.path(), to).expect("cannot keep evidence");
                }
            }
        }));
        match kept {
            Ok(()) => println!(
                "journals, logs and files are kept in {}",
                self.place.display()
            ),
            Err(_) => println!("what the round has left could not be kept"),
        }
    }
}

fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is set")
}
