//! What happens in a storm, and when: all of it follows from a seed.

use std::fmt;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A host stands still, and goes on.
    Pause,
    /// A host loses its power, and boots again.
    Kill,
    /// A host is cut off the network for a while.
    Cut,
    /// A host's network is slow.
    Slow,
    /// The daemon of a host is killed, and started again.
    KillDaemon,
    /// The daemon of a host stands still, and goes on; its programs do not stand still.
    StopDaemon,
    /// The server's nfsd is stopped and started; ten seconds of grace follow.
    RestartNfsd,
    /// The server's disk is full for a while.
    FillDisk,
}

impl Kind {
    /// All kinds, by the names that `STORM_ONLY` and the table have for them.
    pub const ALL: [(Kind, &str); 8] = [
        (Kind::Pause, "pause"),
        (Kind::Kill, "kill"),
        (Kind::Cut, "cut"),
        (Kind::Slow, "slow"),
        (Kind::KillDaemon, "kill-daemon"),
        (Kind::StopDaemon, "stop-daemon"),
        (Kind::RestartNfsd, "restart-nfsd"),
        (Kind::FillDisk, "fill-disk"),
    ];

    pub fn name(self) -> &'static str {
        let known = Kind::ALL.iter().find(|(kind, _)| *kind == self);
        known.expect("all kinds have a name").1
    }

    /// The kinds named in a list with commas.
    pub fn listed(list: &str) -> Vec<Kind> {
        let of = |name: &str| Kind::ALL.iter().find(|(_, known)| *known == name);
        list.split(',')
            .map(|name| {
                of(name)
                    .unwrap_or_else(|| panic!("no such fault: {name}"))
                    .0
            })
            .collect()
    }

    /// How many cards of the pack have it on them.
    fn cards(self) -> usize {
        match self {
            Kind::Pause | Kind::Cut | Kind::StopDaemon => 3,
            Kind::Kill | Kind::KillDaemon => 2,
            Kind::Slow | Kind::RestartNfsd | Kind::FillDisk => 1,
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: Kind,
    /// Which host; 0: the server.
    pub host: usize,
    /// When it begins, after the beginning of the storm.
    pub at: Duration,
    /// How long until it is mended.
    pub lasts: Duration,
    /// For [`Kind::Slow`].
    pub delay: Duration,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.host {
            0 => write!(f, "{} server", self.kind.name())?,
            host => write!(f, "{} host{host}", self.kind.name())?,
        }
        match self.kind {
            Kind::RestartNfsd => Ok(()),
            Kind::Slow => write!(f, " by {:?} for {:?}", self.delay, self.lasts),
            _ => write!(f, " for {:?}", self.lasts),
        }
    }
}

/// The faults of a storm of `length`, in their order. At most two at a time, never two of one
/// machine, and now and then none for some seconds.
pub fn generate(seed: u64, length: Duration, hosts: usize, kinds: &[Kind]) -> Vec<Event> {
    let mut dice = Dice(seed);
    let mut pack = Vec::new();
    let mut events: Vec<Event> = Vec::new();
    let mut at = Duration::from_millis(dice.within(1000, 3000));
    while at < length {
        if pack.is_empty() {
            pack = kinds
                .iter()
                .flat_map(|kind| vec![*kind; kind.cards()])
                .collect();
        }
        let kind = pack.swap_remove(dice.below(pack.len()));
        let host = match kind {
            Kind::RestartNfsd | Kind::FillDisk => 0,
            _ => 1 + dice.below(hosts),
        };
        // Before: not more than one other fault; this machine's last one is over.
        let mut ends: Vec<_> = events.iter().map(Event::over).collect();
        ends.sort();
        if let [.., second, _] = ends[..] {
            at = at.max(second);
        }
        let same = events.iter().filter(|event| event.host == host);
        at = same.map(Event::over).fold(at, Duration::max);
        let event = Event {
            kind,
            host,
            at,
            lasts: dice.lasts(kind),
            delay: Duration::from_millis(dice.within(50, 300)),
        };
        // A second fault while this one lasts; or some calm first; or a long one.
        at = match dice.below(10) {
            0..5 => at + Duration::from_millis(dice.within(200, 3000)),
            5..9 => event.over() + Duration::from_millis(dice.within(0, 3000)),
            _ => event.over() + Duration::from_millis(dice.within(3000, 9000)),
        };
        if event.over() <= length {
            events.push(event);
        }
    }
    events
}

impl Event {
    /// When it is all over, about.
    fn over(&self) -> Duration {
        let more = match self.kind {
            Kind::Kill => 8000, // the boot
            Kind::RestartNfsd => 2000,
            Kind::FillDisk | Kind::KillDaemon => 1000,
            _ => 300,
        };
        self.at + self.lasts + Duration::from_millis(more)
    }
}

/// Numbers by chance (splitmix64); always the same ones for a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("smaller than a usize")
    }

    fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    fn lasts(&mut self, kind: Kind) -> Duration {
        let millis = match kind {
            // Shorter and longer than `stale_after`; more often near it.
            Kind::Pause | Kind::Cut | Kind::StopDaemon => match self.below(3) {
                0 => self.within(1000, 3500),
                1 => self.within(3500, 7500),
                _ => self.within(7500, 12000),
            },
            Kind::Kill => self.within(100, 8000),
            Kind::KillDaemon => self.within(0, 6000),
            Kind::Slow => self.within(3000, 10000),
            Kind::FillDisk => self.within(2000, 6000),
            Kind::RestartNfsd => 0,
        };
        Duration::from_millis(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Kind> {
        Kind::ALL.map(|(kind, _)| kind).to_vec()
    }

    fn some(seed: u64) -> Vec<Event> {
        generate(seed, Duration::from_secs(600), 3, &all())
    }

    #[test]
    fn a_seed_gives_the_same_storm_again() {
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
    }

    #[test]
    fn two_faults_at_a_time_at_most_and_one_for_a_machine() {
        for seed in 0..50 {
            let events = some(seed);
            assert!(events.len() > 30, "{} events in ten minutes", events.len());
            for (number, event) in events.iter().enumerate() {
                let lasting = events[..number].iter().filter(|old| old.over() > event.at);
                let lasting: Vec<_> = lasting.collect();
                assert!(lasting.len() <= 1, "{event} with {lasting:?}");
                assert!(lasting.iter().all(|old| old.host != event.host));
            }
        }
    }

    #[test]
    fn all_kinds_come() {
        for (kind, name) in Kind::ALL {
            assert!(some(1).iter().any(|event| event.kind == kind), "no {name}");
        }
        assert_eq!(Kind::listed("cut,pause"), [Kind::Cut, Kind::Pause]);
    }
}
