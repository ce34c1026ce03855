//! The devices of a run, and how work is spread over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, Scope, scope};

use burn::module::Module;
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

    /// Several devices. A CPU may occur more than once, to try out what several devices do; a GPU may not.
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

/// A model's copy on another device, with a graph where the original has one.
///
/// On a GPU every thread has a queue of its own, and Burn 0.22.1 does not always keep two threads in order that share a buffer which one of
/// them writes in place. So a copy is made, used and dropped on one thread.
pub(crate) fn copy_to<M: Module>(device: &Device, model: M) -> M {
    let home = model.devices().into_iter().next();
    model.fork(&home.iter().fold(device.clone(), Device::with_autodiff_context_from))
}

/// Starts the thread that works with a device of a group, counted from 0.
pub(crate) fn device_thread<'scope>(
    scope: &'scope Scope<'scope, '_>,
    device: usize,
    work: impl FnOnce() + Send + 'scope,
) {
    // As much stack as the main thread has.
    let thread = Builder::new().name(format!("device {device}")).stack_size(8 << 20);
    if let Err(error) = thread.spawn_scoped(scope, work) {
        panic!("no thread for device {device}: {error}");
    }
}

/// Hands pieces of work to the devices of a group, each the next piece as soon as it is free. `model` is on the first of them and copied to
/// the others, as soon as they have something to do. What comes back goes to `take` on this thread, as soon as it is there; with one device, in order.
///
/// # Errors
/// The first of `compute` or `take`; no further piece is begun then.
///
/// # Panics
/// When `compute` does.
pub fn distribute<M: Module + Sync, W: Sync, R: Send, E: Send>(
    devices: &DeviceGroup,
    model: &M,
    work: &[W],
    compute: impl Fn(&M, &W) -> Result<R, E> + Sync,
    take: &mut dyn FnMut(&W, R) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let piece = || work.get(next.fetch_add(1, Ordering::Relaxed));
    scope(|scope| {
        let (sender, results) = channel();
        // No more devices than there is work for.
        for (number, device) in devices.devices().iter().enumerate().take(work.len()).skip(1) {
            let (sender, piece, compute) = (sender.clone(), &piece, &compute);
            device_thread(scope, number, move || {
                let mut copy = None;
                while let Some(piece) = piece() {
                    let model = copy.get_or_insert_with(|| copy_to(device, model.clone()));
                    // Nobody listens any more after an error.
                    if sender.send((piece, compute(model, piece))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        while let Some(piece) = piece() {
            take(piece, compute(model, piece)?)?;
            results.try_iter().try_for_each(|(piece, result)| take(piece, result?))?;
        }
        results.into_iter().try_for_each(|(piece, result)| take(piece, result?))
    })
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Tensor;

    use super::*;

    #[derive(Module, Debug)]
    struct Number {
        value: Param<Tensor<1>>,
    }

    #[test]
    fn all_work_is_done_once_and_an_error_ends_it() {
        let model = Number { value: Param::from_data([7.0f32], &Device::flex()) };
        for devices in [1, 3] {
            let group = DeviceGroup::new(vec![Device::flex(); devices], SumOnFirst);
            let work: Vec<u64> = (0..50).collect();
            let mut taken = vec![];
            let compute = |model: &Number, &piece: &u64| {
                Ok::<_, &str>(1000 * u64::from(model.value.val().into_scalar::<f32>() as u32) + piece)
            };
            let mut take = |&piece: &u64, result: u64| {
                assert_eq!(result, 7000 + piece);
                taken.push(piece);
                Ok(())
            };
            distribute(&group, &model, &work, compute, &mut take).unwrap();
            taken.sort_unstable();
            assert_eq!(taken, work);

            let begun = AtomicUsize::new(0);
            let compute = |_: &Number, &piece: &u64| {
                begun.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(1));
                if piece == 3 { Err("the fourth") } else { Ok(()) }
            };
            let many: Vec<u64> = (0..1000).collect();
            assert_eq!(distribute(&group, &model, &many, compute, &mut |_, ()| Ok(())), Err("the fourth"));
            assert!(begun.into_inner() < 900);
            let full = distribute(&group, &model, &work, |_, _| Ok(()), &mut |_, ()| Err("full disk"));
            assert_eq!(full, Err("full disk"));
        }
    }

    #[test]
    #[should_panic]
    fn a_panic_on_any_device_is_passed_on() {
        let model = Number { value: Param::from_data([7.0f32], &Device::flex()) };
        let group = DeviceGroup::new(vec![Device::flex(); 2], SumOnFirst);
        let here = std::thread::current().id();
        let compute = |_: &Number, _: &u64| {
            assert_eq!(std::thread::current().id(), here, "the second device");
            std::thread::sleep(std::time::Duration::from_millis(5));
            Ok::<_, ()>(())
        };
        distribute(&group, &model, &[0; 20], compute, &mut |_, ()| Ok(())).unwrap();
    }
}
