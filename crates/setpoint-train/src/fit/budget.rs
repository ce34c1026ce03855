//! The memory of a step: micro-batches become smaller if a device runs out of it.

use crate::{Error, MicroBatch, OutOfMemory, Task};

/// The size of a run's micro-batches.
pub(super) struct Budget {
    /// The size that the settings ask for; nothing if a batch cannot be split.
    asked: Option<MicroBatch>,
    micro_batch: MicroBatch,
}

impl Budget {
    /// The budget of a run, which may have come down to a smaller size earlier.
    pub(super) fn new(asked: MicroBatch, earlier: Option<MicroBatch>) -> Self {
        Self { asked: Some(asked), micro_batch: earlier.unwrap_or(asked) }
    }

    /// The budget of a batch that goes through in one piece.
    pub(super) fn whole(examples: usize) -> Self {
        Self { asked: None, micro_batch: MicroBatch::Examples(examples) }
    }

    pub(super) fn micro_batch(&self) -> MicroBatch {
        self.micro_batch
    }

    /// The size, if it is smaller than that of the settings.
    pub(super) fn lowered(&self) -> Option<MicroBatch> {
        self.asked.filter(|asked| *asked != self.micro_batch).map(|_| self.micro_batch)
    }

    /// Splits the shares of all devices into micro-batches.
    pub(super) fn split<T: Task>(&self, task: &T, shares: &[Vec<usize>]) -> Vec<Vec<Vec<usize>>> {
        shares.iter().map(|share| self.micro_batch.split(share, |example| task.cost(example))).collect()
    }

    /// Splits the shares into the parts that the model is asked about at once. A task bounds its passes itself, so a share is one part until
    /// that has proved too much.
    pub(super) fn probe_parts<T: Task>(&self, task: &T, shares: &[Vec<usize>]) -> Vec<Vec<Vec<usize>>> {
        match self.lowered() {
            Some(_) => self.split(task, shares),
            None => shares.iter().map(|share| vec![share.clone()]).collect(),
        }
    }

    /// Does some work of a step, and again with smaller micro-batches as long as a device runs out of memory. It must begin anew each time.
    ///
    /// # Errors
    /// The errors of the work, and [`Error::OutOfMemory`] if the shares cannot be split any further.
    pub(super) fn within<T: Task, R>(
        &mut self,
        task: &T,
        shares: &[Vec<usize>],
        step: u64,
        mut work: impl FnMut(&Self) -> Result<Result<R, OutOfMemory>, Error>,
    ) -> Result<R, Error> {
        loop {
            let failed = match work(self)? {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            if self.asked.is_none() {
                return Err(in_one_piece(step, failed));
            }
            match self.micro_batch.smaller(shares, |example| task.cost(example)) {
                Some(smaller) => self.micro_batch = smaller,
                None => return Err(one_by_one(step, failed)),
            }
        }
    }
}

/// The error of a device that cannot hold the smallest micro-batch.
fn one_by_one(step: u64, OutOfMemory { reason }: OutOfMemory) -> Error {
    let remedy = "with one example at a time, the smallest `train.micro_batch`: set `train.recompute = \"block\"` or a smaller `encode.max_length`";
    Error::OutOfMemory { work: format!("step {step}"), remedy, reason }
}

/// The error of a device that cannot hold a batch whose parameters move inside the backward pass.
pub(super) fn in_one_piece(step: u64, OutOfMemory { reason }: OutOfMemory) -> Error {
    let remedy = "and `train.optimizer.in_backward` cannot split a batch: set a smaller `train.batch_size` or `encode.max_length`, \
                  or turn it off and set a smaller `train.micro_batch`";
    Error::OutOfMemory { work: format!("step {step}"), remedy, reason }
}
