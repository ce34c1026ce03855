//! The devices of a run.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use burn::tensor::Device;

use crate::{Collective, SumOnFirst};

/// Devices that work at the same step, each with the whole model and a share of the batch, and the way in which their gradients are added
/// up.
///
/// The gradient of a step is the same whatever their number, but for rounding, because the loss is divided by the weight of the whole batch.
#[derive(Clone, Debug)]
pub struct DeviceGroup {
    /// Plain devices, at least one.
    devices: Vec<Device>,
    collective: Arc<dyn Collective>,
}

impl DeviceGroup {
    /// One device.
    pub fn single(device: Device) -> Self {
        Self { devices: vec![device.without_autodiff()], collective: Arc::new(SumOnFirst) }
    }

    /// Several devices; a device may occur more than once, if the collective allows it.
    ///
    /// # Panics
    /// Without a device.
    pub fn new(devices: Vec<Device>, collective: impl Collective + 'static) -> Self {
        assert!(!devices.is_empty(), "a group has at least one device");
        let devices = devices.into_iter().map(Device::without_autodiff).collect();
        Self { devices, collective: Arc::new(collective) }
    }

    /// The device on which a run evaluates, samples and saves.
    pub fn first(&self) -> &Device {
        &self.devices[0]
    }

    /// All devices, without autodiff.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Number of devices.
    #[allow(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    pub(crate) fn collective(&self) -> &dyn Collective {
        &*self.collective
    }
}

/// Does the work of every device at the same time, that of the first on this thread, and waits for all. Results are in the order of the
/// devices.
///
/// # Panics
/// When the work of one does, after all have ended.
pub(crate) fn side_by_side<I: Send, R: Send>(items: Vec<I>, work: impl Fn(usize, I) -> R + Sync) -> Vec<R> {
    let mut items = items.into_iter().enumerate();
    let Some((_, first)) = items.next() else {
        return vec![];
    };
    let work = &work;
    thread::scope(|scope| {
        let others: Vec<_> = items.map(|(index, item)| scope.spawn(move || work(index, item))).collect();
        let mut results = vec![work(0, first)];
        results.extend(others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))));
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_devices() {
        let slow_first = |index: usize, item: u64| {
            thread::sleep(std::time::Duration::from_millis(item));
            (index, item)
        };
        assert_eq!(side_by_side(vec![20, 10, 0], slow_first), [(0, 20), (1, 10), (2, 0)]);
        assert!(side_by_side(Vec::<u64>::new(), slow_first).is_empty());
    }

    #[test]
    #[should_panic(expected = "the second device")]
    fn a_panic_on_any_device_is_passed_on() {
        side_by_side(vec![0, 1], |index, _| assert_eq!(index, 0, "the second device"));
    }
}
