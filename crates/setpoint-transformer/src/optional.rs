//! A linear map that only some families have.

use std::ops::{Deref, DerefMut};

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

use crate::linear::Linear;

/// A linear map that only some families have. As a module it is what Burn makes of an `Option`, but for [`num_params`](Module::num_params):
/// Burn counts numbers alone there, and a matrix may be in 4-bit codes.
#[derive(Clone, Debug)]
pub struct OptionalLinear(pub Option<Linear>);

impl Deref for OptionalLinear {
    type Target = Option<Linear>;

    fn deref(&self) -> &Option<Linear> {
        &self.0
    }
}

impl DerefMut for OptionalLinear {
    fn deref_mut(&mut self) -> &mut Option<Linear> {
        &mut self.0
    }
}

impl Module for OptionalLinear {
    fn collect_devices(&self, devices: Devices) -> Devices {
        Module::collect_devices(&self.0, devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(Module::fork(self.0, device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(Module::to_device(self.0, device))
    }

    fn train(self) -> Self {
        Self(Module::train(self.0))
    }

    fn valid(&self) -> Self {
        Self(Module::valid(&self.0))
    }

    fn materialize(self) -> Self {
        Self(Module::materialize(self.0))
    }

    fn num_params(&self) -> usize {
        match &self.0 {
            Some(map) => Module::num_params(map),
            None => 0,
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        Module::visit(&self.0, visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Self(Module::map(self.0, mapper))
    }
}

impl ModuleDisplayDefault for OptionalLinear {
    fn content(&self, content: Content) -> Option<Content> {
        ModuleDisplayDefault::content(&self.0, content)
    }
}

impl ModuleDisplay for OptionalLinear {}
