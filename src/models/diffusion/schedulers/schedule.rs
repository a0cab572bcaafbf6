//! How strong the noise is at each time that a network was trained at, and which of those times are
//! picked for a generation. Numbers are rounded where PyTorch and NumPy round them, so that the
//! picked times are the same ones.

use tch::{Device, Kind, Tensor};

use super::prediction::choice;
use crate::error::{Error, Result};
use crate::models::config::Config;

#[derive(Debug, Clone, Copy)]
enum Betas {
    Linear,
    ScaledLinear,
    SquaredCosine,
}

/// What the betas of a class are where its configuration says nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct BetaDefaults {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) schedule: &'static str,
}

impl BetaDefaults {
    /// Of all classes but LCM's.
    pub(super) const USUAL: Self = Self {
        start: 1e-4,
        end: 0.02,
        schedule: "linear",
    };
}

/// How much of the picture is left at each time of the training: the products of 1 - beta up to
/// there, f32 numbers.
#[derive(Debug)]
pub(super) struct Schedule {
    alphas: Vec<f64>,
}

impl Schedule {
    /// From `beta_schedule`, `beta_start`, `beta_end`, `num_train_timesteps` and `trained_betas`;
    /// with `zero_snr`, betas are rescaled so that the last time is pure noise (Lin et al.,
    /// arXiv:2305.08891).
    pub(super) fn read(config: &Config, defaults: BetaDefaults, zero_snr: bool) -> Result<Self> {
        let mut betas = betas(config, defaults)?;
        if zero_snr {
            betas = rescaled(&betas)?;
        }
        let products = betas.f_neg()?.f_add_scalar_(1.)?.f_cumprod(0, None)?;
        Ok(Self {
            alphas: Vec::<f32>::try_from(&products)?
                .into_iter()
                .map(f64::from)
                .collect(),
        })
    }

    /// As [`read`](Self::read), for classes that reckon in sigmas: the last time keeps so much of
    /// the picture that sigma is finite.
    pub(super) fn read_finite(
        config: &Config,
        defaults: BetaDefaults,
        zero_snr: bool,
    ) -> Result<Self> {
        let mut schedule = Self::read(config, defaults, zero_snr)?;
        if let Some(last) = schedule.alphas.last_mut().filter(|_| zero_snr) {
            *last = 2f64.powi(-24);
        }
        Ok(schedule)
    }

    /// Times of the training.
    pub(super) fn len(&self) -> usize {
        self.alphas.len()
    }

    /// The product at `time`; none before the first.
    pub(super) fn alpha(&self, time: i64) -> Option<f64> {
        usize::try_from(time)
            .ok()
            .and_then(|time| self.alphas.get(time))
            .copied()
    }

    /// The noise's deviation over the picture's factor at each time, f32 numbers.
    pub(super) fn sigmas(&self) -> Vec<f64> {
        self.alphas
            .iter()
            .map(|&alpha| f64::from(((1. - alpha as f32) / alpha as f32).sqrt()))
            .collect()
    }

    /// Refuses more steps than there are times.
    pub(super) fn check(&self, steps: usize) -> Result<()> {
        if steps <= self.len() {
            return Ok(());
        }
        Err(Error::config(format!(
            "{steps} steps are more than the {} times that the network was trained at",
            self.len()
        )))
    }
}

fn betas(config: &Config, defaults: BetaDefaults) -> Result<Tensor> {
    let count = config.integer_or("num_train_timesteps", 1000)?;
    if let Some(trained) = config.field("trained_betas") {
        let numbers: Option<Vec<f32>> = trained.as_array().and_then(|list| {
            list.iter()
                .map(|number| Some(number.as_f64()? as f32))
                .collect()
        });
        return match numbers {
            Some(numbers) if numbers.len() as i64 == count && count > 0 => {
                Ok(Tensor::f_from_slice(&numbers)?)
            }
            _ => {
                Err(config.error("`trained_betas` must be a list of `num_train_timesteps` numbers"))
            }
        };
    }
    let (start, end) = (
        config.number_or("beta_start", defaults.start)?,
        config.number_or("beta_end", defaults.end)?,
    );
    if count == 0 || !(0. ..1.).contains(&start) || !(0. ..1.).contains(&end) {
        return Err(config
            .error("`num_train_timesteps` must be above 0, `beta_start` and `beta_end` in 0..1"));
    }
    let options = (Kind::Float, Device::Cpu);
    let kinds = [
        ("linear", Betas::Linear),
        ("scaled_linear", Betas::ScaledLinear),
        ("squaredcos_cap_v2", Betas::SquaredCosine),
    ];
    Ok(
        match choice(config, "beta_schedule", defaults.schedule, &kinds)? {
            Betas::Linear => Tensor::f_linspace(start, end, count, options)?,
            Betas::ScaledLinear => {
                Tensor::f_linspace(start.sqrt(), end.sqrt(), count, options)?.f_square()?
            }
            Betas::SquaredCosine => Tensor::f_from_slice(&squared_cosine(count))?,
        },
    )
}

/// The betas whose products follow a squared cosine (Nichol and Dhariwal, arXiv:2102.09672), none
/// above 0.999.
fn squared_cosine(count: i64) -> Vec<f32> {
    let product = |time: i64| {
        ((time as f64 / count as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
            .cos()
            .powi(2)
    };
    (0..count)
        .map(|time| (1. - product(time + 1) / product(time)).min(0.999) as f32)
        .collect()
}

/// Algorithm 1 of arXiv:2305.08891.
fn rescaled(betas: &Tensor) -> Result<Tensor> {
    let roots = betas
        .f_neg()?
        .f_add_scalar_(1.)?
        .f_cumprod(0, None)?
        .f_sqrt()?;
    let (first, last) = (roots.f_get(0)?, roots.f_get(-1)?);
    let factor = first.f_div(&first.f_sub(&last)?)?;
    let products = roots.f_sub(&last)?.f_mul(&factor)?.f_square()?;
    let count = products.size1()?;
    let quotients = products
        .f_narrow(0, 1, count - 1)?
        .f_div(&products.f_narrow(0, 0, count - 1)?)?;
    Ok(Tensor::f_cat(&[products.f_narrow(0, 0, 1)?, quotients], 0)?
        .f_neg()?
        .f_add_scalar_(1.)?)
}

/// Which times are picked: Table 2 of arXiv:2305.08891.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

impl Spacing {
    /// From `timestep_spacing`.
    pub(super) fn read(config: &Config, default: &str) -> Result<Self> {
        let kinds = [
            ("linspace", Self::Linspace),
            ("leading", Self::Leading),
            ("trailing", Self::Trailing),
        ];
        choice(config, "timestep_spacing", default, &kinds)
    }

    /// `steps` of `count` times, falling; those of `Linspace` are not whole.
    pub(super) fn times(self, count: usize, steps: usize, offset: i64) -> Vec<f64> {
        match self {
            Self::Linspace => linspace(0., (count - 1) as f64, steps)
                .into_iter()
                .rev()
                .collect(),
            Self::Leading => (0..steps)
                .rev()
                .map(|step| (step * (count / steps)) as f64 + offset as f64)
                .collect(),
            Self::Trailing => falling(count as f64, count as f64 / steps as f64),
        }
    }
}

/// `np.linspace(start, stop, count)`.
pub(super) fn linspace(start: f64, stop: f64, count: usize) -> Vec<f64> {
    let step = if count > 1 {
        (stop - start) / (count - 1) as f64
    } else {
        0.
    };
    (0..count)
        .map(|index| {
            if index > 0 && index + 1 == count {
                stop
            } else {
                index as f64 * step + start
            }
        })
        .collect()
}

/// `np.arange(start, 0, -step).round() - 1`.
pub(super) fn falling(start: f64, step: f64) -> Vec<f64> {
    let count = (start / step).ceil() as usize;
    // NumPy counts by the step, and goes by the difference of its first two numbers.
    let step = start - (start - step);
    (0..count)
        .map(|index| (start - index as f64 * step).round_ties_even() - 1.)
        .collect()
}
