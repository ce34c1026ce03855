//! The model on every device of a run.

use burn::module::Module;

use crate::devices::side_by_side;
use crate::{AdamW, DeviceGroup, Error, GradientSink};

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

/// A replica for each device of a group. All hold the same bits, because all are moved by the same sums.
pub(super) struct Replicas<M> {
    group: DeviceGroup,
    /// In the order of the devices.
    all: Vec<Replica<M>>,
}

impl<M: Module + Sync> Replicas<M> {
    /// Copies a model and its optimizer, which are on the group's first device, to the others.
    pub(super) fn new(group: &DeviceGroup, model: M, optimizer: AdamW) -> Self {
        let source = model.devices().into_iter().next();
        let copy = |device| {
            let tracked = source
                .iter()
                .fold(device, |device: burn::tensor::Device, source| device.with_autodiff_context_from(source));
            Replica { model: model.clone().fork(&tracked), optimizer: optimizer.on(&tracked.without_autodiff()) }
        };
        let others: Vec<_> = group.devices().iter().skip(1).cloned().map(copy).collect();
        Self::of(group.clone(), std::iter::once(Replica { model, optimizer }).chain(others).collect())
    }

    /// Replicas that are there already.
    pub(super) fn of(group: DeviceGroup, all: Vec<Replica<M>>) -> Self {
        Self { group, all }
    }

    pub(super) fn group(&self) -> &DeviceGroup {
        &self.group
    }

    /// The model that is evaluated and saved.
    pub(super) fn first(&self) -> &Replica<M> {
        &self.all[0]
    }

    pub(super) fn models(&self) -> impl Iterator<Item = &M> {
        self.all.iter().map(|replica| &replica.model)
    }

    pub(super) fn into_all(self) -> Vec<Replica<M>> {
        self.all
    }

    pub(super) fn into_first(mut self) -> Replica<M> {
        self.all.swap_remove(0)
    }

    /// Moves every replica by its device's gradients.
    pub(super) fn step(self, sinks: Vec<GradientSink>, learning_rate: f64, scale: f64) -> Result<Self, Error> {
        let Self { group, all } = self;
        let work: Vec<_> = all.into_iter().zip(sinks).collect();
        let moved = side_by_side(work, |_, (replica, sink)| replica.step(sink, learning_rate, scale));
        Ok(Self { group, all: moved.into_iter().collect::<Result<_, _>>()? })
    }
}
