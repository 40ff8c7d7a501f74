//! From samples to medians, spreads and ratios.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::measures::{Group, Kind, Measure};
use crate::cli::stage::judge::Verdict;

/// What one run of one measure on one subject has given.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// In units of the measure for each second.
    pub rate: f64,
    /// How many units were done.
    pub units: f64,
    /// What the daemon has used of processors meanwhile.
    pub cpu: Option<Duration>,
    /// Whether most of it was fetched from a disk; for reads.
    pub from_disk: Option<bool>,
}

/// The samples of one measure in one place, round by round. All subjects of a round stand at the same
/// index.
pub type Samples = BTreeMap<Kind, Vec<Sample>>;

/// The middle of some values, and the least and the most of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// `None` for no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Spread {
            median: f64::midpoint(low, high),
            least,
            most,
        })
    }
}

/// What a subject has reached in one measure.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Rates, in units of the measure for each second.
    #[serde(flatten)]
    pub rate: Spread,
    /// The rate of each round.
    pub samples: Vec<f64>,
    /// What the daemon has used of processors for each unit, in microseconds, over all rounds.
    pub cpu_microseconds: Option<f64>,
    /// Whether what was read was mostly fetched from a disk, not found in memory.
    pub from_disk: Option<bool>,
    /// Its rate in parts of that of the plain directory, in the same round.
    pub to_plain: Option<Spread>,
    /// The same for bindfs.
    pub to_bindfs: Option<Spread>,
}

/// All figures of one measure in one place.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The number of the place, from 0.
    pub place: usize,
    /// The group of the measure.
    pub group: Group,
    /// What the measure belongs to, with its unit.
    #[serde(skip)]
    pub heading: String,
    /// The measure within its group.
    pub name: String,
    /// For guarded appends: the rule's `ack`.
    pub ack: Option<&'static str>,
    /// What is counted in a second.
    pub unit: &'static str,
    /// By the subject's name.
    pub subjects: BTreeMap<&'static str, Figures>,
}

impl Row {
    /// Works out the figures of a measure.
    pub fn of(place: usize, measure: Measure, samples: &Samples) -> Row {
        let ack = match measure {
            Measure::Append { ack, .. } => Some(ack.name()),
            _ => None,
        };
        let figures = |(kind, own): (&Kind, &Vec<Sample>)| {
            let rates: Vec<f64> = own.iter().map(|sample| sample.rate).collect();
            let to = |other: Kind| {
                let rounds = rates.iter().zip(samples.get(&other)?);
                Spread::of(rounds.map(|(rate, other)| rate / other.rate))
            };
            let is_ours = matches!(kind, Kind::Dotlockfs | Kind::Asking);
            let units: f64 = own.iter().map(|sample| sample.units).sum();
            let cpu: Option<Duration> = own.iter().map(|sample| sample.cpu).sum();
            let figures = Figures {
                rate: Spread::of(rates.iter().copied())?,
                cpu_microseconds: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / units),
                from_disk: own.last()?.from_disk,
                to_plain: (*kind != Kind::Plain).then(|| to(Kind::Plain)).flatten(),
                to_bindfs: is_ours.then(|| to(Kind::Bindfs)).flatten(),
                samples: rates,
            };
            Some((kind.name(), figures))
        };
        Row {
            place,
            group: measure.group(),
            heading: measure.heading(),
            name: measure.name(),
            ack,
            unit: measure.unit(),
            subjects: samples.iter().filter_map(figures).collect(),
        }
    }
}

/// Memory of a daemon.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// The number of the place, from 0.
    pub place: usize,
    /// Whose daemon.
    pub subject: &'static str,
    /// How many files and directories it got to know.
    pub inodes: u64,
    /// How much larger it was after that, in bytes.
    pub bytes: u64,
    /// The same for each of them.
    pub bytes_per_inode: f64,
}

/// Whether a daemon sleeps.
#[derive(Debug, Serialize)]
pub struct Idle {
    /// The number of the place, from 0.
    pub place: usize,
    /// How long nothing was asked of it.
    pub seconds: f64,
    /// How often its threads were woken in that time.
    pub woken: u64,
    /// How long after the last append that time began: old names are removed after a while.
    pub after_seconds: f64,
}

/// What became of the records that were appended through one kind of subject.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Records {
    /// Reported as appended.
    pub appended: u64,
    /// Not in the file.
    pub lost: u64,
    /// Lines that are no record.
    pub torn: u64,
    /// Records that are there once more.
    pub doubled: u64,
    /// Files in which a writer's records are not in the order in which it wrote them.
    pub disordered_files: u64,
}

impl Records {
    /// Adds the verdict on one file.
    pub fn add(&mut self, verdict: Verdict) {
        self.appended += verdict.expected;
        self.lost += verdict.expected - verdict.kept;
        self.torn += verdict.torn;
        self.doubled += verdict.doubled;
        self.disordered_files += u64::from(!verdict.in_order);
    }

    /// Whether every record is there, once, whole and in its place.
    pub fn are_kept(&self) -> bool {
        [self.lost, self.torn, self.doubled, self.disordered_files] == [0; 4]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64) -> Sample {
        Sample {
            rate,
            units: 100.0,
            cpu: Some(Duration::from_millis(10)),
            from_disk: None,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        let of_three = spread(&[5.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (of_three.median, of_three.least, of_three.most),
            (2.0, 1.0, 5.0)
        );
        assert_eq!(spread(&[4.0, 1.0]).unwrap().median, 2.5);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let rates = |rates: &[f64]| rates.iter().copied().map(sample).collect::<Vec<_>>();
        let samples = Samples::from([
            (Kind::Plain, rates(&[10.0, 100.0])),
            (Kind::Dotlockfs, rates(&[5.0, 200.0])),
            (Kind::Bindfs, rates(&[5.0, 50.0])),
        ]);
        let row = Row::of(0, Measure::Stat, &samples);
        let ours = &row.subjects["dotlockfs"];
        let to_plain = ours.to_plain.unwrap();
        assert_eq!((to_plain.least, to_plain.most), (0.5, 2.0));
        assert_eq!(ours.to_bindfs.unwrap().most, 4.0);
        assert_eq!(ours.cpu_microseconds, Some(100.0));
        assert!(row.subjects["plain"].to_plain.is_none());
        assert!(row.subjects["bindfs"].to_bindfs.is_none());
    }

    #[test]
    fn without_bindfs_there_is_no_ratio_to_it() {
        let samples = Samples::from([(Kind::Dotlockfs, vec![sample(1.0)])]);
        let row = Row::of(0, Measure::Stat, &samples);
        let ours = &row.subjects["dotlockfs"];
        assert!(ours.to_bindfs.is_none() && ours.to_plain.is_none());
    }
}
