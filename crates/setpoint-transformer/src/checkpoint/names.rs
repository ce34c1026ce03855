use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};

/// The path of the parameter that a traversal has reached: the name it has in a file. A visitor or mapper of a module hands what it enters and
/// leaves over to it.
#[derive(Debug, Default)]
pub struct ParamPath(Vec<String>);

impl ParamPath {
    /// A traversal that begins at this path; an empty one is the root.
    pub fn below(prefix: &str) -> Self {
        Self(if prefix.is_empty() { Vec::new() } else { vec![prefix.to_owned()] })
    }

    /// Into a field.
    pub fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    /// Out of it again.
    pub fn exit(&mut self) {
        self.0.pop();
    }

    /// The path, with dots.
    pub fn name(&self) -> String {
        self.0.join(".")
    }
}

/// A 64-bit hash of a name that is the same in every process: FNV-1a, Fowler, Noll and Vo.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Gives every float parameter an id that follows from its name, so that an optimizer's state finds its parameter again in another process.
///
/// Values are not touched, and parameters that have not been read yet stay so.
pub fn with_stable_ids<M: Module>(module: M) -> M {
    struct Rename(ParamPath);

    impl ModuleMapper for Rename {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }

        fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.id = ParamId::from(name_hash(&self.0.name()));
            param
        }
    }

    module.map(&mut Rename(ParamPath::default()))
}

/// A float parameter of a module.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its path in the module, with dots.
    pub name: String,
    /// Its id.
    pub id: ParamId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its device, or the one that it will be on once it is read.
    pub device: Device,
}

/// The float parameters of a module in the order of its fields. No value is read.
pub fn parameters<M: Module>(module: &M) -> Vec<Parameter> {
    struct List {
        path: ParamPath,
        found: Vec<Parameter>,
    }

    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(Parameter {
                name: self.path.name(),
                id: param.id,
                shape: param.lazy_shape().as_slice().to_vec(),
                device: param.lazy_device(),
            });
        }
    }

    let mut list = List { path: ParamPath::default(), found: Vec::new() };
    module.visit(&mut list);
    list.found
}
