//! How devices come to one gradient: the seam between the engine and what carries numbers from device to device.

use std::fmt::Debug;

use burn::tensor::Tensor;
use burn::tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};

/// Adds up what several devices have, so that each has the sum.
pub trait Collective: Debug + Send + Sync {
    /// Replaces each device's part with the sum of all devices' parts, for many parameters at once.
    ///
    /// The sum must be the same to the bit on every device: models that are moved by it would drift apart.
    ///
    /// # Shapes
    /// Parameters × devices, the devices in the same order every time; the parts of one parameter are `[n]` each, f32, on plain devices.
    fn all_reduce(&self, parameters: Vec<Vec<Tensor<1>>>) -> Vec<Vec<Tensor<1>>>;
}

/// The first device adds up, in the order of the devices, and every other is sent a copy: works between any devices, through the host where
/// there is no shorter way.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumOnFirst;

impl Collective for SumOnFirst {
    fn all_reduce(&self, parameters: Vec<Vec<Tensor<1>>>) -> Vec<Vec<Tensor<1>>> {
        let sum = |parts: Vec<Tensor<1>>| {
            let devices: Vec<_> = parts.iter().map(Tensor::device).collect();
            let sum = parts.into_iter().reduce(|sum, part| {
                let part = part.to_device(&sum.device());
                sum + part
            });
            // No devices, no parts.
            sum.map_or_else(Vec::new, |sum| devices.iter().map(|device| sum.clone().to_device(device)).collect())
        };
        parameters.into_iter().map(sum).collect()
    }
}

/// Burn's own collective, which on CUDA is NCCL: between GPUs of one machine that are different ones.
///
/// # Panics
/// On devices that have none (CPUs, wgpu), and where NCCL is not installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeAllReduce;

impl Collective for NativeAllReduce {
    fn all_reduce(&self, parameters: Vec<Vec<Tensor<1>>>) -> Vec<Vec<Tensor<1>>> {
        let start = |parts: Vec<Tensor<1>>| -> Vec<CollectiveTensor<1>> {
            let devices: Vec<_> = parts.iter().map(Tensor::device).collect();
            parts.into_iter().map(|part| all_reduce(part, ReduceOperation::Sum, devices.clone())).collect()
        };
        // All are on their way before the first is waited for.
        let sums: Vec<_> = parameters.into_iter().map(start).collect();
        sums.into_iter().map(|parts| parts.into_iter().map(CollectiveTensor::resolve).collect()).collect()
    }
}
