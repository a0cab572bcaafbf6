//! `metrics.md`: every metric with its type, unit, labels and text.

use ::metrics::Unit;

use super::markdown::{code, codes, heading, page, table};
use crate::telemetry::names::{ALL, LABELS};
use crate::telemetry::{Metric, MetricKind};

pub(super) fn render() -> String {
    let mut page = page(
        "Metrics",
        "What `telemetry: { metrics: ADDRESS }` serves at `/metrics` in Prometheus' text format. \
         A counter only grows: ask for its `rate()`. A histogram comes as `_bucket`, `_sum` and \
         `_count`. The names may change until 1.0; the changelog says so.",
    );
    for group in ALL.chunk_by(|left, right| part(left) == part(right)) {
        heading(2, &code(&format!("{}_*", prefix(&group[0]))), &mut page);
        let rows: Vec<_> = group.iter().map(row).collect();
        let heads = ["metric", "type", "unit", "labels", "what it says"];
        table(heads, &rows, &mut page);
    }
    heading(2, "Labels", &mut page);
    let rows: Vec<_> = LABELS
        .iter()
        .map(|(label, text)| [code(label), (*text).to_owned()])
        .collect();
    table(["label", "what its values are"], &rows, &mut page);
    page
}

fn row(metric: &Metric) -> [String; 5] {
    let kind = match metric.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    let unit = match metric.unit {
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        _ => "",
    };
    [
        code(metric.name),
        kind.to_owned(),
        unit.to_owned(),
        codes(metric.labels),
        metric.text.to_owned(),
    ]
}

/// What a metric is about: the word after the crate's own, where its name has that.
fn part(metric: &Metric) -> &'static str {
    let rest = metric.name.strip_prefix("opusflow_");
    let rest = rest.unwrap_or(metric.name);
    rest.split_once('_').map_or(rest, |(part, _)| part)
}

fn prefix(metric: &Metric) -> String {
    let own = metric.name.starts_with("opusflow_");
    format!("{}{}", if own { "opusflow_" } else { "" }, part(metric))
}
