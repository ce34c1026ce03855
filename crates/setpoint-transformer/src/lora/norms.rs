//! The lengths of a map's rows between passes.

use std::sync::{Arc, OnceLock};

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Tensor};
use setpoint_ops::{LowRank, row_norms};

use crate::Weight;

/// The lengths of the rows of a weight with its update, kept from the first pass without autodiff for the next ones: generation passes once for
/// each token. Everything that could change the weight or the update forgets them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowNorms(Arc<OnceLock<Tensor<1>>>);

impl RowNorms {
    /// Returns the lengths. The weight and the update are those of the module that holds this.
    pub(crate) fn of(&self, weight: &Weight, update: &LowRank) -> Tensor<1> {
        let has_graph = update.b.device().is_autodiff();
        let compute = || {
            let plain = |tensor: Tensor<2>| if tensor.device().is_autodiff() { tensor.inner() } else { tensor };
            let LowRank { a, b, scale } = update.clone();
            row_norms(plain(weight.val()), LowRank { a: plain(a), b: plain(b), scale })
        };
        if has_graph { compute().autodiff() } else { self.0.get_or_init(compute).clone() }
    }
}

impl Module for RowNorms {
    fn collect_devices(&self, devices: Devices) -> Devices {
        devices
    }

    fn fork(self, _device: &Device) -> Self {
        Self::default()
    }

    fn to_device(self, _device: &Device) -> Self {
        Self::default()
    }

    fn train(self) -> Self {
        Self::default()
    }

    fn valid(&self) -> Self {
        Self::default()
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, _visitor: &mut V) {}

    fn map<M: ModuleMapper>(self, _mapper: &mut M) -> Self {
        Self::default()
    }
}

impl ModuleDisplayDefault for RowNorms {
    fn content(&self, _content: Content) -> Option<Content> {
        None
    }
}

impl ModuleDisplay for RowNorms {}
