//! The devices of a run at work: each with a model and an optimizer of its own, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use burn::module::Module;

use super::meeting::Meeting;
use super::moving::Moving;
use super::step::{Measured, pass};
use crate::batch::deal;
use crate::devices::{copy_to, device_thread};
use crate::task::{Probes, probe};
use crate::{AdamW, BatchContext, DeviceGroup, Error, GradientSink, MicroBatch, Task};

/// A model and the optimizer that moves it, on one device.
pub(super) struct Replica<M> {
    pub(super) model: M,
    pub(super) optimizer: AdamW,
}

impl<M: Module> Replica<M> {
    pub(super) fn step(self, gradients: GradientSink, learning_rate: f64, scale: f64) -> Result<Self, Error> {
        let Self { model, mut optimizer } = self;
        let model = optimizer.step(model, gradients, learning_rate, scale)?;
        Ok(Self { model, optimizer })
    }
}

/// What all devices have to know of a step.
pub(super) struct Step<S> {
    /// The step, from 1.
    pub(super) number: u64,
    /// The whole batch.
    pub(super) context: BatchContext<S>,
    pub(super) micro_batch: MicroBatch,
    /// The learning rate, where parameters move inside the backward pass.
    pub(super) in_backward: Option<f64>,
}

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

/// A device at work. All hold the same bits, because all are moved by the same sums.
pub(super) struct Member<M> {
    pub(super) replica: Replica<M>,
    pub(super) meeting: Meeting,
    /// The gradient of the step over all devices, until the model is moved by it.
    pub(super) gradient: GradientSink,
}

impl<M: Module + Sync> Member<M> {
    /// Runs a share of a batch forward and backward, and adds up the gradients of all devices.
    fn compute<T: Task<Model = M>>(
        self,
        task: &T,
        step: &Step<T::Survey>,
        share: &[usize],
    ) -> Result<(Self, Measured), Halt> {
        if let Some(learning_rate) = step.in_backward {
            let Self { replica, meeting, .. } = self;
            let (replica, meeting, measured) = Moving::new(replica, meeting, learning_rate).run(task, step, share)?;
            return Ok((Self { replica, meeting, gradient: GradientSink::new() }, measured));
        }
        let Self { replica, mut meeting, .. } = self;
        let split = step.micro_batch.split(share, |example| task.cost(example));
        let (sink, measured) = pass(task, &replica.model, &split, step)?;
        let sum = if share.is_empty() { meeting.next() } else { meeting.sum(sink) };
        Ok((Self { replica, meeting, gradient: sum.ok_or(Halt::Deserted)? }, measured))
    }

    /// Moves the model by the gradient.
    fn apply(self, learning_rate: f64, scale: f64) -> Result<Self, Halt> {
        let Self { replica, meeting, gradient } = self;
        let replica = replica.step(gradient, learning_rate, scale)?;
        Ok(Self { replica, meeting, gradient: GradientSink::new() })
    }

    /// Follows orders until there are no more, or one cannot be carried out.
    fn serve<T: Task<Model = M>>(mut self, task: &T, orders: &Receiver<Order<T>>) {
        while let Ok(order) = orders.recv() {
            let done = match order {
                Order::Probe { share, micro_batch, reply } => {
                    let probes = probe(task, &self.replica.model, &share, micro_batch);
                    answer(probes.map(|probes| (self, probes)).map_err(Halt::Failed), &reply)
                }
                Order::Compute { step, share, reply } => answer(self.compute(task, &step, &share), &reply),
                Order::Apply { learning_rate, scale, reply } => {
                    answer(self.apply(learning_rate, scale).map(|member| (member, ())), &reply)
                }
            };
            match done {
                Some(member) => self = member,
                None => return,
            }
        }
    }
}

/// Answers an order; the device, if it can go on.
fn answer<M, R>(done: Result<(Member<M>, R), Halt>, reply: &Reply<R>) -> Option<Member<M>> {
    let (member, result) = match done {
        Ok((member, result)) => (Some(member), Ok(result)),
        Err(halt) => (None, Err(halt)),
    };
    // An answer that nobody waits for any more is not needed either.
    let _ = reply.send(result);
    member
}

/// What a device is asked to do, and where it answers.
enum Order<T: Task> {
    Probe { share: Vec<usize>, micro_batch: MicroBatch, reply: Reply<Probes<T>> },
    Compute { step: Arc<Step<T::Survey>>, share: Vec<usize>, reply: Reply<Measured> },
    Apply { learning_rate: f64, scale: f64, reply: Reply<()> },
}

type Reply<R> = Sender<Result<R, Halt>>;

/// All devices of a run. The first works on this thread and leads, every other on a thread of its own.
pub(super) struct Team<T: Task> {
    leader: Member<T::Model>,
    /// Where the others take their orders.
    others: Vec<Sender<Order<T>>>,
}

impl<T: Task> Team<T> {
    /// Copies a model and its optimizer, which are on the group's first device, to the others.
    pub(super) fn assemble<'scope>(
        scope: &'scope Scope<'scope, '_>,
        group: &DeviceGroup,
        task: &'scope T,
        replica: Replica<T::Model>,
    ) -> Self {
        let (meeting, seats) = Meeting::of(group);
        let devices = group.devices().iter().cloned().enumerate().skip(1);
        let others = devices.zip(seats).map(|((number, device), meeting)| {
            let (orders, received) = channel();
            let (model, optimizer) = (replica.model.clone(), replica.optimizer.clone());
            device_thread(scope, number, move || {
                let replica = Replica { model: copy_to(&device, model), optimizer: optimizer.on(&device) };
                let member = Member { replica, meeting, gradient: GradientSink::new() };
                member.serve(task, &received);
            });
            orders
        });
        let others = others.collect();
        Self { leader: Member { replica, meeting, gradient: GradientSink::new() }, others }
    }

    /// The model that is evaluated and saved, and its optimizer.
    pub(super) fn first(&self) -> &Replica<T::Model> {
        &self.leader.replica
    }

    /// The model, when the run is over.
    pub(super) fn into_model(self) -> T::Model {
        self.leader.replica.model
    }

    /// The gradient of the step.
    pub(super) fn gradient(&self) -> &GradientSink {
        &self.leader.gradient
    }

    /// Asks the model about the examples of a batch, each device about its share.
    pub(super) fn probe(&self, task: &T, batch: &[usize], micro_batch: MicroBatch) -> Result<Probes<T>, Error> {
        let shares = deal(batch, 1 + self.others.len(), |example| task.cost(example));
        let replies = order(&self.others, |other, reply| {
            let share = shares[1 + other].clone();
            Order::Probe { share, micro_batch, reply }
        });
        let own = probe(task, &self.first().model, &shares[0], micro_batch);
        let (mut probes, others) = settle(own.map_err(Halt::Failed), replies)?;
        probes.extend(others.into_iter().flatten());
        Ok(probes)
    }

    /// Runs a batch forward and backward, on each device its share, and adds up the gradients.
    pub(super) fn compute(
        self,
        task: &T,
        step: &Arc<Step<T::Survey>>,
        batch: &[usize],
    ) -> Result<(Self, Measured), Error> {
        let Self { mut leader, others } = self;
        let shares = deal(batch, 1 + others.len(), |example| task.cost(example));
        leader.meeting.begin(&shares);
        let replies = order(&others, |other, reply| {
            let (step, share) = (step.clone(), shares[1 + other].clone());
            Order::Compute { step, share, reply }
        });
        let ((leader, mut measured), parts) = settle(leader.compute(task, step, &shares[0]), replies)?;
        parts.into_iter().for_each(|part| measured.add(part));
        Ok((Self { leader, others }, measured))
    }

    /// Moves the model on every device.
    pub(super) fn apply(self, learning_rate: f64, scale: f64) -> Result<Self, Error> {
        let Self { leader, others } = self;
        let replies = order(&others, |_, reply| Order::Apply { learning_rate, scale, reply });
        let (leader, _) = settle(leader.apply(learning_rate, scale), replies)?;
        Ok(Self { leader, others })
    }
}

/// Gives each of the others, counted from 0, an order; where they will answer.
fn order<T: Task, R>(
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
fn settle<O, R>(own: Result<O, Halt>, replies: Vec<Receiver<Result<R, Halt>>>) -> Result<(O, Vec<R>), Error> {
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
