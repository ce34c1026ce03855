//! Where the devices of a run add up their gradients.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use setpoint_transformer::checkpoint::ParamPath;

use crate::parameters::AutodiffState;
use crate::shard::Owners;
use crate::sink::GradientShapes;
use crate::{Communicator, DeviceGroup, GradientSink};

/// One device's seat at the meetings of a run.
///
/// A device that fails drops its seat and leaves the room; the others notice instead of waiting for it. Before numbers are added up all agree
/// on whose: not every device has a gradient for every parameter.
pub(super) struct Meeting {
    /// The place of the device in the group.
    number: usize,
    device: Device,
    /// The device that moves each parameter; none if every device moves all.
    owners: Option<Arc<Owners>>,
    role: Role,
}

/// The gradient over all devices, as far as a device needs it.
#[derive(Default)]
pub(super) struct Sum {
    /// The gradients of the parameters that this device moves.
    pub(super) own: GradientSink,
    /// The parameters that some device moves, if each moves its own; else none.
    pub(super) shared: GradientShapes,
}

enum Role {
    /// Of a device without others.
    Alone,
    /// The first device asks all others.
    Leader {
        communicator: Box<dyn Communicator>,
        followers: Vec<Follower>,
    },
    Follower {
        communicator: Box<dyn Communicator>,
        to: Sender<Message>,
        back: Receiver<Agreed>,
    },
    /// Of a device that has left.
    Gone,
}

/// A follower as the leader sees it.
struct Follower {
    from: Receiver<Message>,
    back: Sender<Agreed>,
    /// True if it has a share of this step.
    works: bool,
}

/// A follower's message to the leader.
enum Message {
    /// The parameters that it has a gradient of.
    Has(GradientShapes),
    /// It has moved its parameters.
    Moved,
}

/// The leader's answer.
enum Agreed {
    Sum(GradientShapes),
    /// All devices have moved their parameters.
    Moved,
    /// No more sums in this step.
    Over,
}

impl Meeting {
    /// The seat of a group's first device, and those of the others in their order.
    pub(super) fn of(group: &DeviceGroup, owners: Option<&Arc<Owners>>) -> (Self, Vec<Self>) {
        let seat = |number: usize, role| Self {
            number,
            device: group.devices()[number].clone(),
            owners: owners.cloned(),
            role,
        };
        if group.len() == 1 {
            return (seat(0, Role::Alone), vec![]);
        }
        let mut communicators = group.collective().connect(group.devices());
        assert_eq!(communicators.len(), group.len(), "a communicator for each device");
        let first = communicators.remove(0);
        let mut followers = vec![];
        let others = communicators.into_iter().enumerate().map(|(other, communicator)| {
            let ((to, from), (forth, back)) = (channel(), channel());
            followers.push(Follower { from, back: forth, works: true });
            seat(1 + other, Role::Follower { communicator, to, back })
        });
        let others = others.collect();
        (seat(0, Role::Leader { communicator: first, followers }), others)
    }

    /// The device that moves each parameter; none if every device moves all.
    pub(super) fn owners(&self) -> Option<&Owners> {
        self.owners.as_deref()
    }

    /// Tells the leader which of the others have a share of the step that begins.
    pub(super) fn begin(&mut self, shares: &[Vec<usize>]) {
        if let Role::Leader { followers, .. } = &mut self.role {
            for (follower, share) in followers.iter_mut().zip(&shares[1..]) {
                follower.works = !share.is_empty();
            }
        }
    }

    /// The sum of what all devices have; nothing if one has left.
    pub(super) fn sum(&mut self, sink: GradientSink) -> Option<Sum> {
        let shapes = match &mut self.role {
            Role::Alone => return Some(Sum { own: sink, ..Sum::default() }),
            Role::Gone => return None,
            Role::Leader { followers, .. } => {
                let mut shapes = sink.shapes();
                for follower in followers.iter().filter(|follower| follower.works) {
                    match follower.from.recv().ok()? {
                        Message::Has(more) => shapes.extend(more),
                        Message::Moved => return None,
                    }
                }
                for follower in &*followers {
                    follower.back.send(Agreed::Sum(shapes.clone())).ok()?;
                }
                shapes
            }
            Role::Follower { to, .. } => {
                to.send(Message::Has(sink.shapes())).ok()?;
                return self.agreed(sink);
            }
        };
        self.add_up(sink, shapes)
    }

    /// The next sum, for a device that has no share of the step; nothing when there are no more.
    pub(super) fn next(&mut self) -> Option<Sum> {
        self.agreed(GradientSink::new())
    }

    /// Adds up what the leader says.
    fn agreed(&mut self, sink: GradientSink) -> Option<Sum> {
        let Role::Follower { back, .. } = &self.role else { return None };
        match back.recv().ok()? {
            Agreed::Sum(shapes) => self.add_up(sink, shapes),
            Agreed::Moved | Agreed::Over => None,
        }
    }

    fn add_up(&mut self, sink: GradientSink, shapes: GradientShapes) -> Option<Sum> {
        if shapes.is_empty() {
            return Some(Sum { own: sink, ..Sum::default() });
        }
        let (number, device) = (self.number, self.device.clone());
        let owners = self.owners.clone();
        let communicator = self.communicator()?;
        let parts = sink.into_parts(&shapes, &device);
        let Some(owners) = owners else {
            let own = GradientSink::of_parts(shapes, communicator.all_reduce(parts)?);
            return Some(Sum { own, ..Sum::default() });
        };
        let numbers: Vec<usize> = shapes.keys().map(|path| owners.owner(path)).collect();
        let sums = communicator.reduce_scatter(parts, &numbers)?;
        let mut own = shapes.clone();
        own.retain(|path, _| owners.owner(path) == number);
        Some(Sum { own: GradientSink::of_parts(own, sums), shared: shapes })
    }

    /// Gives this device the weights that the others have moved, and the others those of this one; nothing if a device has left. `shared`:
    /// the parameters of the [`Sum`] that they were moved by.
    pub(super) fn gather<M: Module>(&mut self, model: M, shared: &GradientShapes) -> Option<M> {
        let Some(owners) = self.owners.clone().filter(|_| !shared.is_empty()) else { return Some(model) };
        // A collective of GPUs would wait for a device that has failed on the way.
        self.await_all()?;
        let communicator = self.communicator()?;
        let path = ParamPath::default();
        let mut gather = Gather { path, shared, owners: &owners, communicator, is_deserted: false };
        let model = model.map(&mut gather);
        (!gather.is_deserted).then_some(model)
    }

    /// Waits until all devices have moved their parameters.
    fn await_all(&self) -> Option<()> {
        match &self.role {
            Role::Alone => Some(()),
            Role::Gone => None,
            Role::Leader { followers, .. } => {
                let has_moved = |follower: &Follower| matches!(follower.from.recv(), Ok(Message::Moved)).then_some(());
                followers.iter().try_for_each(has_moved)?;
                followers.iter().try_for_each(|follower| follower.back.send(Agreed::Moved).ok())
            }
            Role::Follower { to, back, .. } => {
                to.send(Message::Moved).ok()?;
                matches!(back.recv(), Ok(Agreed::Moved)).then_some(())
            }
        }
    }

    fn communicator(&mut self) -> Option<&mut dyn Communicator> {
        match &mut self.role {
            Role::Leader { communicator, .. } | Role::Follower { communicator, .. } => Some(&mut **communicator),
            Role::Alone | Role::Gone => None,
        }
    }

    /// The leader's word, to those without a share, that the step has no more sums.
    pub(super) fn end(&self) {
        if let Role::Leader { followers, .. } = &self.role {
            for follower in followers.iter().filter(|follower| !follower.works) {
                // One that has left is noticed by its report.
                let _ = follower.back.send(Agreed::Over);
            }
        }
    }

    /// Leaves, so that nobody waits for this device.
    pub(super) fn leave(&mut self) {
        self.role = Role::Gone;
    }
}

impl Sum {
    /// Returns whether no device has a gradient.
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_empty()
    }
}

/// Replaces each parameter by that of its owner.
struct Gather<'a> {
    path: ParamPath,
    shared: &'a GradientShapes,
    owners: &'a Owners,
    communicator: &'a mut dyn Communicator,
    /// True if another device has left.
    is_deserted: bool,
}

impl ModuleMapper for Gather<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.name();
        if self.is_deserted || !param.is_require_grad() || !self.shared.contains_key(&path) {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let state = AutodiffState::of(&tensor);
        let dims = tensor.dims();
        // [..] -> [n]
        let flat: Tensor<1> = tensor.inner().reshape([dims.iter().product::<usize>()]);
        let moved = self.communicator.broadcast(&flat, self.owners.owner(&path));
        self.is_deserted = moved.is_none();
        // [n] -> [..]
        let value: Tensor<D> = moved.unwrap_or(flat).reshape(dims);
        Param::from_mapped_value(id, state.restore(value), mapper)
    }
}
