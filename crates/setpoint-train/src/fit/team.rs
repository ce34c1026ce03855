//! The devices of a run at work: each with a model and an optimizer of its own, on a thread of its own.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use burn::module::Module;
use burn::tensor::TensorData;
use setpoint_transformer::lora::MaskSeed;

use super::budget::{Budget, in_one_piece};
use super::meeting::{Meeting, Sum};
use super::moving::Moving;
use super::orders::{Attempted, Halt, Order, answer, order, settle};
use super::step::{Measured, pass};
use crate::batch::deal;
use crate::checkpoint::Checkpoint;
use crate::device_failure::attempt;
use crate::devices::{copy_to, device_thread};
use crate::shard::Owners;
use crate::sink::{Squares, norm_of};
use crate::state_file::OptimizerState;
use crate::task::{Probes, probe};
use crate::tensor_file::TensorSpec;
use crate::{AdamW, AdamWConfig, BatchContext, DeviceGroup, Error, GradientSink, MicroBatch, Task, Trainable};

/// A model and the optimizer that moves it, on one device.
pub(super) struct Replica<M> {
    pub(super) model: M,
    pub(super) optimizer: AdamW,
}

impl<M: Module> Replica<M> {
    /// Moves the model by the gradient over all devices. Each moves its part of the parameters, if they are shared out.
    pub(super) fn step(self, meeting: &mut Meeting, sum: Sum, pace: Pace) -> Result<Self, Halt> {
        let Self { model, mut optimizer } = self;
        let model = optimizer.step(model, sum.own, pace.learning_rate, pace.scale)?;
        let model = meeting.gather(model, &sum.shared).ok_or(Halt::Deserted)?;
        Ok(Self { model, optimizer })
    }
}

/// How far a gradient moves the model.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) learning_rate: f64,
    /// The factor on the gradient that clips it.
    pub(super) scale: f64,
}

/// The beginnings of the optimizers of a run: where their state comes from, and which device has which part.
pub(super) struct Start<'a> {
    pub(super) config: AdamWConfig,
    /// The checkpoint that the run goes on from, unless it needs no optimizer any more.
    pub(super) checkpoint: Option<&'a Checkpoint>,
    /// The device that moves each parameter; none if every device moves all.
    pub(super) owners: Option<Arc<Owners>>,
}

impl Start<'_> {
    /// Returns the optimizer of a device, counted from 0, which has the model already.
    pub(super) fn optimizer<M: Module>(&self, model: &M, device: usize) -> Result<AdamW, Error> {
        let moves = |path: &str| self.owners.as_ref().is_none_or(|owners| owners.owner(path) == device);
        match self.checkpoint {
            None => Ok(AdamW::new(self.config)),
            Some(checkpoint) => checkpoint.load_optimizer(self.config, model, moves),
        }
    }
}

/// The part of a step that all devices have to know.
pub(super) struct Step<S> {
    /// The step, from 1.
    pub(super) number: u64,
    /// The seed of its dropout.
    pub(super) masks: MaskSeed,
    /// The whole batch.
    pub(super) context: BatchContext<S>,
}

/// A device at work. All hold the same bits, because all are moved by the same sums.
pub(super) struct Member<M> {
    pub(super) replica: Replica<M>,
    pub(super) meeting: Meeting,
    /// This device's gradient of the step.
    gradient: GradientSink,
    /// The gradient over all devices, until the model is moved by it.
    sum: Sum,
}

impl<M: Trainable> Member<M> {
    fn new(replica: Replica<M>, meeting: Meeting) -> Self {
        Self { replica, meeting, gradient: GradientSink::new(), sum: Sum::default() }
    }

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
        // A gradient that there was no memory for must be found before the others wait for it: the pass reads its norm.
        let done = attempt(|| pass(task, &self.replica.model, split, step))?;
        Ok(done.map(|(sink, measured)| {
            self.gradient = sink;
            measured
        }))
    }

    /// Adds up the gradients of all devices. Returns the squares of those that this device moves, if they are shared out.
    fn sum(mut self, works: bool) -> Result<(Self, Squares), Halt> {
        let gradient = std::mem::take(&mut self.gradient);
        let sum = if works { self.meeting.sum(gradient) } else { self.meeting.next() };
        self.sum = sum.ok_or(Halt::Deserted)?;
        let squares = if self.meeting.owners().is_some() { self.sum.own.squares().read() } else { Squares::new() };
        Ok((self, squares))
    }

    /// Runs a share of a batch forward and backward, and moves the model on the way.
    fn advance<T: Task<Model = M>>(
        self,
        task: &T,
        step: &Step<T::Survey>,
        share: &[usize],
        pace: Pace,
    ) -> Result<(Self, Measured), Halt> {
        let Self { replica, meeting, .. } = self;
        let run = || Ok(Moving::new(replica, meeting, pace).run(task, step, share));
        let done = attempt(run)?.map_err(|failed| in_one_piece(step.number, failed))?;
        let (replica, meeting, measured) = done?;
        Ok((Self::new(replica, meeting), measured))
    }

    /// Moves the model by the gradient.
    fn apply(self, pace: Pace) -> Result<Self, Halt> {
        let Self { replica, mut meeting, sum, .. } = self;
        let replica = replica.step(&mut meeting, sum, pace)?;
        Ok(Self::new(replica, meeting))
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
                Order::Sum { works, reply } => answer(self.sum(works), &reply),
                Order::Advance { step, share, pace, reply } => answer(self.advance(task, &step, &share, pace), &reply),
                Order::Apply { pace, reply } => answer(self.apply(pace).map(|member| (member, ())), &reply),
                Order::Describe { reply } => {
                    let tensors = self.replica.optimizer.tensors();
                    answer(tensors.map(|tensors| (self, tensors)).map_err(Halt::Failed), &reply)
                }
                Order::Read { path, tensor, reply } => {
                    let data = self.replica.optimizer.read(&path, &tensor);
                    answer(data.map(|data| (self, data)).map_err(Halt::Failed), &reply)
                }
            };
            match done {
                Some(member) => self = member,
                None => return,
            }
        }
    }
}

/// All devices of a run. The first works on this thread and leads, every other on a thread of its own.
pub(super) struct Team<T: Task> {
    leader: Member<T::Model>,
    /// Where the others take their orders.
    others: Vec<Sender<Order<T>>>,
}

impl<T: Task> Team<T> {
    /// Copies a model, which is on the group's first device, to the others. `replica` is the first device's. The others make their optimizers
    /// themselves: no device ever has the parts of all.
    pub(super) fn assemble<'scope>(
        scope: &'scope Scope<'scope, '_>,
        group: &DeviceGroup,
        task: &'scope T,
        start: &'scope Start<'_>,
        replica: Replica<T::Model>,
    ) -> Self {
        let (meeting, seats) = Meeting::of(group, start.owners.as_ref());
        let devices = group.devices().iter().cloned().enumerate().skip(1);
        let others = devices.zip(seats).map(|((number, device), meeting)| {
            let (orders, received) = channel::<Order<T>>();
            let model = replica.model.clone();
            device_thread(scope, number, move || {
                let model = copy_to(&device, model);
                match start.optimizer(&model, number) {
                    Ok(optimizer) => Member::new(Replica { model, optimizer }, meeting).serve(task, &received),
                    Err(error) => {
                        if let Ok(order) = received.recv() {
                            order.refuse(error);
                        }
                    }
                }
            });
            orders
        });
        let others = others.collect();
        Self { leader: Member::new(replica, meeting), others }
    }

    /// The model that is evaluated and saved.
    pub(super) fn model(&self) -> &T::Model {
        &self.leader.replica.model
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
            leader.sum.own = std::mem::take(&mut leader.gradient);
            return Ok((Self { leader, others }, own_norm));
        }
        leader.meeting.begin(shares);
        let replies = order(&others, |other, reply| Order::Sum { works: !shares[1 + other].is_empty(), reply });
        let ((leader, mut squares), parts) = settle(leader.sum(true), replies)?;
        squares.extend(parts.into_iter().flatten());
        let norm = if leader.meeting.owners().is_some() { norm_of(&squares) } else { leader.sum.own.norm() };
        Ok((Self { leader, others }, norm))
    }

    /// Runs a batch forward and backward, on each device its share, and moves the models on the way.
    pub(super) fn advance(
        self,
        task: &T,
        step: &Arc<Step<T::Survey>>,
        shares: &[Vec<usize>],
        pace: Pace,
    ) -> Result<(Self, Measured), Error> {
        let Self { mut leader, others } = self;
        leader.meeting.begin(shares);
        let replies = order(&others, |other, reply| {
            let (step, share) = (step.clone(), shares[1 + other].clone());
            Order::Advance { step, share, pace, reply }
        });
        let ((leader, own), parts) = settle(leader.advance(task, step, &shares[0], pace), replies)?;
        let mut measured = added_up(std::iter::once(own).chain(parts).collect());
        measured.grad_norm = norm_of(&measured.squares);
        Ok((Self { leader, others }, measured))
    }

    /// Moves the model on every device.
    pub(super) fn apply(self, pace: Pace) -> Result<Self, Error> {
        let Self { leader, others } = self;
        let replies = order(&others, |_, reply| Order::Apply { pace, reply });
        let (leader, _) = settle(leader.apply(pace), replies)?;
        Ok(Self { leader, others })
    }
}

/// The optimizer of a run, whose parts are on all devices.
impl<T: Task> OptimizerState for Team<T> {
    fn tensors(&self) -> Result<BTreeMap<String, Vec<TensorSpec>>, Error> {
        let mut tensors = self.leader.replica.optimizer.tensors()?;
        if self.leader.meeting.owners().is_some() {
            let replies = order(&self.others, |_, reply| Order::Describe { reply });
            let ((), parts) = settle(Ok(()), replies)?;
            tensors.extend(parts.into_iter().flatten());
        }
        Ok(tensors)
    }

    fn read(&self, path: &str, tensor: &str) -> Result<Option<TensorData>, Error> {
        match self.leader.meeting.owners().map_or(0, |owners| owners.owner(path)) {
            0 => self.leader.replica.optimizer.read(path, tensor),
            owner => {
                let ask = |_, reply| Order::Read { path: path.into(), tensor: tensor.into(), reply };
                let ((), mut data) = settle(Ok(()), order(&self.others[owner - 1..owner], ask))?;
                Ok(data.pop().flatten())
            }
        }
    }
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
