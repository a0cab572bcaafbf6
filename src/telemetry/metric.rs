//! What a metric is, and its handles in the recorder.
#![allow(
    clippy::disallowed_macros,
    reason = "the one place where names meet the recorder"
)]

use ::metrics::{Counter, Gauge, Histogram, Label, Unit};

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric's name and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// `opusflow_<part>_<thing>_<unit>[_total]`.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// What it is counted in.
    pub unit: Unit,
    /// The labels each of its series has.
    pub labels: &'static [&'static str],
    /// What it says, for the `# HELP` line.
    pub text: &'static str,
}

impl Metric {
    /// The cached handle of this counter, with `values` in the order of its labels. Made after
    /// [`super::Exporter::install`], else it counts into nothing.
    pub fn counter(&self, values: &[&str]) -> Counter {
        debug_assert_eq!(self.kind, MetricKind::Counter, "{}", self.name);
        ::metrics::counter!(self.name, self.labelled(values))
    }

    /// The cached handle of this gauge, with `values` in the order of its labels.
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert_eq!(self.kind, MetricKind::Gauge, "{}", self.name);
        ::metrics::gauge!(self.name, self.labelled(values))
    }

    /// The cached handle of this histogram, with `values` in the order of its labels.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        debug_assert_eq!(self.kind, MetricKind::Histogram, "{}", self.name);
        ::metrics::histogram!(self.name, self.labelled(values))
    }

    /// Tells the recorder its unit and text.
    pub(super) fn describe(&self) {
        let Self {
            name, unit, text, ..
        } = *self;
        match self.kind {
            MetricKind::Counter => ::metrics::describe_counter!(name, unit, text),
            MetricKind::Gauge => ::metrics::describe_gauge!(name, unit, text),
            MetricKind::Histogram => ::metrics::describe_histogram!(name, unit, text),
        }
    }

    fn labelled(&self, values: &[&str]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let pairs = self.labels.iter().zip(values);
        pairs
            .map(|(label, value)| Label::new(*label, value.to_string()))
            .collect()
    }
}
