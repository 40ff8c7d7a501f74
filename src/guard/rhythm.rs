//! How hosts that compete for a lock go round.
//!
//! A host that has work all the time would always be the first to take the next turn: it knows that
//! its own is over before anybody else can see it. So whoever has had a turn leaves one to each other
//! holder that was seen lately and has had none since. They are told apart by the processes in their
//! claims. If none of them takes the lock for as long as the next look of a waiter takes, they are not
//! waited for until they are seen again, or for a while: a waiter may have missed it, and would hardly
//! ever meet the moment between two of ours. With many holders not every turn is seen. So once as many
//! turns as there are others have gone by since ours, each may have had one, and none is waited for:
//! measured with eight hosts, each waited for others nearly all the time.
//!
//! Hence holders go round, and who waits knows when to look: turns are as long as they were.

use std::time::Duration;

use super::acquire::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::lock::Holder;

/// How long a turn is kept at the most while other hosts want one; longer only if it takes long to
/// get one.
const QUANTUM: Duration = Duration::from_millis(50);
/// The same while none is known to want one: another that comes along waits no longer than this.
pub(super) const LONGEST_TURN: Duration = Duration::from_millis(250);
/// How long a turn is kept after the queue ran empty: a program that writes line after line comes
/// back within this, and then pays no new turn. The first while other hosts want one.
const LINGER: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(10));
/// What a turn costs is worth it if it lasts for so many looks at another's; up to a limit, since there
/// are calls that wait no longer than for a few turns.
const LOOKS_PER_TURN: u32 = 10;
const LONG_QUANTUM: Duration = Duration::from_millis(100);
/// How long a turn is left to others, beside the time of their looks; and how much longer by who had
/// the last one: others must not wait longer for a third than that for them.
const LET_OTHERS: Duration = Duration::from_millis(12);
const LET_FIRST: u32 = 2;
const LONGEST_LEFT: Duration = Duration::from_millis(100);
/// How long the next is left to anybody after a turn that was as long as it may be: who waits
/// elsewhere is not known before it has had a turn, and would hardly ever meet the moment between two
/// of ours.
const LET_ANYBODY: Duration = Duration::from_millis(20);
/// How long a holder is not waited for that has not taken what was left to it, beside a round.
const PASSED: Duration = Duration::from_millis(250);
/// How long other hosts are taken to be interested after one of them had a turn, beside a round.
const INTEREST: Duration = Duration::from_secs(2);
/// The longest time that a round is taken to last.
const LONGEST_ROUND: Duration = Duration::from_secs(2);
/// The longest time that a look is taken to last.
const SLOWEST_LOOK: Duration = Duration::from_millis(200);
/// So many other holders are remembered.
const MANY: usize = 64;

/// What one guard knows of those who take turns with it.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    others: Vec<Other>,
    /// The last turn that was ours, when it ended, and whether it was as long as it may be.
    ours: Option<(u64, Duration, bool)>,
    /// The turn that we wait for, since when, and since when it is known to be over.
    watched: Option<(u64, Duration, Option<Duration>)>,
    /// How long the turns of others last.
    length: Option<Duration>,
    /// How long a look at a turn takes.
    look: Duration,
    /// We have taken a turn that was owed to others, and they have had none since.
    hurried: bool,
}

/// Another holder.
#[derive(Debug)]
struct Other {
    holder: Holder,
    /// Its last turn that we know of, and when we knew.
    turn: u64,
    seen: Duration,
    /// When it was found not to take what was left to it, if it was since.
    passed: Option<Duration>,
}

impl Other {
    fn is_recent(&self, now: Duration, round: Duration) -> bool {
        now.saturating_sub(self.seen) < INTEREST + round
    }
}

/// A mean in which the last few count most.
fn mean(so_far: Duration, now: Duration) -> Duration {
    (so_far * 3 + now) / 4
}

impl Rhythm {
    /// Turn `n` was seen to be held by `holder`. The look has taken `took`.
    pub fn sees(&mut self, n: u64, holder: Option<Holder>, took: Duration, now: Duration) {
        self.hurried = false;
        if self.watched.is_some_and(|(of, ..)| of == n) {
            self.look = mean(self.look, took.min(SLOWEST_LOOK));
        } else {
            // More than a look went before that.
            self.is_over(now);
            self.watched = Some((n, now, None));
        }
        let Some(holder) = holder else { return };
        let round = self.round();
        self.others
            .retain(|other| other.holder != holder && other.is_recent(now, round));
        if self.others.len() == MANY {
            self.others.remove(0);
        }
        self.others.push(Other {
            holder,
            turn: n,
            seen: now,
            passed: None,
        });
    }

    /// The turn that we have waited for is known to be over.
    fn is_over(&mut self, now: Duration) -> Duration {
        let Some((_, since, over)) = &mut self.watched else {
            return now;
        };
        if over.is_none() {
            let lasted = now.saturating_sub(*since).min(LONGEST_TURN);
            self.length = Some(self.length.map_or(lasted, |length| mean(length, lasted)));
        }
        *over.get_or_insert(now)
    }

    /// Turn `n` is over, and we could take the next: is that left to others? In a `hurry` it is not,
    /// but not twice in a row.
    pub fn leaves(&mut self, n: u64, hurry: bool, now: Duration) -> bool {
        let (since, is_last, was_long) = match (self.ours, self.watched) {
            (Some((ours, ended, was_long)), _) if ours == n => (ended, true, was_long),
            (_, Some((watched, ..))) if watched == n => (self.is_over(now), false, false),
            // When it ended is not known.
            _ => return false,
        };
        let left = now.saturating_sub(since);
        let ours = self.ours.map_or(0, |(ours, ..)| ours);
        let round = self.round();
        let is_owed = |other: &Other| {
            let is_passed = |at| now.saturating_sub(at) < PASSED + round;
            other.turn < ours && other.is_recent(now, round) && !other.passed.is_some_and(is_passed)
        };
        let others = self.others.iter();
        let many = others.filter(|other| other.is_recent(now, round)).count() as u64;
        let is_round_over = n.saturating_sub(ours) >= many;
        if !is_round_over && self.others.iter().any(is_owed) {
            let mut time = LET_OTHERS + self.look * 4;
            if is_last && self.others.len() > 1 {
                time = time * LET_FIRST + LONGEST_PAUSE;
            }
            if left < time.min(LONGEST_LEFT) {
                return self.is_left(hurry);
            }
            // None of them wants it.
            for other in self.others.iter_mut().filter(|other| is_owed(other)) {
                other.passed = Some(now);
            }
        }
        was_long && left < LET_ANYBODY && self.is_left(hurry)
    }

    /// A turn that could be left to others is, unless somebody is in a hurry, for the first time.
    fn is_left(&mut self, hurry: bool) -> bool {
        let goes_first = hurry && !self.hurried;
        self.hurried |= goes_first;
        !goes_first
    }

    /// Turn `n` is ours, at last.
    pub fn takes(&mut self, n: u64, now: Duration) {
        if self.watched.is_some_and(|(watched, ..)| watched + 1 == n) {
            self.is_over(now);
        }
        self.watched = None;
    }

    /// Turn `n`, which was taken at the time `taken`, is given back.
    pub fn ends(&mut self, n: u64, taken: Duration, now: Duration) {
        let was_long = now.saturating_sub(taken) >= LONGEST_TURN;
        self.ours = Some((n, now, was_long));
    }

    /// Whether another holder has been seen lately.
    pub fn is_contended(&self, now: Duration) -> bool {
        let round = self.round();
        self.others.iter().any(|other| other.is_recent(now, round))
    }

    /// How long a turn may last that is taken now, and how long it is kept without work.
    pub fn limits(&self, now: Duration) -> (Duration, Duration) {
        match self.is_contended(now) {
            true => (
                QUANTUM.max(self.look * LOOKS_PER_TURN).min(LONG_QUANTUM),
                LINGER.0,
            ),
            false => (LONGEST_TURN, LINGER.1),
        }
    }

    /// How long to wait before the next look at the turn that we wait for: the nearer its end, the
    /// shorter, and longer again when it lasts longer than others have.
    pub fn pause(&self, now: Duration) -> Duration {
        let waited = self
            .watched
            .map_or(Duration::ZERO, |(_, since, _)| now.saturating_sub(since));
        let away = waited.abs_diff(self.length());
        (away / 2).clamp(self.pause_while_left(), LONGEST_PAUSE)
    }

    /// How long to wait before the next look where a turn is left to others.
    pub fn pause_while_left(&self) -> Duration {
        self.look.clamp(FIRST_PAUSE, LONGEST_PAUSE)
    }

    fn length(&self) -> Duration {
        self.length.unwrap_or_default()
    }

    /// How long it takes until all have had a turn.
    fn round(&self) -> Duration {
        // Never more than `MANY`; some may be gone.
        (self.length() * self.others.len() as u32).min(LONGEST_ROUND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Identity;

    fn claim(number: u64) -> Option<Holder> {
        Some(Holder::of_claim(Identity {
            dev: 1,
            ino: number,
        }))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Whoever has had a turn leaves one to each of the others before the next.
    #[test]
    fn three_holders_go_round() {
        let mut rhythm = Rhythm::default();
        rhythm.sees(1, claim(11), ms(1), ms(0));
        rhythm.sees(2, claim(12), ms(1), ms(50));
        assert!(!rhythm.leaves(2, false, ms(100)), "they have had theirs");
        rhythm.takes(3, ms(100));
        rhythm.ends(3, ms(100), ms(150));
        assert!(rhythm.leaves(3, false, ms(151)));
        rhythm.sees(4, claim(12), ms(1), ms(152));
        assert!(rhythm.leaves(4, false, ms(200)), "the other has had none");
        rhythm.sees(5, claim(11), ms(1), ms(202));
        assert!(!rhythm.leaves(5, false, ms(250)));
    }

    /// Turns that were not seen count: with many holders each misses some.
    #[test]
    fn a_round_has_as_many_turns_as_there_are_others() {
        let mut rhythm = Rhythm::default();
        for n in 1..=3 {
            rhythm.sees(n, claim(10 + n), ms(1), ms(n * 50));
        }
        rhythm.takes(4, ms(200));
        rhythm.ends(4, ms(200), ms(250));
        rhythm.sees(5, claim(11), ms(1), ms(252));
        assert!(rhythm.leaves(5, false, ms(300)));
        // Turn 6 was somebody's.
        rhythm.sees(7, claim(11), ms(1), ms(380));
        assert!(!rhythm.leaves(7, false, ms(400)));
    }

    /// What is left to others and not taken is ours, and they are not waited for again.
    #[test]
    fn nobody_is_waited_for_in_vain_for_long() {
        let mut rhythm = Rhythm::default();
        rhythm.sees(1, claim(11), ms(1), ms(0));
        rhythm.takes(2, ms(50));
        rhythm.ends(2, ms(50), ms(60));
        assert!(rhythm.leaves(2, false, ms(61)));
        assert!(rhythm.leaves(2, false, ms(60 + 11)));
        assert!(!rhythm.leaves(2, false, ms(60 + 12)));
        rhythm.takes(3, ms(93));
        rhythm.ends(3, ms(93), ms(95));
        assert!(!rhythm.leaves(3, false, ms(96)));
        assert!(rhythm.is_contended(ms(96)), "though it may come again");
        // It may have missed it: after a while it is waited for once more.
        rhythm.takes(4, ms(380));
        rhythm.ends(4, ms(380), ms(430));
        assert!(rhythm.leaves(4, false, ms(431)));
        assert!(!rhythm.leaves(4, false, ms(430 + 12)));
        // Nor after a pause in which they could have taken it.
        rhythm.sees(5, claim(11), ms(1), ms(450));
        rhythm.takes(6, ms(460));
        rhythm.ends(6, ms(460), ms(465));
        assert!(!rhythm.leaves(6, false, ms(600)));
        assert!(!rhythm.leaves(8, false, ms(601)), "whose end was not seen");
    }

    /// A call that will not wait goes first, but not again before others have had a turn.
    #[test]
    fn haste_keeps_others_out_once_only() {
        let mut rhythm = Rhythm::default();
        rhythm.sees(1, claim(11), ms(1), ms(0));
        rhythm.takes(2, ms(50));
        rhythm.ends(2, ms(50), ms(60));
        assert!(!rhythm.leaves(2, true, ms(61)));
        rhythm.takes(3, ms(61));
        rhythm.ends(3, ms(61), ms(62));
        assert!(rhythm.leaves(3, true, ms(63)));
        rhythm.sees(4, claim(11), ms(1), ms(65));
        rhythm.takes(5, ms(115));
        rhythm.ends(5, ms(115), ms(116));
        assert!(!rhythm.leaves(5, true, ms(117)));
    }

    /// Who had the last turn waits longer for others than these wait for one that wants none.
    #[test]
    fn a_third_that_wants_nothing_costs_the_second_no_turn() {
        let (mut one, mut two) = (Rhythm::default(), Rhythm::default());
        // Holder 13 has had turn 1, we as `one` turn 2, and as `two` turn 3.
        one.sees(1, claim(13), ms(1), ms(0));
        one.takes(2, ms(50));
        one.ends(2, ms(50), ms(100));
        two.sees(1, claim(13), ms(1), ms(0));
        two.sees(2, claim(11), ms(1), ms(52));
        two.takes(3, ms(101));
        two.ends(3, ms(101), ms(150));
        one.sees(3, claim(12), ms(1), ms(103));
        // `one` sees the end late, and waits for holder 13 all the same.
        assert!(one.leaves(3, false, ms(158)));
        let first = (150..).find(|at| !two.leaves(3, false, ms(*at)));
        let second = (158..).find(|at| !one.leaves(3, false, ms(*at)));
        assert!(second < first, "{second:?} {first:?}");
    }

    /// After a turn that was as long as it may be, who is not known yet gets a chance.
    #[test]
    fn a_long_turn_is_followed_by_a_pause() {
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.limits(ms(0)).0, LONGEST_TURN);
        rhythm.takes(1, ms(0));
        rhythm.ends(1, ms(0), ms(250));
        assert!(rhythm.leaves(1, false, ms(260)));
        assert!(!rhythm.leaves(1, false, ms(271)));
    }

    /// Who waits looks most often where the end is expected.
    #[test]
    fn looks_come_closer_towards_the_end() {
        let mut rhythm = Rhythm::default();
        for n in 1..20 {
            rhythm.sees(n, claim(11), ms(1), ms(n * 50));
        }
        let pause = |at: u64| rhythm.pause(ms(19 * 50 + at));
        assert_eq!(pause(0), LONGEST_PAUSE);
        assert!(pause(40) < LONGEST_PAUSE);
        assert_eq!(pause(50), FIRST_PAUSE);
        assert_eq!(pause(500), LONGEST_PAUSE);
    }

    /// Where a look takes long, turns last longer.
    #[test]
    fn turns_are_longer_on_a_slow_network() {
        let mut rhythm = Rhythm::default();
        rhythm.sees(1, claim(11), ms(1), ms(0));
        assert_eq!(rhythm.limits(ms(1)).0, QUANTUM);
        for _ in 0..20 {
            rhythm.sees(1, claim(11), ms(15), ms(1));
        }
        assert_eq!(rhythm.limits(ms(2)).0, LONG_QUANTUM);
        assert_eq!(
            rhythm.limits(INTEREST * 2).0,
            LONGEST_TURN,
            "nobody is there"
        );
    }
}
