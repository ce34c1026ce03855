//! The kernels that a GPU is asked to run, for budgets of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use burn::tensor::Device;
use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};

/// Counts launches by the names of kernels.
struct Counter {
    /// The thread whose launches count; all of them if none is named.
    thread: Option<ThreadId>,
    counts: Mutex<BTreeMap<&'static str, usize>>,
}

impl LaunchObserver for Counter {
    fn launched(&self, kernel: &'static str) {
        if self.thread.is_none_or(|thread| thread == std::thread::current().id()) {
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(kernel).or_default() += 1;
        }
    }
}

/// Does some work on a device and returns how often it launched which kernel.
///
/// Counted are the launches of this thread. With fusion all launches of the process are counted, because a thread of the queue makes them.
/// Only one piece of work is counted at a time.
///
/// # Panics
/// If the device fails.
pub fn count_launches(device: &Device, work: impl FnOnce()) -> BTreeMap<&'static str, usize> {
    // A process has one observer of launches.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = (!cfg!(feature = "fusion")).then(|| std::thread::current().id());
    // What waits in a queue belongs to earlier work.
    device.sync().expect("the device works");
    let counter = Arc::new(Counter { thread, counts: Mutex::default() });
    let observation = LaunchObservation::new(counter.clone());
    work();
    device.sync().expect("the device works");
    drop(observation);
    std::mem::take(&mut *counter.counts.lock().unwrap_or_else(PoisonError::into_inner))
}
