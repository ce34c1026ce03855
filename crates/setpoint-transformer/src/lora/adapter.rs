//! New adapters, and the model without them.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use setpoint_ops::{LowRank, row_norms};

use super::config::{LoraConfig, is_saved_by};
use super::dropout::Dropout;
use super::targets::{Names, Target};
use crate::checkpoint::{ParamPath, Parameter, name_hash, parameters, with_stable_ids};
use crate::init::unit;
use crate::{CausalLm, Decoder, Error, Linear, Weight};

/// A model whose decoder can have an adapter. The decoder is its field `model`, as in Hugging Face's checkpoints.
pub trait HasDecoder: Module {
    /// Returns the decoder.
    fn decoder(&self) -> &Decoder;

    /// Returns the decoder for changes.
    fn decoder_mut(&mut self) -> &mut Decoder;

    /// Returns whether the embeddings are the head's matrix as well.
    fn is_tied(&self) -> bool {
        false
    }
}

impl HasDecoder for CausalLm {
    fn decoder(&self) -> &Decoder {
        &self.model
    }

    fn decoder_mut(&mut self) -> &mut Decoder {
        &mut self.model
    }

    fn is_tied(&self) -> bool {
        self.lm_head.is_none()
    }
}

/// The path of the decoder.
const DECODER: &str = "model";

/// Returns the linear maps of a decoder that may have an update, with their paths in the model.
pub(crate) fn maps(decoder: &mut Decoder) -> impl Iterator<Item = (String, &mut Linear)> {
    decoder.layers.iter_mut().enumerate().flat_map(|(i, layer)| {
        layer.linear_maps().into_iter().map(move |(name, map)| (format!("{DECODER}.layers.{i}.{name}"), map))
    })
}

/// Returns whether the parameter at `path` is stored with the adapter: a factor or the magnitude of an update, or a part of a module that is
/// trained in full.
pub fn is_adapter_parameter(config: &LoraConfig, path: &str) -> bool {
    is_of_update(path) || config.is_saved(path)
}

/// The end of the path of a magnitude.
const MAGNITUDE: &str = ".lora_magnitude_vector";

/// The ends of the paths of an update's parameters.
const UPDATE: [&str; 3] = [".lora_A.weight", ".lora_B.weight", MAGNITUDE];

/// Returns the path of the map whose update the parameter at `path` belongs to, if it belongs to one.
pub(super) fn map_of(path: &str) -> Option<&str> {
    UPDATE.iter().find_map(|end| path.strip_suffix(end))
}

/// Returns whether the parameter at `path` belongs to an update.
pub(super) fn is_of_update(path: &str) -> bool {
    map_of(path).is_some()
}

/// Adds a new adapter and freezes the rest of the model: on a device with autodiff, the adapter's parameters and those of the modules in
/// `modules_to_save` require gradients, and no others do.
///
/// `A` is drawn from U(−1/√in, 1/√in) on the host and `B` is 0, so the model computes the same as before. The numbers depend on `seed` and the
/// names of the maps alone. With `dora` a magnitude holds the lengths of the weight's rows. All of these are f32, whatever the dtype of the
/// model.
///
/// # Errors
///
/// [`Error::Adapter`] if the settings select no map, or name one or a module that does not exist.
pub fn attach<M: HasDecoder>(model: M, config: &LoraConfig, seed: u64) -> Result<M, Error> {
    add(model, config, seed, Names::Known)
}

/// Adds an adapter whose values come from a file. Names of modules that this model does not have are passed over.
pub(super) fn attach_known<M: HasDecoder>(model: M, config: &LoraConfig) -> Result<M, Error> {
    add(model, config, 0, Names::Any)
}

fn add<M: HasDecoder>(mut model: M, config: &LoraConfig, seed: u64, names: Names) -> Result<M, Error> {
    let config = &config.of_model(&model);
    let paths: Vec<String> = maps(model.decoder_mut()).map(|(path, _)| path).collect();
    let targets = config.resolve(&paths, names)?;
    for (path, map) in maps(model.decoder_mut()) {
        map.remove_update();
        if let Some(target) = targets.iter().find(|target| target.path == path) {
            let [outputs, inputs] = map.weight.lazy_shape().dims();
            let device = map.weight.lazy_device();
            let (rank, drawn) = (target.rank, target.clone());
            if names == Names::Known && rank > outputs.max(inputs) {
                let message = format!(
                    "`{path}` is a matrix of {outputs} by {inputs} numbers, and its update has the rank {rank}: no update needs a rank \
                     above {}; lower rank or rank_pattern",
                    outputs.min(inputs)
                );
                return Err(Error::Adapter { message });
            }
            let a = lazy([rank, inputs], &device, move || uniform(&drawn, inputs, seed));
            let b = lazy([outputs, rank], &device, move || TensorData::zeros::<f32, _>([outputs, rank]));
            let magnitude = config.dora.then(|| {
                let weight = map.weight.clone();
                lazy([outputs], &device, move || lengths(&weight))
            });
            map.set_update([a, b], magnitude, target.scale, name_hash(&path));
        }
    }
    model.decoder_mut().dropout = Dropout::at_rate(config.dropout_rate());
    let mut freeze = Freeze { path: ParamPath::default(), config, unseen: config.modules_to_save.clone() };
    let model = model.map(&mut freeze);
    if let Some(name) = freeze.unseen.first().filter(|_| names == Names::Known) {
        let message = format!("no module of the model is called `{name}`, which modules_to_save names");
        return Err(Error::Adapter { message });
    }
    Ok(with_stable_ids(model))
}

/// The size of an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterSize {
    /// Numbers in its factors and magnitudes.
    pub factors: u64,
    /// The part of them that is in magnitudes.
    pub magnitudes: u64,
    /// Numbers in the modules that are trained in full.
    pub saved: u64,
    /// The sum of the ranks of all updates.
    pub ranks: u64,
    /// Numbers of a token that dropout keeps for the backward pass: the inputs of all updates, if the adapter has dropout.
    pub dropped: u64,
}

impl AdapterSize {
    /// Returns how many numbers are trained.
    pub fn trained(&self) -> u64 {
        self.factors + self.saved
    }
}

/// Returns the size that an adapter has on a model. No memory is taken if the model holds none.
///
/// # Errors
///
/// As [`attach`].
pub fn adapter_size<M: HasDecoder>(model: M, config: &LoraConfig) -> Result<AdapterSize, Error> {
    let (config, model) = (config.of_model(&model), attach(model, config, 0)?);
    let mut size = AdapterSize::default();
    for Parameter { name, shape, .. } in parameters(&model) {
        let count = shape.iter().map(|&n| n as u64).product::<u64>();
        if is_of_update(&name) {
            size.factors += count;
            size.magnitudes += if name.ends_with(MAGNITUDE) { count } else { 0 };
            if name.ends_with(".lora_A.weight") {
                size.ranks += shape[0] as u64;
                size.dropped += if config.dropout_rate() > 0.0 { shape[1] as u64 } else { 0 };
            }
        } else if config.is_saved(&name) {
            size.saved += count;
        }
    }
    Ok(size)
}

/// Makes a parameter whose values are computed when they are first read.
fn lazy<const D: usize>(
    shape: [usize; D],
    device: &Device,
    values: impl FnOnce() -> TensorData + Send + Sync + 'static,
) -> Param<Tensor<D>> {
    let make = move |device: &Device, require_grad| {
        Tensor::from_data(values(), (device, DType::F32)).set_require_grad(require_grad)
    };
    Param::uninitialized(ParamId::new(), make, device.clone(), true, Shape::from(shape))
}

/// Returns the lengths of the rows of a weight, computed as those of its sum with an update of zero.
fn lengths(weight: &Weight) -> TensorData {
    let weight = weight.val();
    let weight = if weight.device().is_autodiff() { weight.inner() } else { weight };
    let [outputs, inputs] = weight.dims();
    let zeros = |shape: [usize; 2]| Tensor::zeros(shape, (&weight.device(), DType::F32));
    let update = LowRank { a: zeros([1, inputs]), b: zeros([outputs, 1]), scale: 1.0 };
    row_norms(weight.clone(), update).into_data()
}

/// Draws `A` as `torch.nn.init.kaiming_uniform_` with `a = √5` does: from U(−1/√in, 1/√in).
fn uniform(target: &Target, inputs: usize, seed: u64) -> TensorData {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(name_hash(&format!("{}.lora_A.weight", target.path)));
    let bound = (1.0 / inputs as f64).sqrt();
    let values: Vec<f32> = (0..target.rank * inputs).map(|_| ((2.0 * unit(&mut rng) - 1.0) * bound) as f32).collect();
    TensorData::new(values, [target.rank, inputs])
}

/// Says which parameters train.
struct Freeze<'a> {
    path: ParamPath,
    config: &'a LoraConfig,
    /// Names in `modules_to_save` that no module has had yet.
    unseen: Vec<String>,
}

impl ModuleMapper for Freeze<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.name();
        if !is_of_update(&path) {
            self.unseen.retain(|name| !is_saved_by(name, &path));
        }
        param.set_require_grad(is_adapter_parameter(self.config, &path))
    }
}

/// Returns the model without the low-rank updates; all other tensors are shared. Modules that are trained in full keep their present values.
pub fn without_adapter<M: HasDecoder>(model: &M) -> M {
    let mut model = model.clone();
    maps(model.decoder_mut()).for_each(|(_, map)| map.remove_update());
    model.decoder_mut().dropout = Dropout::default();
    model
}
