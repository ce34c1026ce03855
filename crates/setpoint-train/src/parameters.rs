//! The float parameters of a module by path, and their way to and from a file.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, GradientCheckpointingStrategy, Tensor, TensorData};
use setpoint_transformer::checkpoint::ParamPath;

use crate::Error;
use crate::storage::Digest;
use crate::tensor_file::{TensorReader, TensorSpec, TensorWriter};

/// The autodiff state of a parameter's tensor, which a new value has to be given again.
pub(crate) struct AutodiffState {
    require_grad: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
}

impl AutodiffState {
    pub(crate) fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self { require_grad: tensor.is_require_grad(), checkpointing: tensor.gradient_checkpointing_strategy() }
    }

    /// Puts a tensor of the plain device where the old one was.
    pub(crate) fn restore<const D: usize>(self, value: Tensor<D>) -> Tensor<D> {
        match self.checkpointing {
            None => value,
            Some(strategy) => {
                value.autodiff().with_gradient_checkpointing_strategy(strategy).set_require_grad(self.require_grad)
            }
        }
    }
}

/// The facts about a parameter that a traversal collects.
pub(crate) struct ParameterInfo {
    pub(crate) spec: TensorSpec,
    /// The plain device, without autodiff.
    pub(crate) device: Device,
    pub(crate) trains: bool,
}

/// All float parameters in the module's order.
pub(crate) fn list<M: Module>(module: &M) -> Vec<ParameterInfo> {
    struct List {
        path: ParamPath,
        found: Vec<ParameterInfo>,
    }
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.base();
            self.found.push(ParameterInfo {
                spec: TensorSpec { name: self.path.name(), dtype: tensor.dtype(), shape: tensor.dims().to_vec() },
                device: tensor.device().without_autodiff(),
                trains: tensor.is_require_grad(),
            });
        }
    }
    let mut visitor = List { path: ParamPath::default(), found: vec![] };
    module.visit(&mut visitor);
    visitor.found
}

/// Writes the parameters that train. The others are as the caller built them.
pub(crate) fn save<M: Module>(module: &M, path: &std::path::Path) -> Result<Digest, Error> {
    struct Save {
        path: ParamPath,
        /// Only tensors of this element size are written in this pass: the file holds large
        /// elements first, so that each tensor lies aligned.
        element: usize,
        writer: TensorWriter,
        error: Option<Error>,
    }
    impl ModuleVisitor for Save {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.base();
            if self.error.is_none() && tensor.is_require_grad() && tensor.dtype().size() == self.element {
                let data = tensor.inner().into_data();
                self.error = self.writer.write(&self.path.name(), &data).err();
            }
        }
    }
    let mut specs: Vec<_> = list(module).into_iter().filter(|info| info.trains).map(|info| info.spec).collect();
    specs.sort_by_key(|spec| std::cmp::Reverse(spec.dtype.size()));
    let mut elements: Vec<_> = specs.iter().map(|spec| spec.dtype.size()).collect();
    elements.dedup();
    let mut visitor =
        Save { path: ParamPath::default(), element: 0, writer: TensorWriter::create(path, specs)?, error: None };
    for element in elements {
        visitor.element = element;
        module.visit(&mut visitor);
    }
    match visitor.error {
        Some(error) => Err(error),
        None => visitor.writer.finish(),
    }
}

/// Gives the parameters that train the values of a file written by [`save`].
pub(crate) fn load<M: Module>(module: M, path: &std::path::Path) -> Result<M, Error> {
    struct Load {
        path: ParamPath,
        reader: TensorReader,
        error: Option<Error>,
    }
    impl Load {
        fn read<const D: usize>(&mut self, tensor: &Tensor<D>) -> Result<TensorData, Error> {
            let name = self.path.name();
            let data = self.reader.read(&name, &tensor.dims())?;
            if data.dtype() != tensor.dtype() {
                return Err(Error::corrupt(
                    self.reader.path(),
                    format!("`{name}`: expected dtype {:?}, found {:?}", tensor.dtype(), data.dtype()),
                ));
            }
            Ok(data)
        }
    }
    impl ModuleMapper for Load {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.error.is_some() || !param.base().is_require_grad() {
                return param;
            }
            let (id, tensor, mapper) = param.consume();
            let value = match self.read(&tensor) {
                Err(error) => {
                    self.error = Some(error);
                    tensor
                }
                Ok(data) => {
                    let device = tensor.device().without_autodiff();
                    let dtype: DType = tensor.dtype();
                    let state = AutodiffState::of(&tensor);
                    drop(tensor);
                    state.restore(Tensor::from_data(data, (&device, dtype)))
                }
            };
            Param::from_mapped_value(id, value, mapper)
        }
    }
    let trained: Vec<String> =
        list(&module).into_iter().filter(|info| info.trains).map(|info| info.spec.name).collect();
    let reader = TensorReader::open(path)?;
    if let Some(name) = reader.names().find(|name| !trained.iter().any(|t| t == name)) {
        return Err(Error::corrupt(path, format!("`{name}` is not a trainable parameter of the model")));
    }
    let mut mapper = Load { path: ParamPath::default(), reader, error: None };
    let module = module.map(&mut mapper);
    match mapper.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}
