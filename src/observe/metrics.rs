//! What a daemon tells, as OpenMetrics text for Prometheus.
//!
//! There is one set of numbers for each mount, and none for single files: a collector keeps a series for
//! each value of a label for ever.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::mount::{Watched, calls_made};
use super::report::{Calls, Guard, State, Totals};
use crate::config::error::shown;

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The shortest and the longest bound in the histogram of waits, as powers of two of µs: 128 µs and
/// 134 s.
const BOUNDS: std::ops::RangeInclusive<usize> = 7..=27;

/// The metrics of a mount.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Those of this mount.
    pub fn of(watched: Arc<Watched>) -> Metrics {
        let mut registry = Registry::with_prefix("dotlockfs");
        registry.register_collector(Box::new(Mount(watched)));
        Metrics { registry }
    }

    /// How they are now.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

#[derive(Debug)]
struct Mount(Arc<Watched>);

impl Collector for Mount {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.0.totals();
        self.info(&mut encoder)?;
        counters(&mut encoder, &totals)?;
        calls(&mut encoder, &calls_made())?;
        gauges(&mut encoder, self.0.uptime_seconds(), &totals)?;
        standing(&mut encoder, &self.0.all_guards())?;
        self.waits(&mut encoder)
    }
}

fn counters(encoder: &mut DescriptorEncoder<'_>, totals: &Totals) -> fmt::Result {
    for (name, what, value) in [
        ("turns", "Turns taken", totals.turns),
        (
            "batches",
            "Pieces in which appends were written",
            totals.batches,
        ),
        (
            "appends",
            "Writes of programs that were appended",
            totals.appends,
        ),
        (
            "breaks",
            "Turns of others that were broken here",
            totals.breaks,
        ),
        (
            "turns_lost",
            "Turns of this mount that others have ended",
            totals.turns_lost,
        ),
        ("fences", "Files fenced here", totals.fences),
        ("timeouts", "Calls that failed with EAGAIN", totals.timeouts),
        (
            "deadlocks",
            "Calls that failed with EDEADLK",
            totals.deadlocks,
        ),
        (
            "interrupted",
            "Calls that a signal has ended while they waited",
            totals.interrupted,
        ),
        ("errors", "Calls that failed otherwise", totals.errors),
    ] {
        encoder
            .encode_descriptor(name, what, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    let what = "Bytes of the writes that were appended";
    encoder
        .encode_descriptor("appended", what, Some(&Unit::Bytes), MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&totals.appended_bytes, None)?;
    let what = "Calls that were refused";
    let mut refused = encoder.encode_descriptor("refused", what, None, MetricType::Counter)?;
    for (reason, value) in [
        ("stale", totals.refused_stale),
        ("denied", totals.refused_denied),
    ] {
        refused
            .encode_family(&[("reason", reason)])?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

fn calls(encoder: &mut DescriptorEncoder<'_>, made: &Calls) -> fmt::Result {
    let what = "System calls of the daemon that cost a way to the server";
    let mut family = encoder.encode_descriptor("calls", what, None, MetricType::Counter)?;
    for (call, value) in [
        ("link", made.link),
        ("getattr", made.getattr),
        ("write", made.write),
        ("sync", made.sync),
    ] {
        family
            .encode_family(&[("call", call)])?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, uptime: f64, totals: &Totals) -> fmt::Result {
    let what = "How long it is mounted";
    encoder
        .encode_descriptor("uptime", what, Some(&Unit::Seconds), MetricType::Gauge)?
        .encode_gauge(&uptime)?;
    let what = "The most appends in one piece so far";
    encoder
        .encode_descriptor("largest_batch", what, None, MetricType::Gauge)?
        .encode_gauge(&totals.largest_batch)
}

/// How the guards stand just now; all of them, not only as many as a report has.
fn standing(encoder: &mut DescriptorEncoder<'_>, guards: &[Guard]) -> fmt::Result {
    let longest = guards.iter().map(|guard| guard.waited_seconds);
    let what = "How long the call has waited that waits longest just now";
    encoder
        .encode_descriptor(
            "longest_wait",
            what,
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?
        .encode_gauge(&longest.fold(0.0, f64::max))?;
    let queued: usize = guards.iter().map(|guard| guard.queued).sum();
    encoder
        .encode_descriptor(
            "queued",
            "Calls that wait just now",
            None,
            MetricType::Gauge,
        )?
        .encode_gauge(&(queued as u64))?;
    let what = "Files that have a guard";
    let mut family = encoder.encode_descriptor("guards", what, None, MetricType::Gauge)?;
    for (name, state) in [
        ("free", State::Free),
        ("held", State::Held),
        ("waiting", State::Waiting),
    ] {
        let number = guards.iter().filter(|guard| guard.state == state).count();
        family
            .encode_family(&[("state", name)])?
            .encode_gauge(&(number as u64))?;
    }
    Ok(())
}

impl Mount {
    fn info(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let what = "What is mounted, and where";
        encoder
            .encode_descriptor("mount", what, None, MetricType::Info)?
            .encode_info(&[
                ("version", env!("CARGO_PKG_VERSION")),
                ("source", &shown(&self.0.source)),
                ("mountpoint", &shown(&self.0.mountpoint)),
            ])
    }

    fn waits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let times = self.0.overlay.guards().events().counts.waits.read();
        let mut buckets = Vec::new();
        let mut before = 0;
        for doublings in BOUNDS {
            let below = times.below(doublings);
            buckets.push(((1_u64 << doublings) as f64 / 1e6, below - before));
            before = below;
        }
        let count = times.count();
        buckets.push((f64::INFINITY, count - before));
        let what = "How long calls were queued before they were begun";
        encoder
            .encode_descriptor("wait", what, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(times.sum.as_secs_f64(), count, &buckets, None)
    }
}
