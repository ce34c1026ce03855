//! The matrix of a linear map: numbers, or 4-bit codes.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamId,
};
use burn::tensor::{DType, Device, FloatDType, Int, Shape, Tensor};
use setpoint_ops::{Nf4, Nf4Layout};

use crate::checkpoint::ParamPath;
use crate::nf4::Nf4Matrix;

/// The matrix of a linear map, `[out, in]`.
#[expect(clippy::large_enum_variant, reason = "a model has a few hundred of them")]
#[derive(Clone, Debug)]
pub enum Weight {
    /// Numbers, which can be trained.
    Dense(Param<Tensor<2>>),
    /// 4-bit codes, which are frozen: no float parameter, and dequantised where a product reads them.
    Nf4(Nf4Weight),
}

/// A matrix in 4-bit codes on a device.
#[derive(Module, Debug)]
pub struct Nf4Weight {
    codes: Param<Tensor<1, Int>>,
    numbers: Tensor<1>,
    #[module(skip)]
    layout: Nf4Layout,
    /// The format that the map computes in.
    #[module(skip)]
    dtype: FloatDType,
}

impl Nf4Weight {
    /// Copies a matrix to a device, for a map that computes in the format `dtype`.
    pub(crate) fn new(matrix: &Nf4Matrix, dtype: FloatDType, device: &Device) -> Self {
        let Nf4 { codes, numbers, layout } = matrix.to_device(device);
        Self { codes: Param::initialized(ParamId::new(), codes), numbers, layout, dtype }
    }

    /// Returns the matrix for the operations.
    pub(crate) fn matrix(&self) -> Nf4 {
        Nf4 { codes: self.codes.val(), numbers: self.numbers.clone(), layout: self.layout }
    }
}

impl Weight {
    /// Returns the numbers: dequantised, if the matrix is in codes.
    pub fn val(&self) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.val(),
            Self::Nf4(weight) => weight.matrix().dequantized(weight.dtype),
        }
    }

    /// Returns the shape, `[out, in]`; no value is read.
    pub fn lazy_shape(&self) -> Shape {
        match self {
            Self::Dense(weight) => weight.lazy_shape(),
            Self::Nf4(weight) => Shape::from(weight.layout.shape),
        }
    }

    /// Returns the device, with autodiff where the map has it; no value is read.
    pub fn lazy_device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.lazy_device(),
            Self::Nf4(weight) => weight.numbers.device(),
        }
    }

    /// Returns the format that the map computes in.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(weight) => weight.val().dtype(),
            Self::Nf4(weight) => weight.dtype.into(),
        }
    }

    /// Returns whether the matrix is in codes.
    pub fn is_quantized(&self) -> bool {
        matches!(self, Self::Nf4(_))
    }

    /// Returns the bytes that the matrix takes on its device.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.lazy_shape().num_elements() * self.dtype().size(),
            Self::Nf4(weight) => weight.matrix().bytes(),
        }
    }

    /// Replaces the numbers. A parameter keeps its id and whether it requires gradients; a matrix in codes becomes a frozen parameter.
    pub fn set(&mut self, value: Tensor<2>) {
        *self = Self::Dense(match self {
            Self::Dense(weight) => weight.clone().transform_for_load(value, weight.id),
            Self::Nf4(_) => Param::from_tensor(value).set_require_grad(false),
        });
    }
}

/// A module with the path of its parameter, as if it were that parameter.
impl Module for Weight {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Dense(weight) => weight.collect_devices(devices),
            Self::Nf4(weight) => weight.collect_devices(devices),
        }
    }

    fn fork(self, device: &Device) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.fork(device)),
            Self::Nf4(weight) => Self::Nf4(weight.fork(device)),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(Module::to_device(weight, device)),
            Self::Nf4(weight) => Self::Nf4(weight.to_device(device)),
        }
    }

    fn train(self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.train()),
            Self::Nf4(weight) => Self::Nf4(weight.train()),
        }
    }

    fn valid(&self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.valid()),
            Self::Nf4(weight) => Self::Nf4(weight.valid()),
        }
    }

    fn materialize(self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.materialize()),
            Self::Nf4(weight) => Self::Nf4(weight.materialize()),
        }
    }

    fn num_params(&self) -> usize {
        self.lazy_shape().num_elements()
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Self::Dense(weight) => weight.visit(visitor),
            Self::Nf4(weight) => weight.visit(visitor),
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(Module::map(weight, mapper)),
            Self::Nf4(weight) => Self::Nf4(Module::map(weight, mapper)),
        }
    }
}

impl ModuleDisplayDefault for Weight {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Dense(weight) => weight.content(content),
            Self::Nf4(weight) => weight.content(content),
        }
    }
}

impl ModuleDisplay for Weight {}

/// Returns the paths of a module's matrices that are in 4-bit codes.
pub fn quantized_matrices<M: Module>(module: &M) -> Vec<String> {
    struct Find {
        path: ParamPath,
        found: Vec<String>,
    }

    impl ModuleVisitor for Find {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }

        fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<D, Int>>) {
            // The codes are the only integers of a model.
            let path = self.path.name();
            self.found.extend(path.strip_suffix(".codes").map(str::to_owned));
        }
    }

    let mut find = Find { path: ParamPath::default(), found: Vec::new() };
    module.visit(&mut find);
    find.found
}

/// Returns whether matrices of a module are in 4-bit codes.
pub fn is_quantized<M: Module>(module: &M) -> bool {
    !quantized_matrices(module).is_empty()
}
