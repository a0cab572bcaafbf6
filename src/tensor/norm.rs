//! Group norm of large pictures. For channels-last ones on a CPU libtorch adds up a group's values
//! in one f32 sum, which over a quarter of a million pixels is off by 2e-5, and by ten times that
//! over a million.

use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// Up to this many pixels libtorch's own sums are near enough.
const LARGE: i64 = 1 << 14;

/// Pixels that are summed up at once. With fewer, libtorch takes a way that is slow for few
/// channels a group.
const BLOCK: i64 = 1 << 10;

/// `[n, channels, h, w]` with each of `groups` of channels brought to mean 0 and variance 1
/// (`epsilon` is added to it), then times `weight` plus `bias`, `[channels]` each.
///
/// # Errors
/// Model, where shapes do not fit; overload, where memory is short.
pub fn group_norm(
    x: &Tensor,
    groups: i64,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    match rows_of_block(x) {
        Some(rows) => in_blocks(x, rows, groups, [weight, bias], epsilon),
        None => Ok(x.f_group_norm(groups, Some(weight), Some(bias), epsilon, true)?),
    }
}

/// The rows of a block, which the height is a multiple of, where the picture is one to take in
/// blocks.
fn rows_of_block(x: &Tensor) -> Option<i64> {
    let [_, channels, height, width] = x.size()[..] else {
        return None;
    };
    let pixels_lie_together = x.stride()[1..] == [1, width * channels, channels];
    if height * width <= LARGE
        || !pixels_lie_together
        || x.kind() != Kind::Float
        || x.device() != Device::Cpu
    {
        return None;
    }
    (1..height).find(|rows| height % rows == 0 && rows * width >= BLOCK)
}

fn in_blocks(
    x: &Tensor,
    rows: i64,
    groups: i64,
    [weight, bias]: [&Tensor; 2],
    epsilon: f64,
) -> Result<Tensor> {
    let (batch, channels, height, width) = x.size4()?;
    let (blocks, pixels) = (batch * height / rows, rows * width);
    let block = x
        .f_permute([0, 2, 3, 1])?
        .f_view([blocks, pixels, 1, channels])?
        .f_permute([0, 3, 1, 2])?;
    let none = None::<&Tensor>;
    let (_, means, deviations) =
        block.f_native_group_norm(none, none, blocks, channels, pixels, groups, epsilon)?;
    // The blocks' moments together are the picture's.
    let means = means.f_view([batch, -1, groups])?;
    let mean = means.f_mean_dim([1].as_slice(), true, Kind::Float)?;
    let variances = deviations
        .f_view([batch, -1, groups])?
        .f_pow_tensor_scalar(-2)?
        .f_add_(&means.f_sub(&mean)?.f_square()?)?;
    // Each variance has epsilon in it already.
    let deviation = variances
        .f_mean_dim([1].as_slice(), false, Kind::Float)?
        .f_sqrt()?
        .f_unsqueeze(-1)?;
    let scale = weight.f_view([1, groups, -1])?.f_div(&deviation)?;
    let shift = bias
        .f_view([1, groups, -1])?
        .f_sub(&mean.f_view([batch, groups, 1])?.f_mul(&scale)?)?;
    let channel = [batch, channels, 1, 1];
    Ok(shift
        .f_view(channel)?
        .f_addcmul(x, &scale.f_view(channel)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::channels_last;

    #[test]
    fn large_pictures_are_normed_as_in_f64() {
        let (weight, bias) = (
            Tensor::linspace(0.1, 0.9, 8, (Kind::Float, Device::Cpu)),
            Tensor::linspace(-0.5, 0.5, 8, (Kind::Float, Device::Cpu)),
        );
        for (batch, height, width) in [(1, 512, 512), (2, 130, 127), (1, 131, 131)] {
            let shape = [batch, 8, height, width];
            let noise = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
            let noise = (noise * 12.9898).sin().to_kind(Kind::Float);
            let x = channels_last(&(noise * 1.4 + 3.).reshape(shape)).unwrap();
            assert!(
                rows_of_block(&x).is_some() || height == 131,
                "a prime number of rows is one block"
            );
            let [x64, weight64, bias64] =
                [&x, &weight, &bias].map(|part| part.to_kind(Kind::Double));
            let expected = x64.group_norm(4, Some(&weight64), Some(&bias64), 1e-6, true);
            let found = group_norm(&x, 4, &weight, &bias, 1e-6).unwrap();
            let error =
                (&found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
            let allowed = if height == 131 { 2e-5 } else { 2e-6 };
            assert!(
                error < allowed && found.stride()[1] == 1,
                "{height}x{width}: {error}"
            );
        }
    }

    #[test]
    fn what_is_small_or_lies_in_planes_is_left_to_libtorch() {
        let of = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        assert!(rows_of_block(&of(&[1, 8, 512, 512])).is_none());
        assert!(rows_of_block(&channels_last(&of(&[1, 8, 128, 128])).unwrap()).is_none());
        assert!(
            rows_of_block(
                &channels_last(&of(&[1, 8, 512, 512]))
                    .unwrap()
                    .to_kind(Kind::BFloat16)
            )
            .is_none()
        );
        assert_eq!(
            rows_of_block(&channels_last(&of(&[1, 8, 512, 512])).unwrap()),
            Some(2)
        );
    }
}
