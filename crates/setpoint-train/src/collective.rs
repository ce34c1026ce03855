//! How devices come to one gradient: the seam between the engine and what carries numbers from device to device.

use std::fmt::Debug;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor};

/// A way to add up what several devices have.
pub trait Collective: Debug + Send + Sync {
    /// Connects devices: a communicator for each, in their order.
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>>;
}

/// One device's end of a [`Collective`], used on the thread that works with the device.
pub trait Communicator: Send {
    /// Adds the tensors of all devices, the first to the first and so on. Every device calls it with as many tensors of the same lengths, and
    /// waits for the others.
    ///
    /// The sums must be the same to the bit on every device: models that are moved by them would drift apart. `None` where another device
    /// has gone.
    ///
    /// # Shapes
    /// `[n]` each, f32, on this end's device.
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>>;
}

/// The first device adds up, in the order of the devices, and every other takes a copy: works between any devices, through the host where
/// there is no shorter way.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumOnFirst;

impl Collective for SumOnFirst {
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>> {
        let (mut others, mut ends): (Vec<Other>, Vec<Box<dyn Communicator>>) = (vec![], vec![]);
        for device in devices.iter().skip(1) {
            let ((to, from), (forth, back)) = (channel(), channel());
            others.push(Other { from, back: forth });
            ends.push(Box::new(Contributor { device: device.clone(), to, back }));
        }
        ends.insert(0, Box::new(Adder { others }));
        ends
    }
}

/// The first device's end.
struct Adder {
    others: Vec<Other>,
}

/// Another device as the first sees it.
struct Other {
    from: Receiver<Vec<Tensor<1>>>,
    back: Sender<Vec<Tensor<1>>>,
}

impl Communicator for Adder {
    fn all_reduce(&mut self, mut sums: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        for other in &self.others {
            let parts = other.from.recv().ok()?;
            let add = |(sum, part): (Tensor<1>, Tensor<1>)| {
                let part = part.to_device(&sum.device());
                sum + part
            };
            sums = sums.into_iter().zip(parts).map(add).collect();
        }
        for other in &self.others {
            other.back.send(sums.clone()).ok()?;
        }
        Some(sums)
    }
}

/// Another device's end.
struct Contributor {
    device: Device,
    to: Sender<Vec<Tensor<1>>>,
    back: Receiver<Vec<Tensor<1>>>,
}

impl Communicator for Contributor {
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        self.to.send(parts).ok()?;
        // Fetched on this thread, as all that this device computes with.
        Some(self.back.recv().ok()?.into_iter().map(|sum| sum.to_device(&self.device)).collect())
    }
}

/// Burn's own collective, which on CUDA is NCCL: between GPUs of one machine that are different ones.
///
/// # Panics
/// When used on devices that have none (CPUs, wgpu), or where NCCL is not installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeAllReduce;

impl Collective for NativeAllReduce {
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>> {
        devices.iter().map(|_| Box::new(Rank { devices: devices.to_vec() }) as Box<dyn Communicator>).collect()
    }
}

struct Rank {
    devices: Vec<Device>,
}

impl Communicator for Rank {
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        let start = |part| all_reduce(part, ReduceOperation::Sum, self.devices.clone());
        // All are on their way before the first is waited for.
        let sums: Vec<CollectiveTensor<1>> = parts.into_iter().map(start).collect();
        Some(sums.into_iter().map(CollectiveTensor::resolve).collect())
    }
}
