//! Sigmas other than those of picked times: spread over their range by a rule of their own, each
//! then standing for the time whose noise is as strong.

use super::schedule::linspace;
use crate::error::Result;
use crate::models::config::Config;

/// By which rule sigmas are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// They are those of the times.
    Times,
    /// By the seventh root (Karras et al., arXiv:2206.00364).
    Karras,
    /// By the logarithm.
    Exponential,
    /// By the logarithm, too, each standing for a whole time (Lu et al., arXiv:2206.00927).
    Lu,
}

impl Spread {
    /// From `use_karras_sigmas`, `use_exponential_sigmas` and, where `lu`, `use_lu_lambdas`.
    pub(super) fn read(config: &Config, lu: bool) -> Result<Self> {
        let mut on = Vec::new();
        for (field, spread) in [
            ("use_karras_sigmas", Self::Karras),
            ("use_exponential_sigmas", Self::Exponential),
            ("use_lu_lambdas", Self::Lu),
        ] {
            if (spread != Self::Lu || lu) && config.boolean_or(field, false)? {
                on.push(spread);
            }
        }
        match on[..] {
            [] => Ok(Self::Times),
            [spread] => Ok(spread),
            _ => Err(config.error(
                "only one of `use_karras_sigmas`, `use_exponential_sigmas` and `use_lu_lambdas` \
                 can be on",
            )),
        }
    }

    /// `steps` sigmas from `max` down to `min`; none where they are those of the times.
    pub(super) fn sigmas(self, max: f64, min: f64, steps: usize) -> Option<Vec<f64>> {
        match self {
            Self::Times => None,
            Self::Karras => Some(
                linspace(max.powf(1. / 7.), min.powf(1. / 7.), steps)
                    .into_iter()
                    .map(|root| root.powi(7))
                    .collect(),
            ),
            Self::Exponential | Self::Lu => Some(
                linspace(max.ln(), min.ln(), steps)
                    .into_iter()
                    .map(f64::exp)
                    .collect(),
            ),
        }
    }
}

/// The time at which the noise is `sigma`, between those of `sigmas`, which rise with time.
pub(super) fn time_of(sigma: f64, sigmas: &[f64]) -> f64 {
    let log = |sigma: f64| sigma.ln() as f32;
    let wanted = sigma.max(1e-10).ln();
    let below = sigmas.partition_point(|&known| f64::from(log(known)) <= wanted);
    let low = below.saturating_sub(1).min(sigmas.len() - 2);
    let (lower, upper) = (log(sigmas[low]), log(sigmas[low + 1]));
    let weight = ((f64::from(lower) - wanted) / f64::from(lower - upper)).clamp(0., 1.);
    (1. - weight) * low as f64 + weight * (low + 1) as f64
}

/// The sigma at `time`, between those of whole times.
pub(super) fn sigma_at(time: f64, sigmas: &[f64]) -> f64 {
    let low = (time as usize).min(sigmas.len() - 1);
    match sigmas.get(low + 1) {
        Some(&next) => sigmas[low] + (next - sigmas[low]) * (time - low as f64),
        None => sigmas[low],
    }
}

/// What follows the last sigma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalSigma {
    /// No noise at all.
    Zero,
    /// As much as at the first time of the training.
    Min,
}

impl FinalSigma {
    /// From `final_sigmas_type`.
    pub(super) fn read(config: &Config) -> Result<Self> {
        super::prediction::choice(
            config,
            "final_sigmas_type",
            "zero",
            &[("zero", Self::Zero), ("sigma_min", Self::Min)],
        )
    }

    /// `sigmas`, f32 numbers, with the last behind them; `known` are those of the training.
    pub(super) fn after(self, sigmas: impl IntoIterator<Item = f64>, known: &[f64]) -> Vec<f64> {
        let last = if self == Self::Zero { 0. } else { known[0] };
        sigmas
            .into_iter()
            .chain([last])
            .map(|sigma| f64::from(sigma as f32))
            .collect()
    }
}
