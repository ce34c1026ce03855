use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::checkpoint::{ParamPath, name_hash};

/// Draws every matrix of a module from N(0, `std`²), in f32 on the host; vectors keep their value.
///
/// The numbers of a matrix depend on `seed` and its name in the module alone.
pub fn init_weights<M: Module>(module: M, std: f64, seed: u64) -> M {
    module.map(&mut Draw { path: ParamPath::default(), std, seed })
}

struct Draw {
    path: ParamPath,
    std: f64,
    seed: u64,
}

impl ModuleMapper for Draw {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 {
            return param;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(name_hash(&self.path.name()));
        let shape = param.lazy_shape();
        let values = normal(&mut rng, self.std, shape.num_elements());
        let tensor = Tensor::from_data(TensorData::new(values, shape), (&param.lazy_device(), DType::F32));
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

/// `count` draws from N(0, `std`²): Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
fn normal(rng: &mut ChaCha8Rng, std: f64, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // In (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt() * std;
        let (sin, cos) = (std::f64::consts::TAU * unit(rng)).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(count);
    values
}

/// A draw from the uniform distribution on [0, 1), with 53 bits.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}
