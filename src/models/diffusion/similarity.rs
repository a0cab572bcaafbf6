//! How alike two frames are, so that near-duplicates need not be painted again, and how much a
//! painted stream flickers. Both look at luma made small by averaging areas: a camera's noise
//! averages out, and pictures of different sizes can be compared.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// The longer side that frames are compared at for near-duplicates.
pub const GLANCE: i64 = 64;

/// The longer side that flicker is measured at: fine enough for shimmering texture.
pub const LOOK: i64 = 256;

/// Red, green and blue in luma (ITU-R BT.601).
const WEIGHTS: [f32; 3] = [0.299, 0.587, 0.114];

/// Side and step of the windows that structure is compared in.
const WINDOW: i64 = 8;
const STEP: i64 = 4;

/// Keep quotients of small numbers quiet: (0.01)^2 and (0.03)^2 of the range, as in the paper.
const C1: f64 = 1e-4;
const C2: f64 = 9e-4;

/// A frame's luma, made small.
#[derive(Debug)]
pub struct Luma(Tensor);

impl Luma {
    /// Of a frame, bytes `[h, w, 3]`, whose longer side becomes `longest` at most.
    ///
    /// # Errors
    /// Model, where the frame has another shape.
    pub fn of(frame: &Tensor, longest: i64) -> Result<Self> {
        let size = frame.size();
        if size.len() != 3 || size[2] != 3 || size.contains(&0) || frame.kind() != Kind::Uint8 {
            return Err(Error::model(format!(
                "a frame must be bytes [h, w, 3], got {:?} of {size:?}",
                frame.kind()
            )));
        }
        let (height, width) = (size[0], size[1]);
        let side = |side: i64| (side * longest.min(height.max(width)) / height.max(width)).max(1);
        let weights = Tensor::f_from_slice(&WEIGHTS)?
            .f_div_scalar_(255.)?
            .f_to_device(frame.device())?;
        let luma = frame
            .f_to_kind(Kind::Float)?
            .f_matmul(&weights)?
            .f_unsqueeze(0)?;
        Ok(Self(
            luma.f_adaptive_avg_pool2d([side(height), side(width)])?
                .f_squeeze_dim(0)?,
        ))
    }

    /// Mean structural similarity, -1..1, 1 for the same picture: Wang et al., "Image Quality
    /// Assessment: From Error Visibility to Structural Similarity" (2004), in square windows of 8
    /// pixels.
    ///
    /// # Errors
    /// Model, where the two are not of one size.
    pub fn similarity(&self, other: &Self) -> Result<f64> {
        self.check(other)?;
        let (a, b) = (&self.0, &other.0);
        let size = a.size();
        let window = [size[0].min(WINDOW), size[1].min(WINDOW)];
        let all = Tensor::f_stack(
            &[
                a.shallow_clone(),
                b.shallow_clone(),
                a.f_square()?,
                b.f_square()?,
                a.f_mul(b)?,
            ],
            0,
        )?;
        let means = all
            .f_unsqueeze(0)?
            .f_avg_pool2d(window, [STEP, STEP], [0, 0], false, true, None)?
            .f_squeeze_dim(0)?;
        let mean = |index| means.f_select(0, index);
        let (a, b) = (mean(0)?, mean(1)?);
        let (both, squares) = (a.f_mul(&b)?, a.f_square()?.f_add_(&b.f_square()?)?);
        let variances = mean(2)?.f_add(&mean(3)?)?.f_sub_(&squares)?;
        let covariance = mean(4)?.f_sub(&both)?;
        let above = both
            .f_mul_scalar(2.)?
            .f_add_scalar_(C1)?
            .f_mul_(&covariance.f_mul_scalar(2.)?.f_add_scalar_(C2)?)?;
        let below = squares
            .f_add_scalar(C1)?
            .f_mul_(&variances.f_add_scalar(C2)?)?;
        Ok(above
            .f_div(&below)?
            .f_mean(Kind::Float)?
            .f_double_value(&[])?)
    }

    /// How much each pixel has changed since `before`, without sign.
    fn change(&self, before: &Self) -> Result<Tensor> {
        self.check(before)?;
        Ok(self.0.f_sub(&before.0)?.f_abs_()?)
    }

    fn check(&self, other: &Self) -> Result<()> {
        if self.0.size() == other.0.size() {
            return Ok(());
        }
        Err(Error::model(format!(
            "frames of {:?} and {:?} pixels cannot be compared",
            self.0.size(),
            other.0.size()
        )))
    }
}

/// The flicker of a segment: how much more its painted frames change than the frames they were
/// painted from, `mean over t and pixels of max(0, |P(t) - P(t-1)| - |S(t) - S(t-1)|)` in levels of
/// luma, 0..255. A still picture of a still scene has 0, as has a painted stream that changes no
/// more than its source.
#[derive(Debug, Default)]
pub struct Flicker {
    before: Option<[Luma; 2]>,
    total: f64,
    pairs: u64,
}

impl Flicker {
    /// The next frame and what was painted of it, of one size.
    ///
    /// # Errors
    /// Model, where the two are not of one size, or not of that of those before.
    pub fn push(&mut self, source: Luma, painted: Luma) -> Result<()> {
        source.check(&painted)?;
        if let Some([source_before, painted_before]) = &self.before {
            let excess = painted
                .change(painted_before)?
                .f_sub_(&source.change(source_before)?)?
                .f_relu_()?;
            self.total += 255. * excess.f_mean(Kind::Float)?.f_double_value(&[])?;
            self.pairs += 1;
        }
        self.before = Some([source, painted]);
        Ok(())
    }

    /// The figure since it was last asked for, where there were two frames; the last stays the one
    /// that the next is compared with.
    pub fn since(&mut self) -> Option<f64> {
        let (total, pairs) = (
            std::mem::take(&mut self.total),
            std::mem::take(&mut self.pairs),
        );
        (pairs > 0).then(|| total / pairs as f64)
    }

    /// The figure so far, and a start from nothing: none with fewer than two frames.
    pub fn take(&mut self) -> Option<f64> {
        let Self { total, pairs, .. } = std::mem::take(self);
        (pairs > 0).then(|| total / pairs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::{film, noise};
    use tch::Device;

    fn grey(level: u8) -> Tensor {
        Tensor::full([36, 64, 3], i64::from(level), (Kind::Uint8, Device::Cpu))
    }

    fn similarity(a: &Tensor, b: &Tensor) -> f64 {
        Luma::of(a, GLANCE)
            .unwrap()
            .similarity(&Luma::of(b, GLANCE).unwrap())
            .unwrap()
    }

    #[test]
    fn the_same_frame_is_similar_and_another_scene_is_not() {
        let film = film(40, 90, 160);
        assert!((similarity(&film.get(3), &film.get(3)) - 1.).abs() < 1e-5);
        let (next, cut) = (
            similarity(&film.get(3), &film.get(4)),
            similarity(&film.get(36), &film.get(37)),
        );
        assert!(next > 0.8 && cut < 0.4, "{next} {cut}");
    }

    #[test]
    fn plain_pictures_have_the_similarity_of_the_formula() {
        let (a, b) = (100. / 255., 150. / 255.);
        let expected = (2. * a * b + C1) / (a * a + b * b + C1);
        let found = similarity(&grey(100), &grey(150));
        assert!((found - expected).abs() < 1e-3, "{found}, not {expected}");
        let inverted = noise("a", &[36, 64, 3]).bitwise_xor(255);
        assert!(similarity(&noise("a", &[36, 64, 3]), &inverted) < -0.5);
    }

    #[test]
    fn noise_of_a_camera_averages_out() {
        let frame = film(1, 720, 1280).get(0);
        let noisy = |seed| {
            (frame.to_kind(Kind::Float)
                + (noise(seed, &[720, 1280, 3]).to_kind(Kind::Float) - 127.5) / 12.)
                .clamp(0., 255.)
        };
        let (a, b) = (
            noisy("a").to_kind(Kind::Uint8),
            noisy("b").to_kind(Kind::Uint8),
        );
        assert!(similarity(&a, &b) > 0.97, "{}", similarity(&a, &b));
    }

    #[test]
    fn sizes_are_kept_in_proportion() {
        assert_eq!(
            Luma::of(&noise("a", &[360, 640, 3]), GLANCE)
                .unwrap()
                .0
                .size(),
            [36, 64]
        );
        assert_eq!(
            Luma::of(&noise("a", &[20, 10, 3]), GLANCE)
                .unwrap()
                .0
                .size(),
            [20, 10]
        );
        assert_eq!(
            Luma::of(&noise("a", &[640, 2, 3]), GLANCE)
                .unwrap()
                .0
                .size(),
            [64, 1]
        );
        let luma = Luma::of(&noise("a", &[6, 3, 3]), GLANCE).unwrap();
        assert!(
            (luma.similarity(&luma).unwrap() - 1.).abs() < 1e-5,
            "smaller than a window"
        );
        assert!(Luma::of(&noise("a", &[1, 6, 3, 3]), GLANCE).is_err());
        let other = Luma::of(&noise("a", &[3, 6, 3]), GLANCE).unwrap();
        assert_eq!(
            luma.similarity(&other).unwrap_err().kind(),
            crate::error::Kind::Model
        );
    }

    /// The flicker of a stream of grey sources and paintings.
    fn flicker(levels: &[(u8, u8)]) -> Option<f64> {
        let mut flicker = Flicker::default();
        for (source, painted) in levels {
            flicker
                .push(
                    Luma::of(&grey(*source), LOOK).unwrap(),
                    Luma::of(&grey(*painted), LOOK).unwrap(),
                )
                .unwrap();
        }
        flicker.take()
    }

    #[test]
    fn only_what_the_source_does_not_explain_flickers() {
        assert_eq!(flicker(&[(50, 90)]), None);
        assert_eq!(flicker(&[(50, 90), (50, 90), (50, 90)]), Some(0.));
        assert_eq!(
            flicker(&[(50, 90), (80, 95), (50, 120)]),
            Some(0.),
            "the source changes more"
        );
        let trembling = flicker(&[(50, 90), (50, 100), (50, 90), (54, 100)]).unwrap();
        assert!(
            (trembling - 26. / 3.).abs() < 1e-3,
            "10, 10 and 10 - 4 levels: {trembling}"
        );
    }

    #[test]
    fn a_figure_can_be_had_pair_by_pair() {
        let mut flicker = Flicker::default();
        let mut push = |source, painted| {
            flicker
                .push(
                    Luma::of(&grey(source), LOOK).unwrap(),
                    Luma::of(&grey(painted), LOOK).unwrap(),
                )
                .unwrap();
            flicker.since()
        };
        assert_eq!(push(50, 90), None);
        assert!((push(50, 100).unwrap() - 10.).abs() < 1e-3);
        assert!((push(52, 95).unwrap() - 3.).abs() < 1e-3);
    }

    #[test]
    fn taking_a_figure_begins_a_new_segment() {
        let mut flicker = Flicker::default();
        let luma = |level| Luma::of(&grey(level), LOOK).unwrap();
        flicker.push(luma(50), luma(50)).unwrap();
        flicker.push(luma(50), luma(60)).unwrap();
        assert!(flicker.take().is_some());
        flicker.push(luma(50), luma(200)).unwrap();
        assert_eq!(
            flicker.take(),
            None,
            "frames of the segment before are forgotten"
        );
    }
}
