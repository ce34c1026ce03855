//! Models whose matrices are put into 4-bit codes while they are read.

use burn::tensor::FloatDType;
use half::{bf16, f16};

use crate::Error;
use crate::checkpoint::{Checkpoint, LoadOptions, parameters, widen};
use crate::lora::{HasDecoder, maps};
use crate::nf4::{Nf4Matrix, NotFinite, Quantize};
use crate::weight::{Nf4Weight, Weight};

impl Checkpoint {
    /// Reads the tensors into a model; see [`load_model`](crate::checkpoint::load_model).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and [`Error::NotFinite`].
    pub fn load_model<M: HasDecoder>(&self, mut model: M, options: &LoadOptions) -> Result<M, Error> {
        let Some(quantize) = options.quantize else { return self.load(model, options) };
        let dtype = self.check(&parameters(&model), options)?;
        for (path, map) in maps(model.decoder_mut()) {
            let name = format!("{}{path}.weight", options.prefix);
            // An optional matrix that the files do not hold keeps its numbers.
            if self.shape(&name).is_some() {
                let matrix = self.quantized(&name, map.weight.lazy_shape().dims(), dtype, quantize)?;
                map.weight = Weight::Nf4(Nf4Weight::new(&matrix, dtype, &map.weight.lazy_device()));
            }
        }
        self.fill(model, options, dtype)
    }

    /// Returns a matrix in codes: as the files hold it, or quantised from its numbers in the format `dtype`.
    fn quantized(
        &self,
        name: &str,
        shape: [usize; 2],
        dtype: FloatDType,
        quantize: Quantize,
    ) -> Result<Nf4Matrix, Error> {
        let Quantize::Nf4 { double_quant } = quantize;
        if let Some(matrix) = self.nf4(name)? {
            return Ok(matrix);
        }
        let from = self.format(name, &shape)?.unwrap_or(FloatDType::F32);
        let mut numbers = widen(&self.bytes_of(name)?, from);
        match dtype {
            FloatDType::BF16 => numbers.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
            FloatDType::F16 => numbers.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
            FloatDType::F64 | FloatDType::F32 | FloatDType::Flex32 => {}
        }
        Nf4Matrix::quantize(&numbers, shape, dtype, double_quant).map_err(|NotFinite { place, found }| {
            Error::NotFinite { path: self.path_of(name), tensor: name.to_owned(), place, found }
        })
    }
}
