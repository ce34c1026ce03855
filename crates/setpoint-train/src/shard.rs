//! The owners of the optimizer's state, parameter by parameter.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::DType;

use crate::batch::deal;
use crate::{MomentsFormat, parameters};

/// The owner of each trained parameter: the device, counted from 0, that holds its moments and its master copy and moves it.
///
/// The unit is a parameter, so that its norm, its 8-bit blocks and its part of a checkpoint do not depend on the number of devices. They are
/// dealt out by size, the largest first, each to the device that has least. All devices come to the same owners.
#[derive(Debug)]
pub(crate) struct Owners(BTreeMap<String, usize>);

impl Owners {
    /// Deals the parameters of a model out to a number of devices.
    pub(crate) fn of<M: Module>(model: &M, state: MomentsFormat, devices: usize) -> Self {
        let trained: Vec<_> = parameters::list(model).into_iter().filter(|info| info.trains).collect();
        let bytes = trained.iter().map(|info| {
            let elements = info.spec.shape.iter().product();
            let master = if info.spec.dtype == DType::F32 { 0.0 } else { 4.0 };
            (elements as f64 * (state.of(&info.spec.name, elements).bytes() + master)) as usize
        });
        let shares = shares(&bytes.collect::<Vec<_>>(), devices).into_iter().enumerate();
        let owners = shares.flat_map(|(owner, share)| share.into_iter().map(move |parameter| (parameter, owner)));
        Self(owners.map(|(parameter, owner)| (trained[parameter].spec.name.clone(), owner)).collect())
    }

    /// Returns the owner of a parameter. One that does not train has none, and the first device finds that out.
    pub(crate) fn owner(&self, path: &str) -> usize {
        self.0.get(path).copied().unwrap_or(0)
    }
}

/// Deals parameters out; the parameters of each device by their index.
fn shares(bytes: &[usize], devices: usize) -> Vec<Vec<usize>> {
    let parameters: Vec<usize> = (0..bytes.len()).collect();
    deal(&parameters, devices, |parameter| bytes[parameter])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::common::Bag;

    #[test]
    fn every_parameter_has_one_owner_and_shares_are_about_equal() {
        // 7 · 4 + 4 · 4 + 4 + 4 numbers.
        let model = Bag::new(&Device::flex().autodiff());
        let owners = |devices| {
            let owners = Owners::of(&model, MomentsFormat::F32, devices);
            ["embedding", "layers.0.weight", "layers.0.bias", "head"].map(|path| owners.owner(path))
        };
        assert_eq!(owners(1), [0; 4]);
        assert_eq!(owners(2), [0, 1, 1, 1]);
        assert_eq!(owners(3), [0, 1, 2, 2]);
        // There are more devices than parameters.
        assert_eq!(owners(9), [0, 1, 2, 3]);
    }

    #[test]
    fn the_fullest_device_has_its_share_or_the_largest_parameter() {
        // Llama-3-8B: two tables and 32 layers of seven matrices.
        let (table, mlp, q, k) = (128_256 * 4096, 14_336 * 4096, 4096 * 4096, 1024 * 4096);
        let layers = (0..32).flat_map(|_| [mlp, mlp, mlp, q, q, k, k]);
        let parameters: Vec<usize> = [table, table].into_iter().chain(layers).collect();
        let whole: usize = parameters.iter().sum();
        for devices in [1, 2, 4, 8, 16, 32] {
            let of_device = |share: &Vec<usize>| share.iter().map(|&parameter| parameters[parameter]).sum::<usize>();
            let fullest = shares(&parameters, devices).iter().map(of_device).max().unwrap();
            let expected = (whole / devices).max(table);
            assert!(
                (expected..expected + expected / 100).contains(&fullest),
                "{devices} devices: {fullest}, {expected}"
            );
        }
    }
}
