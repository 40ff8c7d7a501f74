//! What the guards of a mount have done so far, in numbers.
//!
//! They are counted on the way of every request, so nothing here locks, allocates or looks at a
//! clock. The numbers of one moment need not fit each other exactly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Turns taken by this host.
    Turns,
    /// Pieces in which appends were written.
    Batches,
    /// Writes of programs that were appended.
    Appends,
    /// Their bytes.
    AppendedBytes,
    /// Turns of other holders that were broken here.
    Breaks,
    /// Turns of this host that others have ended.
    Lost,
    /// Files that were fenced here.
    Fences,
    /// Replacements and updates refused with ESTALE. (The kernel asks once more where a path led to
    /// that, so one call of a program may count twice.)
    Stale,
    /// Opens and truncations refused with EROFS.
    Denied,
    /// Calls that have waited for too long, or would not wait: EAGAIN.
    Timeouts,
    /// Calls that would have waited for ever: EDEADLK.
    Deadlocks,
    /// Calls that ended by a signal: EINTR.
    Interrupted,
    /// Appends that failed otherwise, and calls for which the lock could not be taken.
    Errors,
}

const NUMBER: usize = Count::Errors as usize + 1;

/// The numbers of one mount.
#[derive(Debug)]
pub struct Counts {
    numbers: [AtomicU64; NUMBER],
    largest_batch: AtomicU64,
    /// How long each job was queued before it was begun.
    pub waits: Histogram,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            numbers: [const { AtomicU64::new(0) }; NUMBER],
            largest_batch: AtomicU64::new(0),
            waits: Histogram::default(),
        }
    }
}

impl Counts {
    /// So many more.
    pub fn add(&self, what: Count, number: u64) {
        self.numbers[what as usize].fetch_add(number, Ordering::Relaxed);
    }

    /// `appends` of `bytes` together were written in one piece.
    pub fn batch(&self, appends: usize, bytes: usize) {
        self.add(Count::Batches, 1);
        self.add(Count::Appends, appends as u64);
        self.add(Count::AppendedBytes, bytes as u64);
        raise(&self.largest_batch, appends as u64);
    }

    /// How many so far.
    pub fn get(&self, what: Count) -> u64 {
        self.numbers[what as usize].load(Ordering::Relaxed)
    }

    /// The most appends that were written in one piece.
    pub fn largest_batch(&self) -> u64 {
        self.largest_batch.load(Ordering::Relaxed)
    }
}

/// Few values raise it, so mostly it is only read.
fn raise(highest: &AtomicU64, value: u64) {
    if highest.load(Ordering::Relaxed) < value {
        highest.fetch_max(value, Ordering::Relaxed);
    }
}

/// Buckets for each doubling of the time: their width is at most a quarter of their start.
const PARTS: usize = 4;
/// Times from 2^40 µs on, 12 days, are one.
const DOUBLINGS: usize = 40;
const BUCKETS: usize = DOUBLINGS * PARTS;

/// How many times were how long, to an eighth of the time.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64; BUCKETS]>,
    /// Of all of them, in µs.
    sum: AtomicU64,
    longest: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: Box::new([const { AtomicU64::new(0) }; BUCKETS]),
            sum: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }
}

/// The bucket of a time in µs.
fn bucket_of(micros: u64) -> usize {
    let Some(doubling) = micros.checked_ilog2() else {
        return 0;
    };
    // The two bits below the first.
    let part = match doubling {
        0 => 0,
        1 => (micros & 1) * 2,
        _ => (micros >> (doubling - 2)) & 3,
    };
    (doubling as usize * PARTS + part as usize).min(BUCKETS - 1)
}

/// Where a bucket begins, in µs; the first one begins at 0.
fn start_of(bucket: usize) -> f64 {
    let (doubling, part) = (bucket / PARTS, bucket % PARTS);
    match bucket {
        0 => 0.0,
        _ => (1_u64 << doubling) as f64 * (1.0 + part as f64 / PARTS as f64),
    }
}

impl Histogram {
    /// One more.
    pub fn add(&self, time: Duration) {
        let micros = time.as_micros() as u64;
        self.buckets[bucket_of(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
        raise(&self.longest, micros);
    }

    /// What it holds now.
    pub fn read(&self) -> Times {
        let buckets = self.buckets.iter();
        Times {
            buckets: buckets
                .map(|bucket| bucket.load(Ordering::Relaxed))
                .collect(),
            sum: Duration::from_micros(self.sum.load(Ordering::Relaxed)),
            longest: Duration::from_micros(self.longest.load(Ordering::Relaxed)),
        }
    }
}

/// What a histogram held at some moment.
#[derive(Debug, Clone)]
pub struct Times {
    buckets: Vec<u64>,
    /// All of them together.
    pub sum: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Times {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time that this part of them, from 0 to 1, did not exceed: the middle of its bucket.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = (self.count() as f64 * part).ceil().max(1.0) as u64;
        let mut so_far = 0;
        for (bucket, number) in self.buckets.iter().enumerate() {
            so_far += number;
            if so_far >= rank {
                let middle = f64::midpoint(start_of(bucket), start_of(bucket + 1));
                return Duration::from_secs_f64(middle / 1e6).min(self.longest);
            }
        }
        Duration::ZERO
    }

    /// How many of them were shorter than 2^`doublings` µs.
    pub fn below(&self, doublings: usize) -> u64 {
        self.buckets.iter().take(doublings * PARTS).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        let mut last = 0;
        for micros in 0..100_000_u64 {
            let bucket = bucket_of(micros);
            assert!(bucket >= last, "{micros}");
            let (start, end) = (start_of(bucket), start_of(bucket + 1));
            let time = micros as f64;
            // The one between 1 and 2 is never used, nor are two between 2 and 4.
            assert!(start <= time && time < end, "{micros}: {start} to {end}");
            last = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_close() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), Duration::ZERO);
        for millis in 1..=1000 {
            histogram.add(Duration::from_millis(millis));
        }
        let times = histogram.read();
        assert_eq!(times.count(), 1000);
        assert_eq!(times.longest, Duration::from_secs(1));
        assert_eq!(times.sum, Duration::from_millis(500_500));
        for (part, exact) in [(0.5, 0.5), (0.99, 0.99), (1.0, 1.0)] {
            let found = times.quantile(part).as_secs_f64();
            assert!((found - exact).abs() <= exact / 8.0, "{part}: {found}");
        }
        // 2^17 µs are 131.072 ms.
        assert_eq!(times.below(17), 131);
        assert_eq!(times.below(21), 1000);
    }

    #[test]
    fn no_quantile_exceeds_the_longest() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_millis(3));
        let times = histogram.read();
        assert!(times.quantile(0.5) <= Duration::from_millis(3));
        assert!(times.quantile(0.5) >= Duration::from_micros(2_600));
        assert_eq!(times.quantile(0.0), times.quantile(1.0));
    }
}
