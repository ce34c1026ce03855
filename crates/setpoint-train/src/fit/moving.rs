//! A step whose parameters move inside the backward pass.

use std::sync::mpsc::{Receiver, Sender, channel};

use burn::module::Module;
use burn::tensor::Tensor;
use setpoint_transformer::Part;

use super::replicas::{Replica, Replicas};
use super::step::{Measured, checked_loss, names, weighed};
use crate::batch::deal;
use crate::devices::side_by_side;
use crate::sink::norm_of;
use crate::task::accept_part;
use crate::{DeviceGroup, Error, GradientSink, MicroBatch, Survey, Task};

/// Runs the batch forward and backward, on each device in one piece, and moves each part of the model as soon as its gradient is complete.
///
/// # Errors
/// When the loss or the gradient is not finite. The model is lost then: parts of it may have moved already.
pub(super) fn move_in_backward<T: Task>(
    task: &T,
    replicas: Replicas<T::Model>,
    batch: &[usize],
    learning_rate: f64,
    step: u64,
    progress: f64,
) -> Result<(Replicas<T::Model>, Measured), Error> {
    let (batch, denominator) = weighed(task, batch, step)?;
    let survey = task.survey(&replicas.first().model, &batch, MicroBatch::Examples(batch.len()))?;
    let survey = Survey { progress, ..survey };
    let group = replicas.group().clone();
    let shares = deal(&batch, group.len(), |example| task.cost(example));
    let meetings = Meeting::of_all(&group, &shares);
    let work: Vec<_> = replicas.into_all().into_iter().zip(shares).zip(meetings).collect();
    let done = side_by_side(work, |_, ((replica, share), meeting)| {
        let moving = Moving { replica: Ok(replica), meeting, learning_rate, squares: vec![] };
        match share.as_slice() {
            [] => moving.follow(),
            share => moving.run(task, share, denominator, &survey, step),
        }
    });
    let (mut moved, mut measured, mut error) = (vec![], Measured::default(), None);
    for result in done {
        match result {
            Ok((replica, own)) => {
                measured.add(own);
                moved.push(replica);
            }
            Err(Halt::Failed(reason)) => error = error.or(Some(reason)),
            Err(Halt::Deserted) => {}
        }
    }
    if let Some(error) = error {
        return Err(error);
    }
    if moved.len() < group.len() {
        return Err(Error::Forward { reason: "a device stopped in the middle of a step".into() });
    }
    // All have moved by the same gradient; the first has its norm.
    let grad_norm = measured.grad_norm;
    if !grad_norm.is_finite() {
        let (quantity, examples) = ("gradient norm", names(task, &batch));
        return Err(Error::NonFinite { step, quantity, value: grad_norm, examples });
    }
    Ok((Replicas::of(group, moved), measured))
}

/// Why a device did not come to the end of its step.
enum Halt {
    Failed(Error),
    /// Another one failed, and tells why.
    Deserted,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A model on its way through its own backward pass.
struct Moving<M> {
    replica: Result<Replica<M>, Halt>,
    meeting: Meeting,
    learning_rate: f64,
    /// Of the gradients that have been used up.
    squares: Vec<Tensor<1>>,
}

impl<M: Module> Moving<M> {
    /// The step of a device with a share of the batch.
    fn run<T: Task<Model = M>>(
        mut self,
        task: &T,
        share: &[usize],
        denominator: f64,
        survey: &Survey,
        step: u64,
    ) -> Result<(Replica<M>, Measured), Halt> {
        let replica = self.replica?;
        let share = MicroBatch::Examples(share.len()).split(share, |example| task.cost(example)).concat();
        let forward = task.forward_surveyed(&replica.model, &share, denominator, survey)?;
        let loss = checked_loss(task, &share, &forward, step)?;
        let (metrics, responses) = (forward.metrics, forward.responses);
        let decoder = task.decoder();
        // A tied head adds to the gradient of the embeddings, which is complete only at the end.
        let embeddings = format!("{decoder}.embed_tokens.weight");
        let mut rest = GradientSink::new();
        let mut gradients = forward.loss.backward();
        rest.accept("", &replica.model, &mut gradients);
        self.replica = Ok(replica);
        self.accept(rest.take_all_but(&embeddings));
        if let Some(tape) = forward.tape {
            tape.backward(&mut gradients, &mut |part, gradients| {
                let block = matches!(part, Part::Block(..));
                accept_part(decoder, part, gradients, &mut rest);
                if block {
                    self.accept(rest.take_all_but(&embeddings));
                }
            });
        }
        self.accept(rest);
        let grad_norm = norm_of(self.squares);
        Ok((self.replica?, Measured { loss, grad_norm, metrics, responses, micro_batches: 1 }))
    }

    /// The step of a device that has nothing to compute and moves as the others do.
    fn follow(mut self) -> Result<(Replica<M>, Measured), Halt> {
        while let Some(sum) = self.meeting.next() {
            self.apply(sum);
        }
        Ok((self.replica?, Measured::default()))
    }

    /// Adds the other devices' gradients to these, and moves by them.
    fn accept(&mut self, sink: GradientSink) {
        // After a failure the others are not waited for, nor need they wait.
        if self.replica.is_err() {
            return;
        }
        match self.meeting.sum(sink) {
            Some(sum) => self.apply(sum),
            None => self.halt(Halt::Deserted),
        }
    }

    fn apply(&mut self, sink: GradientSink) {
        if sink.is_empty() {
            return;
        }
        self.squares.extend(sink.squares());
        if let Ok(replica) = std::mem::replace(&mut self.replica, Err(Halt::Deserted)) {
            match replica.step(sink, self.learning_rate, 1.0) {
                Ok(moved) => self.replica = Ok(moved),
                Err(error) => self.halt(Halt::Failed(error)),
            }
        }
    }

    /// Gives up and leaves the meeting, so that nobody waits.
    fn halt(&mut self, why: Halt) {
        self.replica = Err(why);
        self.meeting = Meeting::Alone;
    }
}

/// Where the devices of a step meet, part of the model after part. A device that fails leaves, and the others notice instead of waiting.
enum Meeting {
    Alone,
    /// The first device adds up.
    Leader {
        group: DeviceGroup,
        followers: Vec<Follower>,
    },
    /// The others hand in their gradients, if they have any, and are given the sums.
    Follower {
        to: Option<Sender<GradientSink>>,
        back: Receiver<GradientSink>,
    },
}

/// A follower as the leader sees it.
struct Follower {
    from: Option<Receiver<GradientSink>>,
    back: Sender<GradientSink>,
}

impl Meeting {
    /// The meeting as each device sees it.
    fn of_all(group: &DeviceGroup, shares: &[Vec<usize>]) -> Vec<Self> {
        let (mut followers, mut meetings) = (vec![], vec![]);
        for share in shares.iter().skip(1) {
            let (to, from) = if share.is_empty() { (None, None) } else { Some(channel()).unzip() };
            let (forth, back) = channel();
            followers.push(Follower { from, back: forth });
            meetings.push(Self::Follower { to, back });
        }
        let first = if followers.is_empty() { Self::Alone } else { Self::Leader { group: group.clone(), followers } };
        meetings.insert(0, first);
        meetings
    }

    /// The sum of what all devices have; nothing if one has left.
    fn sum(&self, sink: GradientSink) -> Option<GradientSink> {
        match self {
            Self::Alone => Some(sink),
            Self::Leader { group, followers } => {
                let mut sinks = vec![sink];
                for follower in followers {
                    sinks.push(match &follower.from {
                        Some(from) => from.recv().ok()?,
                        None => GradientSink::new(),
                    });
                }
                let mut sums = GradientSink::all_reduce(sinks, group).into_iter();
                let own = sums.next();
                for (follower, sum) in followers.iter().zip(sums) {
                    follower.back.send(sum).ok()?;
                }
                own
            }
            Self::Follower { to, back } => {
                if let Some(to) = to {
                    to.send(sink).ok()?;
                }
                back.recv().ok()
            }
        }
    }

    /// The next sum, for a device that has nothing to add.
    fn next(&self) -> Option<GradientSink> {
        match self {
            Self::Follower { back, .. } => back.recv().ok(),
            Self::Alone | Self::Leader { .. } => None,
        }
    }
}
