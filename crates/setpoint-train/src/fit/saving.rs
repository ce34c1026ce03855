//! When a checkpoint is due, and whether there is room for it.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::DType;

use crate::{Error, RunDir, TrainConfig, checkpoint, parameters};

/// Saving takes at most one part of this many of the time from one checkpoint to the next.
const SHARE: u32 = 20;

/// Tells when the next checkpoint is due by time.
#[derive(Debug)]
pub(super) struct SaveClock {
    /// `None`: never.
    every: Option<Duration>,
    /// When the last checkpoint was on the disk, or the process began.
    last: Instant,
    /// Time that it took.
    took: Duration,
}

impl SaveClock {
    /// A clock that starts now. `minutes`: 0 for never.
    pub(super) fn new(minutes: f64, now: Instant) -> Self {
        // What is too long for a duration is never.
        let every = Duration::try_from_secs_f64(60.0 * minutes).ok().filter(|_| minutes > 0.0);
        Self { every, last: now, took: Duration::ZERO }
    }

    /// Returns whether it is time.
    pub(super) fn due(&self, now: Instant) -> bool {
        let wait = |every: Duration| every.max(self.took.saturating_mul(SHARE - 1));
        self.every.is_some_and(|every| now.saturating_duration_since(self.last) >= wait(every))
    }

    /// Notes a checkpoint.
    pub(super) fn saved(&mut self, begun: Instant, now: Instant) {
        self.took = now.saturating_duration_since(begun);
        self.last = now;
    }
}

/// Bytes of what a run writes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    /// A checkpoint: the parameters that train, their two moments, and master weights where they are not f32.
    checkpoint: u64,
    /// The weights of the finished model.
    model: u64,
}

impl Sizes {
    fn of<M: Module>(model: &M, config: &TrainConfig) -> Self {
        let mut sizes = Self { checkpoint: 0, model: 0 };
        for info in parameters::list(model) {
            let elements = info.spec.shape.iter().product::<usize>();
            let bytes = (elements * info.spec.dtype.size()) as u64;
            sizes.model += bytes;
            if info.trains {
                let master = if info.spec.dtype == DType::F32 { 0.0 } else { 4.0 };
                let moments = config.optimizer.state.of(&info.spec.name, elements).bytes();
                let optimizer = if config.save_only_model { 0.0 } else { moments + master };
                sizes.checkpoint += bytes + (elements as f64 * optimizer) as u64;
            }
        }
        sizes
    }
}

/// Checks that the disk has room for a run, as [`RunDir::check_room`] does.
pub(super) fn check_room<M: Module>(run: &RunDir, config: &TrainConfig, model: &M) -> Result<(), Error> {
    check(run, config, Sizes::of(model, config))
}

impl RunDir {
    /// Checks that the disk holds two checkpoints (the newest and the one that is being written; three where the best is kept) and the
    /// finished model, less the checkpoints that are there. [`fit`](crate::fit) does it for its model; this is for those who do other long
    /// work first. The model has `parameters`, which all train, of `bytes` each.
    ///
    /// # Errors
    /// [`Error::DiskSpace`].
    pub fn check_room(&self, config: &TrainConfig, parameters: u64, bytes: u64) -> Result<(), Error> {
        let master = if bytes < 4 { 4.0 } else { 0.0 };
        let optimizer = if config.save_only_model { 0.0 } else { config.optimizer.state.bytes() + master };
        let state = (parameters as f64 * optimizer) as u64;
        check(self, config, Sizes { checkpoint: parameters * bytes + state, model: parameters * bytes })
    }
}

fn check(run: &RunDir, config: &TrainConfig, sizes: Sizes) -> Result<(), Error> {
    // Some file systems do not tell.
    let Some(free) = setpoint_files::free_space(run.path()) else { return Ok(()) };
    let there = checkpoint::list(&run.checkpoints_path())?.len();
    let checkpoints = 2 + u64::from(config.best.is_some());
    let needed = checkpoints.saturating_sub(there as u64).max(1) * sizes.checkpoint + sizes.model;
    if free < needed {
        return Err(Error::DiskSpace { path: run.path().to_path_buf(), needed, free, checkpoint: sizes.checkpoint });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saving_is_due_by_time_and_takes_a_twentieth_at_most() {
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut clock = SaveClock::new(10.0, start);
        assert_eq!([0.0, 599.0, 600.0].map(|s| clock.due(after(s))), [false, false, true]);
        // A second: the interval stays.
        clock.saved(after(600.0), after(601.0));
        assert_eq!([1200.0, 1201.0].map(|s| clock.due(after(s))), [false, true]);
        // Two minutes: 38 more go by before the next one, of which it is a twentieth.
        clock.saved(after(2000.0), after(2120.0));
        assert_eq!([2120.0 + 2279.0, 2120.0 + 2280.0].map(|s| clock.due(after(s))), [false, true]);
    }

    #[test]
    fn zero_and_what_no_clock_reaches_are_never() {
        let start = Instant::now();
        for minutes in [0.0, 1e300] {
            assert!(!SaveClock::new(minutes, start).due(start + Duration::from_secs(1 << 30)), "{minutes}");
        }
        // However short the interval is, a checkpoint that took long is not followed by the next at once.
        let mut clock = SaveClock::new(1e-9, start);
        assert!(clock.due(start + Duration::from_millis(1)));
        clock.saved(start, start + Duration::from_secs(1));
        assert!(!clock.due(start + Duration::from_secs(19)));
    }
}
