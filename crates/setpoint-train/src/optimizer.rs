//! AdamW with moments in f32 or in 8-bit codes, whatever the parameters' dtype.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_ops::AdamWStep;
use setpoint_transformer::checkpoint::ParamPath;

use crate::Error;
use crate::moments::{Moments, MomentsFormat, flat_tensor};
use crate::parameters::{self, AutodiffState};
use crate::sink::GradientSink;
use crate::state_file::OptimizerState;
use crate::tensor_file::{TensorReader, TensorSpec};

/// Constants of [`AdamW`]; the defaults are torch's, except that nothing decays unless asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay rates of the two moments, β₁ and β₂.
    pub betas: (f64, f64),
    /// The number ε that is added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay λ, on parameters of rank 2 and higher only; norms and biases do not decay.
    pub weight_decay: f64,
    /// The format of the two moments: "f32", or "8bit" (blockwise codes as in bitsandbytes, a quarter of the memory).
    pub state: MomentsFormat,
    /// Steps each block inside the backward pass, so that the gradients of two blocks never exist at once. A step is one
    /// micro-batch then, and gradients can be clipped by the norm of the step before (`train.clip_by`).
    pub in_backward: bool,
    /// Divides the moments and the master weights among the devices of a run, each of which moves its part of the weights: DeepSpeed's
    /// ZeRO, stage 1, and with `in_backward` stage 2. One device has nothing to divide.
    pub shard: bool,
    /// The learning rate of an adapter's second factors (`lora_B`), and of vectors, as a multiple of that of all other parameters. It is a
    /// setting of the adapter, not of `[train]`.
    #[serde(skip)]
    pub plus_ratio: f64,
    /// The learning rate of a value network, the parameters below `value`, as a multiple of that of all other parameters. It is a setting of
    /// the method, not of `[train]`.
    #[serde(skip)]
    pub value_ratio: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            state: MomentsFormat::F32,
            in_backward: false,
            shard: true,
            plus_ratio: 1.0,
            value_ratio: 1.0,
        }
    }
}

/// The beginning of the paths of a value network's parameters.
const VALUE: &str = "value.";

/// AdamW (Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, Algorithm 2), with the
/// order of operations of `torch.optim.AdamW`:
///
/// ```text
/// θ ← θ − η·λ·θ
/// m ← β₁·m + (1 − β₁)·g          v ← β₂·v + (1 − β₂)·g²
/// θ ← θ − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
/// ```
///
/// Moments are f32, or in 8-bit codes between steps ([`MomentsFormat`]). A bf16 or f16 parameter has an f32 master copy, because an update of 5e-7 would
/// vanish in it; an f32 parameter is its own master. State is keyed by the parameter's path, `t` is
/// counted for each parameter, and a parameter without a gradient does not move.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    state: BTreeMap<String, State>,
}

/// State of one parameter; tensors are flat, on the plain device.
#[derive(Clone, Debug)]
struct State {
    steps: u64,
    shape: Vec<usize>,
    moments: Moments,
    /// Only where the parameter is not f32.
    master: Option<Tensor<1>>,
}

impl AdamW {
    /// An optimizer that has not seen a gradient.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, state: BTreeMap::new() }
    }

    /// The constants.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Moves the parameters that have a gradient.
    ///
    /// `scale` multiplies every gradient ([`clip_scale`](crate::clip_scale)); it is folded into the
    /// moments' coefficients, so clipping costs no pass over the gradients. Parameters are updated
    /// in place where no other handle to them is alive, so drop copies of the model
    /// (`model.valid()`) before.
    ///
    /// # Errors
    /// When a gradient belongs to no trainable parameter of `model`.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: GradientSink,
        learning_rate: f64,
        scale: f64,
    ) -> Result<M, Error> {
        let mut mapper = Step { path: ParamPath::default(), optimizer: self, gradients, learning_rate, scale };
        let model = model.map(&mut mapper);
        match mapper.gradients.left_over() {
            Some(path) => Err(Error::StrayGradient { path: path.into() }),
            None => Ok(model),
        }
    }

    /// One parameter's update: `value` and `gradient` are flat and on the plain device.
    fn update(
        &mut self,
        path: String,
        value: Tensor<1>,
        shape: &[usize],
        gradient: Tensor<1>,
        learning_rate: f64,
        scale: f64,
    ) -> Tensor<1> {
        let AdamWConfig {
            betas: (beta1, beta2),
            eps,
            weight_decay,
            state: format,
            plus_ratio,
            value_ratio,
            in_backward: _,
            shard: _,
        } = self.config;
        let is_second_factor = path.ends_with(".lora_B.weight");
        let learning_rate = learning_rate * if is_second_factor || shape.len() == 1 { plus_ratio } else { 1.0 };
        let learning_rate = learning_rate * if path.starts_with(VALUE) { value_ratio } else { 1.0 };
        let dtype = value.dtype();
        let State { steps, moments, master, .. } = self.state.remove(&path).unwrap_or_else(|| {
            let elements = shape.iter().product();
            State {
                steps: 0,
                shape: shape.to_vec(),
                moments: Moments::zeros(format.of(&path, elements), elements, &value.device()),
                master: (dtype != DType::F32).then(|| value.clone().cast(FloatDType::F32)),
            }
        });
        let steps = steps + 1;
        let decays = weight_decay != 0.0 && shape.len() >= 2;
        // powf, because the number of steps may exceed powi's i32.
        let step = AdamWStep {
            decay: if decays { 1.0 - learning_rate * weight_decay } else { 1.0 },
            beta1,
            beta2,
            scale,
            rate: learning_rate / (1.0 - beta1.powf(steps as f64)),
            root: (1.0 - beta2.powf(steps as f64)).sqrt(),
            eps,
        };
        let (weight, moments) = moments.step(master.unwrap_or(value), gradient, step);
        let (value, master) = if dtype == DType::F32 {
            (weight, None)
        } else {
            (weight.clone().cast(FloatDType::from(dtype)), Some(weight))
        };
        let shape = shape.to_vec();
        self.state.insert(path, State { steps, shape, moments, master });
        value
    }

    /// Reads the state of the parameters of `model` that this optimizer moves, from a file of the state of all.
    ///
    /// # Errors
    /// When the file is not what it should be for `model`, whether the part in question is this optimizer's or not.
    pub(crate) fn load<M: Module>(
        config: AdamWConfig,
        model: &M,
        path: &std::path::Path,
        moves: impl Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        let reader = TensorReader::open(path)?;
        let mut unread: BTreeSet<String> = reader.names().map(str::to_string).collect();
        let mut optimizer = Self::new(config);
        for info in parameters::list(model) {
            let (name, shape) = (&info.spec.name, &info.spec.shape);
            if !info.trains || reader.shape(&format!("{name}.{STEP}")).is_none() {
                continue;
            }
            let format = config.state.of(name, shape.iter().product());
            let has_master = info.spec.dtype != DType::F32;
            for spec in specs(format, has_master, name, shape) {
                reader.check(&spec.name, &spec.shape)?;
                unread.remove(&spec.name);
            }
            if !moves(name) {
                continue;
            }
            let read = |part: &str, shape: &[usize]| reader.read(&format!("{name}.{part}"), shape);
            let state = State {
                steps: read(STEP, &[1])?.iter::<i64>().next().unwrap_or(0) as u64,
                shape: shape.clone(),
                moments: Moments::read(format, shape, &info.device, read)?,
                master: match has_master {
                    true => Some(flat_tensor(read(MASTER, shape)?, &info.device)),
                    false => None,
                },
            };
            optimizer.state.insert(name.clone(), state);
        }
        match unread.first() {
            Some(key) => Err(Error::corrupt(path, format!("`{key}` belongs to no trainable parameter of the model"))),
            None => Ok(optimizer),
        }
    }
}

/// The names of the parts of a state besides the moments.
const STEP: &str = "step";
const MASTER: &str = "master";

/// Returns name, type and shape of the tensors of a parameter's state: `{path}.step`, the [moments](Moments::specs), and `{path}.master`
/// where there is one.
fn specs(format: MomentsFormat, has_master: bool, path: &str, shape: &[usize]) -> Vec<TensorSpec> {
    let spec = |part: &str, dtype, shape: &[usize]| TensorSpec {
        name: format!("{path}.{part}"),
        dtype,
        shape: shape.to_vec(),
    };
    let mut specs = vec![spec(STEP, DType::I64, &[1])];
    specs.extend(Moments::specs(format, path, shape));
    specs.extend(has_master.then(|| spec(MASTER, DType::F32, shape)));
    specs
}

impl State {
    fn specs(&self, path: &str) -> Vec<TensorSpec> {
        specs(self.moments.format(), self.master.is_some(), path, &self.shape)
    }
}

impl OptimizerState for AdamW {
    fn tensors(&self) -> Result<BTreeMap<String, Vec<TensorSpec>>, Error> {
        Ok(self.state.iter().map(|(path, state)| (path.clone(), state.specs(path))).collect())
    }

    fn read(&self, path: &str, tensor: &str) -> Result<Option<TensorData>, Error> {
        let read = |state: &State| match state.specs(path).iter().position(|spec| spec.name == tensor)? {
            0 => Some(TensorData::from([state.steps as i64])),
            // The master copy follows the moments.
            index => state.moments.data(index - 1).or_else(|| state.master.as_ref().map(Tensor::to_data)),
        };
        Ok(self.state.get(path).and_then(read))
    }
}

struct Step<'a> {
    path: ParamPath,
    optimizer: &'a mut AdamW,
    gradients: GradientSink,
    learning_rate: f64,
    scale: f64,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        let path = self.path.name();
        let Some(gradient) = self.gradients.take(&path) else {
            return param;
        };
        // `consume` leaves this the only handle, so that the update happens in place.
        let (id, tensor, mapper) = param.consume();
        let state = AutodiffState::of(&tensor);
        let dims = tensor.dims();
        // [..] -> [n]
        let flat: Tensor<1> = tensor.inner().reshape([dims.iter().product::<usize>()]);
        let updated = self.optimizer.update(path, flat, &dims, gradient, self.learning_rate, self.scale);
        // [n] -> [..]
        let updated: Tensor<D> = updated.reshape(dims);
        Param::from_mapped_value(id, state.restore(updated), mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::state_file;

    #[derive(Module, Debug)]
    struct Two {
        matrix: Param<Tensor<2>>,
        vector: Param<Tensor<1>>,
    }

    fn stepped(optimizer: &mut AdamW, model: Two) -> Two {
        // Gradients 2·matrix + 1 and 1.
        let loss = (model.matrix.val().powi_scalar(2) + model.matrix.val()).sum() + model.vector.val().sum();
        let mut sink = GradientSink::new();
        sink.accept("", &model, &mut loss.backward());
        optimizer.step(model, sink, 1e-2, 1.0).unwrap()
    }

    #[test]
    fn what_was_saved_goes_on_with_the_same_bits() {
        let device = Device::flex().autodiff();
        let numbers: Vec<f32> = (0..4160).map(|i| (i as f32 * 0.1).sin()).collect();
        for state in [MomentsFormat::F32, MomentsFormat::EightBit] {
            let mut model = Two {
                matrix: Param::from_data(TensorData::new(numbers.clone(), [65, 64]), &device),
                vector: Param::from_data([1.0_f32, 2.0], &device),
            };
            let config = AdamWConfig { state, ..AdamWConfig::default() };
            let mut optimizer = AdamW::new(config);
            for _ in 0..3 {
                model = stepped(&mut optimizer, model);
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("optimizer.safetensors");
            state_file::save(&optimizer, &path).unwrap();
            let mut loaded = AdamW::load(config, &model, &path, |_| true).unwrap();
            let copy = model.clone();
            let [went_on, resumed] = [stepped(&mut optimizer, model), stepped(&mut loaded, copy)];
            let bits =
                |model: &Two| -> Vec<u32> { model.matrix.val().into_data().iter::<f32>().map(f32::to_bits).collect() };
            assert_eq!(bits(&went_on), bits(&resumed), "{state:?}");
            let size = std::fs::metadata(&path).unwrap().len();
            let moments = 4160.0 * state.bytes();
            assert!((moments..moments + 1000.0).contains(&(size as f64)), "{state:?}: {size}");
        }
    }

    #[test]
    fn a_part_of_the_state_is_read_from_the_file_of_all() {
        let device = Device::flex().autodiff();
        let matrix = Param::from_data([[1.0_f32, -2.0], [0.5, 3.0]], &device);
        let mut model = Two { matrix, vector: Param::from_data([1.0_f32, 2.0], &device) };
        let mut optimizer = AdamW::new(AdamWConfig::default());
        model = stepped(&mut optimizer, model);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        state_file::save(&optimizer, &path).unwrap();
        let part = AdamW::load(AdamWConfig::default(), &model, &path, |path| path == "vector").unwrap();
        assert_eq!(part.tensors().unwrap().keys().collect::<Vec<_>>(), ["vector"]);
        let read = |optimizer: &AdamW| optimizer.read("vector", "vector.exp_avg").unwrap().unwrap();
        assert_eq!(read(&part), read(&optimizer));
        // What does not fit the model is found, whoever it belongs to.
        let other = Two { matrix: Param::from_data([[1.0_f32, -2.0]], &device), ..model };
        let error = AdamW::load(AdamWConfig::default(), &other, &path, |path| path == "vector").unwrap_err();
        assert!(error.to_string().contains("`matrix.exp_avg`: expected shape [1, 2], found [2, 2]"), "{error}");
    }
}
