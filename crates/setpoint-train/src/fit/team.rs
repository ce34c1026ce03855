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
use crate::{AdamW, DeviceGroup, Error, GradientSink, MicroBatch, Survey, Task};

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
pub(super) struct Step {
    /// The step, from 1.
    pub(super) number: u64,
    /// The weight of the whole batch.
    pub(super) denominator: f64,
    pub(super) survey: Survey,
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
    fn compute<T: Task<Model = M>>(self, task: &T, step: &Step, share: &[usize]) -> Result<(Self, Measured), Halt> {
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
    fn serve<T: Task<Model = M>>(
        mut self,
        task: &T,
        orders: &Receiver<Order>,
        reports: &Sender<Result<Measured, Halt>>,
    ) {
        while let Ok(order) = orders.recv() {
            let done = match order {
                Order::Compute(step, share) => self.compute(task, &step, &share),
                Order::Apply { learning_rate, scale } => {
                    self.apply(learning_rate, scale).map(|member| (member, Measured::default()))
                }
            };
            match done {
                Ok((member, measured)) => {
                    self = member;
                    if reports.send(Ok(measured)).is_err() {
                        return;
                    }
                }
                Err(halt) => {
                    // Without a reader the run is over anyway.
                    let _ = reports.send(Err(halt));
                    return;
                }
            }
        }
    }
}

enum Order {
    Compute(Arc<Step>, Vec<usize>),
    Apply { learning_rate: f64, scale: f64 },
}

/// All devices of a run. The first works on this thread and leads, every other on a thread of its own.
pub(super) struct Team<M> {
    leader: Member<M>,
    others: Vec<Other>,
}

/// Another device as the leader sees it.
struct Other {
    orders: Sender<Order>,
    reports: Receiver<Result<Measured, Halt>>,
}

impl<M: Module + Sync> Team<M> {
    /// Copies a model and its optimizer, which are on the group's first device, to the others.
    pub(super) fn assemble<'scope, T: Task<Model = M>>(
        scope: &'scope Scope<'scope, '_>,
        group: &DeviceGroup,
        task: &'scope T,
        replica: Replica<M>,
    ) -> Self
    where
        M: 'scope,
    {
        let mut meetings = Meeting::of(group).into_iter().enumerate();
        let first = meetings.next().map(|(_, meeting)| meeting);
        let others = meetings
            .zip(group.devices().iter().skip(1).cloned())
            .map(|((number, meeting), device)| {
                let ((orders, received), (sender, reports)) = (channel(), channel());
                let (model, optimizer) = (replica.model.clone(), replica.optimizer.clone());
                device_thread(scope, number, move || {
                    let replica = Replica { model: copy_to(&device, model), optimizer: optimizer.on(&device) };
                    drop(optimizer);
                    let member = Member { replica, meeting, gradient: GradientSink::new() };
                    member.serve(task, &received, &sender);
                });
                Other { orders, reports }
            })
            .collect();
        let meeting = first.unwrap_or_else(|| unreachable!("a group has a first device"));
        Self { leader: Member { replica, meeting, gradient: GradientSink::new() }, others }
    }

    /// The model that is evaluated and saved, and its optimizer.
    pub(super) fn first(&self) -> &Replica<M> {
        &self.leader.replica
    }

    /// The model, when the run is over.
    pub(super) fn into_model(self) -> M {
        self.leader.replica.model
    }

    /// The gradient of the step.
    pub(super) fn gradient(&self) -> &GradientSink {
        &self.leader.gradient
    }

    /// Runs a batch forward and backward, on each device its share, and adds up the gradients.
    pub(super) fn compute<T: Task<Model = M>>(
        self,
        task: &T,
        step: &Arc<Step>,
        batch: &[usize],
    ) -> Result<(Self, Measured), Error> {
        let Self { mut leader, others } = self;
        let mut shares = deal(batch, 1 + others.len(), |example| task.cost(example));
        leader.meeting.begin(&shares);
        for (other, share) in others.iter().zip(shares.drain(1..)) {
            // One that is gone is noticed by its report.
            let _ = other.orders.send(Order::Compute(step.clone(), share));
        }
        let own = leader.compute(task, step, &shares[0]);
        Self::gather(own, others)
    }

    /// Moves the model on every device.
    pub(super) fn apply(self, learning_rate: f64, scale: f64) -> Result<Self, Error> {
        let Self { leader, others } = self;
        for other in &others {
            let _ = other.orders.send(Order::Apply { learning_rate, scale });
        }
        let own = leader.apply(learning_rate, scale).map(|member| (member, Measured::default()));
        Ok(Self::gather(own, others)?.0)
    }

    /// Waits for the others' reports.
    fn gather(own: Result<(Member<M>, Measured), Halt>, others: Vec<Other>) -> Result<(Self, Measured), Error> {
        let reports: Vec<_> = others.iter().map(|other| other.reports.recv().unwrap_or(Err(Halt::Deserted))).collect();
        let (mut leader, mut measured, mut deserted, mut error) = (None, Measured::default(), false, None);
        let mut note = |halt| match halt {
            Halt::Failed(reason) => error = error.take().or(Some(reason)),
            Halt::Deserted => deserted = true,
        };
        match own {
            Ok((member, own)) => {
                measured = own;
                leader = Some(member);
            }
            Err(halt) => note(halt),
        }
        for report in reports {
            match report {
                Ok(share) => measured.add(share),
                Err(halt) => note(halt),
            }
        }
        match (leader, error, deserted) {
            (_, Some(error), _) => Err(error),
            (Some(leader), None, false) => Ok((Self { leader, others }, measured)),
            _ => Err(Error::Forward { reason: "a device stopped in the middle of a step".into() }),
        }
    }
}
