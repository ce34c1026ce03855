//! A session: the devices that jobs compute on, and the program around them.

mod host;
pub mod memory;
mod meter;
mod place;
mod shared;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use setpoint_data::ExampleStore;
use setpoint_train::DeviceGroup;

pub use self::host::{Bar, FreeMemory, Hidden, Host, Printed, Silent, TextTable, TrialProcess};
pub use self::meter::{Lines, Meter, Pace, at_least, duration};
pub use self::place::{Hardware, Place};
pub use self::shared::{Cost, Shared};
use crate::failure::{Failure, Outcome};

/// The devices that jobs run on, and the amount of output.
#[derive(Debug, Clone)]
pub struct Session {
    /// The devices that train and score; what else there is to compute is on the first.
    pub devices: DeviceGroup,
    /// No progress bars.
    pub quiet: bool,
    /// The devices as a plan sees them: these, unless others are planned for.
    pub place: Place,
    /// The treatment of an output that exists.
    pub existing: Existing,
    /// Values that other processes compute as well: those of the other trials of a search.
    pub shared: Option<Shared>,
    /// The bytes of a data set's rows that are kept in memory; beyond them, rows go to a file without a name.
    pub rows_in_memory: usize,
    /// The program around the jobs.
    pub host: Arc<dyn Host>,
}

/// The treatment of an output that exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is written.
    #[default]
    Refuse,
    /// It is replaced.
    Overwrite,
    /// The rows of an interrupted command are kept.
    Continue,
}

impl Existing {
    /// Returns the choice of a command whose only flag about it is `--overwrite`.
    pub const fn given(overwrite: bool) -> Self {
        if overwrite { Self::Overwrite } else { Self::Refuse }
    }

    /// Fails if there is a file at a place and it may not be replaced.
    ///
    /// # Errors
    /// [`Failure::Run`], with the path.
    pub fn require_new(self, path: &Path) -> Outcome {
        if self == Self::Overwrite || !path.is_file() {
            return Ok(());
        }
        Err(Failure::run(format!("{} exists already", path.display()))
            .hint("give --overwrite to replace it, or another --output"))
    }
}

/// A guard of [`Session::watch`].
#[derive(Debug)]
pub struct Watch(Arc<dyn Host>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.watched(false);
    }
}

impl Session {
    /// Creates a session on one device or several, which are taken for CPUs: for GPUs, set [`place`](Self::place) as well. It shows nothing.
    pub fn new(devices: DeviceGroup) -> Self {
        let place = Place::new(Hardware::CPU, devices.len(), None);
        Self {
            devices,
            quiet: false,
            place,
            existing: Existing::default(),
            shared: None,
            rows_in_memory: ExampleStore::IN_MEMORY,
            host: Arc::new(Silent),
        }
    }

    /// Creates a session on one device; see [`new`](Self::new).
    pub fn on(device: Device) -> Self {
        Self::new(DeviceGroup::single(device))
    }

    /// Returns the first device, without autodiff.
    pub fn device(&self) -> &Device {
        self.devices.first()
    }

    /// Returns the value of a key: from the shared ones if there are such, else computed.
    ///
    /// # Errors
    /// The errors of `key` and `compute`, and when a shared file cannot be locked or written.
    pub fn once<V: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        key: impl FnOnce() -> Outcome<Value>,
        compute: impl FnOnce() -> Outcome<V>,
    ) -> Outcome<V> {
        match &self.shared {
            Some(shared) => shared.once(what, &key()?, compute),
            None => compute(),
        }
    }

    /// Prints lines about the results.
    pub fn say(&self, lines: impl AsRef<str>) {
        self.host.print(Printed::Lines(lines.as_ref()));
    }

    /// Prints a table of results.
    pub fn show(&self, table: &TextTable) {
        self.host.print(Printed::Table(table));
    }

    /// Tells the host that a training looks at whether it should stop, until the guard is dropped.
    pub fn watch(&self) -> Watch {
        self.host.watched(true);
        Watch(self.host.clone())
    }

    /// Begins to show work of `total` items, `start` of which are done, unless the session is quiet. A bar is visible at once, so it is made
    /// when the start is known and everything that is said before the work has been said.
    pub fn bar(&self, what: &str, start: u64, total: u64) -> Box<dyn Bar> {
        if self.quiet { Box::new(Hidden) } else { self.host.bar(what, start, total) }
    }
}
