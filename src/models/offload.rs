//! Networks that lie on the CPU until they are used, so that the parts of a pipeline need the
//! memory of a GPU one after the other.

use tch::{Device, Tensor};

use crate::error::Result;

/// What is made of tensors: each can be reached and exchanged, so that a network can be moved to
/// another device and back.
pub trait Tensors {
    /// Calls `act` on every tensor, always in the same order.
    ///
    /// # Errors
    /// The first of `act`.
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()>;
}

impl<T: Tensors> Tensors for std::cell::RefCell<T> {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        self.get_mut().each(act)
    }
}

impl Tensors for Tensor {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        act(self)
    }
}

impl<T: Tensors> Tensors for Vec<T> {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        self.iter_mut().try_for_each(|part| part.each(act))
    }
}

impl<T: Tensors, const N: usize> Tensors for [T; N] {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        self.iter_mut().try_for_each(|part| part.each(act))
    }
}

impl<T: Tensors> Tensors for Option<T> {
    fn each(&mut self, act: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        self.iter_mut().try_for_each(|part| part.each(act))
    }
}

/// Says which fields of a struct are, or are made of, tensors.
macro_rules! tensors {
    ($name:ty { $($field:tt),+ $(,)? }) => {
        impl $crate::models::offload::Tensors for $name {
            fn each(&mut self, act: &mut dyn FnMut(&mut tch::Tensor) -> $crate::error::Result<()>) -> $crate::error::Result<()> {
                $($crate::models::offload::Tensors::each(&mut self.$field, act)?;)+
                Ok(())
            }
        }
    };
}
pub(crate) use tensors;

/// A network that is where it is needed: on its device all the time, or there only while it is
/// used.
#[derive(Debug)]
pub struct Offloaded<T> {
    network: T,
    /// Where it is brought, where it is brought at all.
    device: Option<Device>,
}

impl<T: Tensors> Offloaded<T> {
    /// A network that was made on `device`; with `offload` it is put aside on the CPU until it is
    /// used. On a CPU there is nowhere to go.
    ///
    /// # Errors
    /// Overload, where memory is short.
    pub fn build(mut network: T, device: Device, offload: bool) -> Result<Self> {
        let device = (offload && device != Device::Cpu).then_some(device);
        if device.is_some() {
            network.each(&mut |tensor| replace(tensor, Device::Cpu))?;
        }
        Ok(Self { network, device })
    }

    /// Uses the network on its device.
    ///
    /// # Errors
    /// Those of `work`; overload, where the device has no memory for it.
    pub fn with<R>(&mut self, work: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        let Some(device) = self.device else {
            return work(&self.network);
        };
        let mut home = Vec::new();
        let brought = self.network.each(&mut |tensor| {
            let there = tensor.f_to_device(device)?;
            home.push(std::mem::replace(tensor, there));
            Ok(())
        });
        let result = brought.and_then(|()| work(&self.network));
        // What was brought there goes, and the CPU's own take its place again: nothing is copied
        // back.
        let mut home = home.into_iter();
        self.network.each(&mut |tensor| {
            if let Some(own) = home.next() {
                *tensor = own;
            }
            Ok(())
        })?;
        result
    }

    /// The network wherever it is, for what it says of itself.
    pub fn network(&self) -> &T {
        &self.network
    }
}

fn replace(tensor: &mut Tensor, device: Device) -> Result<()> {
    *tensor = tensor.f_to_device(device)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        one: Tensor,
        many: Vec<Tensor>,
        none: Option<Tensor>,
    }

    tensors!(Pair { one, many, none });

    fn pair() -> Pair {
        let tensor = |value: f32| Tensor::from_slice(&[value]);
        Pair {
            one: tensor(1.),
            many: vec![tensor(2.), tensor(3.)],
            none: None,
        }
    }

    #[test]
    fn every_tensor_is_reached_in_order() {
        let mut seen = Vec::new();
        let mut pair = pair();
        pair.each(&mut |tensor| {
            seen.push(tensor.double_value(&[0]));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [1., 2., 3.]);
    }

    #[test]
    fn a_part_is_as_it_was_when_its_use_has_failed() {
        // Bringing a tensor to where it is already shares it, so the moves can be seen without a
        // second device.
        let mut part = Offloaded {
            network: pair(),
            device: Some(Device::Cpu),
        };
        let before = part.network().many[1].data_ptr();
        let failed = part.with(|_| Err::<(), _>(crate::error::Error::overload("no memory")));
        assert!(failed.is_err());
        assert_eq!(part.network().many[1].data_ptr(), before);
        assert_eq!(
            part.with(|pair| Ok(pair.one.double_value(&[0]))).unwrap(),
            1.
        );
    }
}
