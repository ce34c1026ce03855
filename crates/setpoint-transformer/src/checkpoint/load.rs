use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, FloatDType, Tensor};

use super::names::{ParamPath, Parameter, name_hash, parameters};
use super::{Checkpoint, LoadOptions, numbers};
use crate::Error;
use crate::config::dtype_name;

/// Buffers that old versions of transformers stored and that are computed here.
const OBSOLETE: &str = ".rotary_emb.inv_freq";

/// Returns whether a tensor is one of those buffers.
pub(crate) fn is_obsolete(name: &str) -> bool {
    name.ends_with(OBSOLETE)
}

impl Checkpoint {
    /// Reads the tensors into a module, after checking all of them; see [`load_module`](super::load_module).
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], [`Error::UnexpectedTensor`], [`Error::WrongShape`], [`Error::UnsupportedDtype`], [`Error::DeviceDtype`],
    /// [`Error::Read`]; [`Error::Quantized`] if the options say to quantise.
    pub fn load<M: Module>(&self, module: M, options: &LoadOptions) -> Result<M, Error> {
        if options.quantize.is_some() {
            let message = "only whole models can be quantised while they are read; leave out `quantize`";
            return Err(Error::Quantized { message: message.to_owned() });
        }
        let dtype = self.check(&parameters(&module), options)?;
        self.fill(module, options, dtype)
    }

    /// Reads the tensors into a module that they fit.
    pub(crate) fn fill<M: Module>(&self, module: M, options: &LoadOptions, dtype: FloatDType) -> Result<M, Error> {
        let mut fill = Fill { checkpoint: self, options, dtype, path: ParamPath::default(), error: None };
        let module = module.map(&mut fill);
        match fill.error {
            Some(error) => Err(error),
            None => Ok(module),
        }
    }

    /// Checks every tensor and answers the dtype that the parameters will have.
    pub(crate) fn check(&self, wanted: &[Parameter], options: &LoadOptions) -> Result<FloatDType, Error> {
        let mut missing = Vec::new();
        let mut used = BTreeSet::new();
        let mut formats = Vec::new();
        for parameter in wanted {
            let name = format!("{}{}", options.prefix, parameter.name);
            let Some(format) = self.format(&name, &parameter.shape)? else {
                if !matches(&options.optional, &name) {
                    missing.push((name, parameter.shape.clone()));
                }
                continue;
            };
            if !formats.contains(&format) {
                formats.push(format);
            }
            used.insert(name);
        }
        let unexpected =
            |name: &&String| !used.contains(*name) && !matches(&options.ignore, name) && !is_obsolete(name);
        self.require_none_missing(&missing)?;
        self.require_none_extra(unexpected)?;
        let devices: Vec<&Device> = wanted.iter().map(|parameter| &parameter.device).collect();
        choose(&formats, options.dtype, &devices)
    }

    /// Fails if tensors (name and shape) are missing, naming the first.
    pub(crate) fn require_none_missing(&self, missing: &[(String, Vec<usize>)]) -> Result<(), Error> {
        let Some((tensor, expected)) = missing.first() else { return Ok(()) };
        Err(Error::MissingTensor {
            dir: self.dir.clone(),
            hint: self.hint(tensor),
            tensor: tensor.clone(),
            expected: expected.clone(),
            more: missing.len() - 1,
        })
    }

    /// Fails if the files hold tensors that `is_extra` names, naming the first.
    pub(crate) fn require_none_extra(&self, is_extra: impl Fn(&&String) -> bool) -> Result<(), Error> {
        let mut extra = self.tensors.keys().filter(is_extra);
        let Some(tensor) = extra.next() else { return Ok(()) };
        let entry = &self.tensors[tensor];
        Err(Error::UnexpectedTensor {
            path: self.files[entry.file].path().to_owned(),
            tensor: tensor.clone(),
            found: entry.info.shape.clone(),
            more: extra.count(),
        })
    }

    /// Reads a tensor.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], [`Error::UnsupportedDtype`], [`Error::Read`].
    pub(crate) fn tensor<const D: usize>(
        &self,
        name: &str,
        dtype: FloatDType,
        device: &Device,
    ) -> Result<Tensor<D>, Error> {
        let Some(entry) = self.tensors.get(name) else {
            let (dir, tensor) = (self.dir.clone(), name.to_owned());
            return Err(Error::MissingTensor { dir, tensor, expected: Vec::new(), hint: String::new(), more: 0 });
        };
        let Some(from) = numbers::float(entry.info.dtype) else {
            let (path, tensor) = (self.files[entry.file].path().to_owned(), name.to_owned());
            return Err(Error::UnsupportedDtype { path, tensor, found: format!("{:?}", entry.info.dtype) });
        };
        let data = numbers::decode(&self.bytes(entry)?, from, dtype, &entry.info.shape);
        Ok(Tensor::from_data(data, (device, dtype.into())))
    }

    fn hint(&self, tensor: &str) -> String {
        let tied = tensor == "lm_head.weight" && self.tensors.contains_key("model.embed_tokens.weight");
        if tied { "; set tie_word_embeddings to true in config.json if the head is the embedding" } else { "" }
            .to_owned()
    }
}

/// The dtype of the parameters: the one asked for, or else the file's, or else f32.
fn choose(formats: &[FloatDType], asked: Option<FloatDType>, devices: &[&Device]) -> Result<FloatDType, Error> {
    let supported = |dtype: FloatDType| devices.iter().all(|device| device.supports_dtype(dtype));
    match (asked, formats) {
        (Some(dtype), _) if supported(dtype) => Ok(dtype),
        (Some(dtype), _) => {
            let names = [FloatDType::F32, FloatDType::BF16, FloatDType::F16];
            let names: Vec<_> = names.into_iter().filter(|&dtype| supported(dtype)).map(dtype_name).collect();
            Err(Error::DeviceDtype {
                device: devices.first().map(|device| format!("{device:?}")).unwrap_or_default(),
                dtype: dtype_name(dtype).to_owned(),
                supported: names.join(", "),
            })
        }
        (None, &[dtype]) if supported(dtype) => Ok(dtype),
        (None, _) => Ok(FloatDType::F32),
    }
}

/// Returns whether a name is in a list whose entries may stand for everything below them.
fn matches(list: &[String], name: &str) -> bool {
    list.iter().any(|entry| name == entry || (entry.ends_with('.') && name.starts_with(entry.as_str())))
}

struct Fill<'a> {
    checkpoint: &'a Checkpoint,
    options: &'a LoadOptions,
    dtype: FloatDType,
    path: ParamPath,
    error: Option<Error>,
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let name = self.path.name();
        let id = ParamId::from(name_hash(&name));
        let stored = format!("{}{name}", self.options.prefix);
        if self.checkpoint.shape(&stored).is_none() {
            // One of the optional ones: its own value, in the dtype of the others.
            let value = param.val().inner().cast(self.dtype);
            let value = if param.lazy_device().is_autodiff() { value.autodiff() } else { value };
            return param.transform_for_load(value, id);
        }
        match self.checkpoint.tensor(&stored, self.dtype, &param.lazy_device()) {
            Ok(tensor) => param.transform_for_load(tensor, id),
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
