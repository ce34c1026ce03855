use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor, TensorData};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use setpoint_files::{Stage, Writer};

use super::file::tensor_header;
use super::names::ParamPath;
use super::weights::{INDEX, SINGLE};
use super::{SaveOptions, numbers};
use crate::Error;
use crate::config::ModelConfig;
use crate::weight::quantized_matrices;

/// Writes a Hugging Face folder: the weights as `model.safetensors`, or as shards with `model.safetensors.index.json`; `config.json` with
/// `dtype` set to what is written; `generation_config.json` if `options.generation` is given. `config.json` is replaced last.
///
/// One tensor at a time is held on the host. The files are completed in a hidden folder inside `dir`, synced, and only then replace the old
/// ones; a failure (a full disk, say) leaves `dir` as it was. Other files in `dir` are left alone, but for weights of an earlier save that
/// would now contradict the new ones.
///
/// # Errors
///
/// [`Error::Write`], [`Error::Device`], [`Error::Inconsistent`] for a config whose values do not fit together, and [`Error::Quantized`] for a
/// model with matrices in 4-bit codes.
pub fn save_model<M: Module>(module: &M, config: &ModelConfig, dir: &Path, options: &SaveOptions) -> Result<(), Error> {
    config.validate()?;
    let matrices = quantized_matrices(module);
    if let Some(first) = matrices.first() {
        let message = format!(
            "a model whose matrices are in 4-bit codes ({}, the first is `{first}`) cannot be saved whole; save its adapter, or load the \
             model without `quantize`",
            matrices.len()
        );
        return Err(Error::Quantized { message });
    }
    let tensors = collect(module, options.dtype, &|path| vec![path.to_owned()]);
    let dtype = tensors.first().map_or(Dtype::F32, |tensor| tensor.dtype);
    let shards = split(tensors, options.max_shard_bytes);

    let mut stage = Stage::new(dir)?;
    let count = shards.len();
    let file_name = |i: usize| match count {
        1 => SINGLE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    let mut weight_map = Map::new();
    let mut total = 0;
    for (i, shard) in shards.into_iter().enumerate() {
        for tensor in &shard {
            weight_map.insert(tensor.name.clone(), json!(file_name(i)));
            total += tensor.bytes();
        }
        stage.write(&file_name(i), |out| write_shard(out, shard))?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        stage.write(INDEX, |out| write_json(out, &index))?;
    }
    if let Some(generation) = &options.generation {
        stage.write("generation_config.json", |out| write_json(out, &generation.to_json()))?;
    }
    let mut config = config.clone();
    config.dtype = numbers::float(dtype);
    stage.write("config.json", |out| write_json(out, &config.to_json()))?;
    let keep: Vec<String> = (0..count).map(file_name).collect();
    let stale: Vec<String> =
        old_weights(dir).into_iter().filter(|name| !keep.contains(name) && (count == 1 || name != INDEX)).collect();
    // Killed between two renames, the folder must not hold an index over shards of two saves: the old index goes first, the new one comes
    // last. Readers prefer the single file to an index, so that one needs no such care.
    let before: &[&str] = if count > 1 { &[INDEX] } else { &[] };
    Ok(stage.commit(before, &stale)?)
}

/// The weight files of `dir` that a save of ours or of transformers wrote.
fn old_weights(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| {
            let middle = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
            let numbers = middle.and_then(|middle| middle.split_once("-of-"));
            let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            name == SINGLE || name == INDEX || numbers.is_some_and(|(i, count)| digits(i) && digits(count))
        })
        .collect()
}

struct Item {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    read: Box<dyn FnOnce() -> Result<TensorData, String>>,
}

impl Item {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes some parameters of a module into one file, and JSON files next to it, as [`save_model`] does. `names` returns the names under which
/// a parameter is stored.
///
/// # Errors
///
/// [`Error::Write`], [`Error::Device`].
pub(crate) fn save_selected<M: Module>(
    module: &M,
    dir: &Path,
    file: &str,
    names: &dyn Fn(&str) -> Vec<String>,
    others: &[(&str, Value)],
) -> Result<(), Error> {
    let mut stage = Stage::new(dir)?;
    stage.write(file, |out| write_shard(out, collect(module, None, names)))?;
    for (name, content) in others {
        stage.write(name, |out| write_json(out, content))?;
    }
    Ok(stage.commit(&[], &[])?)
}

/// Collects the parameters of a module, under the names that `names` returns for their paths.
fn collect<M: Module>(module: &M, dtype: Option<FloatDType>, names: &dyn Fn(&str) -> Vec<String>) -> Vec<Item> {
    let mut collect = Collect { path: ParamPath::default(), dtype, names, found: Vec::new() };
    module.visit(&mut collect);
    collect.found
}

struct Collect<'a> {
    path: ParamPath,
    dtype: Option<FloatDType>,
    names: &'a dyn Fn(&str) -> Vec<String>,
    found: Vec<Item>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        for name in (self.names)(&self.path.name()) {
            let tensor = param.val().inner();
            let dtype = self.dtype.unwrap_or_else(|| tensor.dtype().into());
            self.found.push(Item {
                name,
                shape: tensor.dims().to_vec(),
                dtype: numbers::stored(dtype),
                read: Box::new(move || tensor.try_into_data().map_err(|error| error.to_string())),
            });
        }
    }
}

/// Cuts the tensors into files in the order of the module.
fn split(tensors: Vec<Item>, max_bytes: u64) -> Vec<Vec<Item>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for tensor in tensors {
        let bytes = tensor.bytes() as u64;
        if size > 0 && size + bytes > max_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

/// Writes a file in the safetensors format.
fn write_shard(out: &mut Writer, shard: Vec<Item>) -> Result<(), Error> {
    let tensors = shard.iter().map(|tensor| (tensor.name.as_str(), tensor.dtype, tensor.shape.as_slice()));
    let header = tensor_header(tensors).map_err(|source| out.failed(source))?;
    out.put(&header)?;
    for tensor in shard {
        let data = (tensor.read)().map_err(|message| Error::Device { what: tensor.name.clone(), message })?;
        out.put(&numbers::encode(&data, tensor.dtype))?;
    }
    Ok(())
}

fn write_json(out: &mut Writer, value: &Value) -> Result<(), Error> {
    Ok(out.put(format!("{value:#}\n").as_bytes())?)
}
