//! The memory of a training on other numbers of devices.

use std::fmt;

use serde::Serialize;

use super::MemoryPlan;
use crate::session::memory::size;

/// The numbers of devices that a plan for GPUs compares.
pub(super) const COUNTS: [usize; 4] = [1, 2, 8, 16];

/// The memory that a training would take on each of a number of devices.
///
/// # Units
/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OnDevices {
    /// The number of devices.
    pub devices: usize,
    /// The most that each needs at once.
    pub peak: f64,
    /// True if that fits, if the memory of a device is known.
    pub fits: Option<bool>,
    /// Its parts.
    pub memory: MemoryPlan,
}

impl OnDevices {
    /// Returns the memory on a number of devices.
    pub(super) fn of(devices: usize, memory: MemoryPlan) -> Self {
        Self { devices, peak: memory.peak(), fits: None, memory }
    }

    /// Writes the line of a plan.
    pub(super) fn write(all: &[Self], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if all.is_empty() {
            return Ok(());
        }
        let of = |on: &Self| {
            let fits = match on.fits {
                Some(true) => ", fits",
                Some(false) => ", does not fit",
                None => "",
            };
            format!("{}: {}{fits}", on.devices, size(on.peak))
        };
        writeln!(
            f,
            "devices   about this much at once on each of {}",
            all.iter().map(of).collect::<Vec<_>>().join("; ")
        )
    }
}
