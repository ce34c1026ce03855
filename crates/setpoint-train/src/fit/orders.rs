//! What the first device of a run asks the others to do, and how they answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::tensor::TensorData;
use setpoint_transformer::lora::MaskSeed;

use super::step::Measured;
use super::team::{Member, Pace, Step};
use crate::sink::Squares;
use crate::task::Probes;
use crate::tensor_file::TensorSpec;
use crate::{Error, MicroBatch, OutOfMemory, Task};

/// A result, or the memory that it lacked.
pub(super) type Attempted<R> = Result<R, OutOfMemory>;

/// Why a device did not come to the end of its step.
pub(super) enum Halt {
    Failed(Error),
    /// Another one failed, and tells why.
    Deserted,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Answers an order; the device, if it can go on.
pub(super) fn answer<M, R>(done: Result<(Member<M>, R), Halt>, reply: &Reply<R>) -> Option<Member<M>> {
    let (member, result) = match done {
        Ok((member, result)) => (Some(member), Ok(result)),
        Err(halt) => (None, Err(halt)),
    };
    // An answer that nobody waits for any more is not needed either.
    let _ = reply.send(result);
    member
}

/// A request to a device, with the place of its answer.
pub(super) enum Order<T: Task> {
    Probe {
        parts: Vec<Vec<usize>>,
        masks: MaskSeed,
        micro_batch: MicroBatch,
        reply: Reply<Attempted<Probes<T>>>,
    },
    Pass {
        step: Arc<Step<T::Survey>>,
        split: Vec<Vec<usize>>,
        reply: Reply<Attempted<Measured>>,
    },
    Sum {
        works: bool,
        reply: Reply<Squares>,
    },
    Advance {
        step: Arc<Step<T::Survey>>,
        share: Vec<usize>,
        pace: Pace,
        reply: Reply<Measured>,
    },
    Apply {
        pace: Pace,
        reply: Reply<()>,
    },
    /// About the state of its optimizer.
    Describe {
        reply: Reply<BTreeMap<String, Vec<TensorSpec>>>,
    },
    Read {
        path: String,
        tensor: String,
        reply: Reply<Option<TensorData>>,
    },
}

pub(super) type Reply<R> = Sender<Result<R, Halt>>;

impl<T: Task> Order<T> {
    /// Answers that the device has failed.
    pub(super) fn refuse(self, error: Error) {
        fn fail<R>(reply: &Reply<R>, error: Error) {
            // An answer that nobody waits for any more is not needed either.
            let _ = reply.send(Err(Halt::Failed(error)));
        }
        match self {
            Self::Probe { reply, .. } => fail(&reply, error),
            Self::Pass { reply, .. } => fail(&reply, error),
            Self::Sum { reply, .. } => fail(&reply, error),
            Self::Advance { reply, .. } => fail(&reply, error),
            Self::Apply { reply, .. } => fail(&reply, error),
            Self::Describe { reply } => fail(&reply, error),
            Self::Read { reply, .. } => fail(&reply, error),
        }
    }
}

/// Gives each of the others, counted from 0, an order; where they will answer.
pub(super) fn order<T: Task, R>(
    others: &[Sender<Order<T>>],
    order: impl Fn(usize, Reply<R>) -> Order<T>,
) -> Vec<Receiver<Result<R, Halt>>> {
    let give = |(number, other): (usize, &Sender<Order<T>>)| {
        let (reply, answer) = channel();
        // One that is gone does not answer.
        let _ = other.send(order(number, reply));
        answer
    };
    others.iter().enumerate().map(give).collect()
}

/// Waits for the others' answers.
///
/// # Errors
/// The reason why a device failed, if one did.
pub(super) fn settle<O, R>(
    own: Result<O, Halt>,
    replies: Vec<Receiver<Result<R, Halt>>>,
) -> Result<(O, Vec<R>), Error> {
    let mut halts = vec![];
    let mut note = |halt| halts.push(halt);
    let own = own.map_err(&mut note).ok();
    let answers =
        replies.into_iter().filter_map(|reply| reply.recv().unwrap_or(Err(Halt::Deserted)).map_err(&mut note).ok());
    let answers: Vec<R> = answers.collect();
    match own {
        Some(own) if halts.is_empty() => Ok((own, answers)),
        _ => {
            let failed = halts.into_iter().find_map(|halt| match halt {
                Halt::Failed(error) => Some(error),
                Halt::Deserted => None,
            });
            Err(failed.unwrap_or_else(|| Error::Forward { reason: "a device stopped in the middle of a step".into() }))
        }
    }
}
