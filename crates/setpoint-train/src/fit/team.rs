//! The devices of a run at work: each with a model and an optimizer of its own, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use burn::module::Module;
use setpoint_transformer::lora::MaskSeed;

use super::budget::{Budget, in_one_piece};
use super::meeting::Meeting;
use super::moving::Moving;
use super::step::{Measured, pass};
use crate::batch::deal;
use crate::device_failure::attempt;
use crate::devices::{copy_to, device_thread};
use crate::task::{Probes, probe};
use crate::{AdamW, BatchContext, DeviceGroup, Error, GradientSink, MicroBatch, OutOfMemory, Task, Trainable};

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
    /// The seed of its dropout.
    pub(super) masks: MaskSeed,
    /// The whole batch.
    pub(super) context: BatchContext<S>,
}

/// A result, or the memory that it lacked.
type Attempted<R> = Result<R, OutOfMemory>;

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

impl<M: Trainable> Member<M> {
    /// Asks the model about some parts of a batch, one after another.
    fn probe<T: Task<Model = M>>(
        &self,
        task: &T,
        parts: &[Vec<usize>],
        masks: MaskSeed,
        micro_batch: MicroBatch,
    ) -> Result<Attempted<Probes<T>>, Error> {
        let at_step = self.replica.model.at_step(masks);
        let model = at_step.as_ref().unwrap_or(&self.replica.model);
        attempt(|| {
            let mut probes = vec![];
            for part in parts {
                probes.extend(probe(task, model, part, micro_batch)?);
            }
            Ok(probes)
        })
    }

    /// Runs a share of a batch forward and backward. Its gradient waits for the others'.
    fn pass<T: Task<Model = M>>(
        &mut self,
        task: &T,
        step: &Step<T::Survey>,
        split: &[Vec<usize>],
    ) -> Result<Attempted<Measured>, Error> {
        // That of an attempt in which another device failed would only take memory.
        self.gradient = GradientSink::new();
        let done = attempt(|| {
            let (sink, mut measured) = pass(task, &self.replica.model, split, step)?;
            // A gradient that there was no memory for must be found before the others wait for it.
            measured.grad_norm = sink.norm();
            Ok((sink, measured))
        })?;
        Ok(done.map(|(sink, measured)| {
            self.gradient = sink;
            measured
        }))
    }

    /// Adds up the gradients of all devices.
    fn sum(self, works: bool) -> Result<Self, Halt> {
        let Self { replica, mut meeting, gradient } = self;
        let sum = if works { meeting.sum(gradient) } else { meeting.next() };
        Ok(Self { replica, meeting, gradient: sum.ok_or(Halt::Deserted)? })
    }

    /// Runs a share of a batch forward and backward, and moves the model on the way.
    fn advance<T: Task<Model = M>>(
        self,
        task: &T,
        step: &Step<T::Survey>,
        share: &[usize],
        learning_rate: f64,
    ) -> Result<(Self, Measured), Halt> {
        let Self { replica, meeting, .. } = self;
        let run = || Ok(Moving::new(replica, meeting, learning_rate).run(task, step, share));
        let done = attempt(run)?.map_err(|failed| in_one_piece(step.number, failed))?;
        let (replica, meeting, measured) = done?;
        Ok((Self { replica, meeting, gradient: GradientSink::new() }, measured))
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
                Order::Probe { parts, masks, micro_batch, reply } => {
                    let probes = self.probe(task, &parts, masks, micro_batch);
                    answer(probes.map(|probes| (self, probes)).map_err(Halt::Failed), &reply)
                }
                Order::Pass { step, split, reply } => {
                    let measured = self.pass(task, &step, &split);
                    answer(measured.map(|measured| (self, measured)).map_err(Halt::Failed), &reply)
                }
                Order::Sum { works, reply } => answer(self.sum(works).map(|member| (member, ())), &reply),
                Order::Advance { step, share, learning_rate, reply } => {
                    answer(self.advance(task, &step, &share, learning_rate), &reply)
                }
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
    Probe { parts: Vec<Vec<usize>>, masks: MaskSeed, micro_batch: MicroBatch, reply: Reply<Attempted<Probes<T>>> },
    Pass { step: Arc<Step<T::Survey>>, split: Vec<Vec<usize>>, reply: Reply<Attempted<Measured>> },
    Sum { works: bool, reply: Reply<()> },
    Advance { step: Arc<Step<T::Survey>>, share: Vec<usize>, learning_rate: f64, reply: Reply<Measured> },
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

    /// Deals a batch out to the devices.
    pub(super) fn deal(&self, task: &T, batch: &[usize]) -> Vec<Vec<usize>> {
        deal(batch, 1 + self.others.len(), |example| task.cost(example))
    }

    /// Asks the model about the examples of a batch, each device about its share.
    pub(super) fn probe(
        &self,
        task: &T,
        shares: &[Vec<usize>],
        masks: MaskSeed,
        budget: &Budget,
    ) -> Result<Attempted<Probes<T>>, Error> {
        let (parts, micro_batch) = (budget.probe_parts(task, shares), budget.micro_batch());
        let replies = order(&self.others, |other, reply| {
            let parts = parts[1 + other].clone();
            Order::Probe { parts, masks, micro_batch, reply }
        });
        let own = self.leader.probe(task, &parts[0], masks, micro_batch);
        let probes = together(settle(own.map_err(Halt::Failed), replies)?);
        Ok(probes.map(|probes| probes.into_iter().flatten().collect()))
    }

    /// Runs a batch forward and backward, each device its share. Nothing has happened if one of them ran out of memory.
    pub(super) fn pass(
        &mut self,
        task: &T,
        step: &Arc<Step<T::Survey>>,
        splits: &[Vec<Vec<usize>>],
    ) -> Result<Attempted<Measured>, Error> {
        let replies = order(&self.others, |other, reply| {
            let (step, split) = (step.clone(), splits[1 + other].clone());
            Order::Pass { step, split, reply }
        });
        let own = self.leader.pass(task, step, &splits[0]);
        Ok(together(settle(own.map_err(Halt::Failed), replies)?).map(added_up))
    }

    /// Adds up the gradients of all devices; the norm of the sum.
    pub(super) fn sum(self, shares: &[Vec<usize>], own_norm: f64) -> Result<(Self, f64), Error> {
        let Self { mut leader, others } = self;
        if others.is_empty() {
            return Ok((Self { leader, others }, own_norm));
        }
        leader.meeting.begin(shares);
        let replies = order(&others, |other, reply| Order::Sum { works: !shares[1 + other].is_empty(), reply });
        let (leader, _) = settle(leader.sum(true), replies)?;
        let norm = leader.gradient.norm();
        Ok((Self { leader, others }, norm))
    }

    /// Runs a batch forward and backward, on each device its share, and moves the models on the way.
    pub(super) fn advance(
        self,
        task: &T,
        step: &Arc<Step<T::Survey>>,
        shares: &[Vec<usize>],
        learning_rate: f64,
    ) -> Result<(Self, Measured), Error> {
        let Self { mut leader, others } = self;
        leader.meeting.begin(shares);
        let replies = order(&others, |other, reply| {
            let (step, share) = (step.clone(), shares[1 + other].clone());
            Order::Advance { step, share, learning_rate, reply }
        });
        let ((leader, own), parts) = settle(leader.advance(task, step, &shares[0], learning_rate), replies)?;
        let measured = added_up(std::iter::once(own).chain(parts).collect());
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

/// The results of all devices, or the memory that one of them lacked.
fn together<R>((own, others): (Attempted<R>, Vec<Attempted<R>>)) -> Attempted<Vec<R>> {
    std::iter::once(own).chain(others).collect()
}

/// The measurements of all devices, the first device's first. The norm is that of its gradient.
fn added_up(parts: Vec<Measured>) -> Measured {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_default();
    parts.for_each(|part| sum.add(part));
    sum
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
