//! Seeded noise: the numbers that PyTorch's CPU generator gives for the same seed, so that a seed
//! means the same picture here and in diffusers, on every device. Matsumoto and Nishimura,
//! "Mersenne Twister" (1998); the reference is ATen's `MT19937RNGEngine.h` and
//! `DistributionTemplates.h`.

use std::f32::consts::TAU;

use tch::{Device, Tensor};

use crate::error::Result;

const WORDS: usize = 624;
const AHEAD: usize = 397;
/// Box and Muller's transform is done on blocks of this many numbers: the radius from the first
/// half, the angle from the second.
const BLOCK: usize = 16;

/// `torch.Generator("cpu").manual_seed(seed)`. Like PyTorch's it takes the lower 32 bits of the
/// seed.
#[derive(Debug, Clone)]
pub struct Generator {
    words: Box<[u32; WORDS]>,
    next: usize,
}

impl Generator {
    /// In the state that the seed stands for.
    pub fn seeded(seed: u64) -> Self {
        let mut words = Box::new([seed as u32; WORDS]);
        for at in 1..WORDS {
            let before = words[at - 1];
            words[at] = (before ^ (before >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(at as u32);
        }
        Self { words, next: WORDS }
    }

    /// Standard normal numbers, f32: those of `torch.randn(shape, generator=...)`, in a tensor of
    /// 16 or more.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn normal(&mut self, shape: &[i64], device: Device) -> Result<Tensor> {
        let values = self.normals(shape.iter().product::<i64>() as usize);
        Ok(Tensor::f_from_slice(&values)?
            .f_view(shape)?
            .f_to_device(device)?)
    }

    fn normals(&mut self, count: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..count.max(BLOCK)).map(|_| self.uniform()).collect();
        let whole = values.len() / BLOCK * BLOCK;
        values[..whole].chunks_exact_mut(BLOCK).for_each(to_normal);
        if whole < values.len() {
            // The last block begins before the end of the one before it, and is drawn again.
            let last = values.len() - BLOCK;
            values[last..].fill_with(|| self.uniform());
            to_normal(&mut values[last..]);
        }
        values.truncate(count);
        values
    }

    /// 24 random bits, in 0..1.
    fn uniform(&mut self) -> f32 {
        (self.bits() & 0xff_ffff) as f32 / 16_777_216.
    }

    fn bits(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for at in 0..WORDS {
            let both =
                (self.words[at] & 0x8000_0000) | (self.words[(at + 1) % WORDS] & 0x7fff_ffff);
            let odd = if both & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[at] = self.words[(at + AHEAD) % WORDS] ^ (both >> 1) ^ odd;
        }
        self.next = 0;
    }
}

fn to_normal(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (a, b) in radii.iter_mut().zip(angles) {
        let (radius, angle) = ((-2. * (1. - *a).ln()).sqrt(), TAU * *b);
        (*a, *b) = (radius * angle.cos(), radius * angle.sin());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::{goldens, relative_error};

    #[test]
    fn seeds_give_the_numbers_of_pytorch() {
        let goldens = goldens("diffusion_noise.safetensors");
        for (seed, shape) in [
            (0, &[4, 6, 8][..]),
            (1234, &[5, 7]),
            (5_000_000_001, &[1000]),
            (3, &[17]),
        ] {
            let mut generator = Generator::seeded(seed);
            for draw in 0..2 {
                let error = relative_error(
                    &generator.normal(shape, Device::Cpu).unwrap(),
                    &goldens[&format!("{seed}.{draw}")],
                );
                assert!(error < 1e-6, "seed {seed}, draw {draw}: {error}");
            }
        }
    }

    #[test]
    fn a_handful_is_the_beginning_of_a_block() {
        let few = Generator::seeded(1).normal(&[3], Device::Cpu).unwrap();
        assert!(
            few.equal(
                &Generator::seeded(1)
                    .normal(&[16], Device::Cpu)
                    .unwrap()
                    .narrow(0, 0, 3)
            )
        );
    }
}
