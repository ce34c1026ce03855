//! The two moments of AdamW for one parameter, and what they are held in.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_ops::{AdamWStep, BLOCK, Blockwise, CodeValues, adamw};

use crate::Error;
use crate::tensor_file::TensorSpec;

/// The number format of the optimizer's two moments between steps.
///
/// Arithmetic is in f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MomentsFormat {
    /// Numbers in f32: 8 bytes for each parameter.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// 8-bit codes in blocks of 256 numbers with an f32 scale each, as bitsandbytes' `AdamW8bit`: 2.03 bytes for each parameter. As with
    /// `adamw_bnb_8bit` in transformers, embeddings and parameters of fewer than 4096 numbers have moments in f32.
    #[serde(rename = "8bit", alias = "int8")]
    EightBit,
}

impl MomentsFormat {
    /// The fewest numbers of a parameter whose moments are in codes: `min_8bit_size` of bitsandbytes.
    const SMALLEST: usize = 4096;

    /// Returns the format for a parameter with this path and number of elements.
    pub(crate) fn of(self, path: &str, elements: usize) -> Self {
        if path.ends_with("embed_tokens.weight") || elements < Self::SMALLEST { Self::F32 } else { self }
    }

    /// Returns the bytes that both moments of a parameter take, where codes are used.
    pub fn bytes(self) -> f64 {
        match self {
            Self::F32 => 8.0,
            Self::EightBit => 2.0 * (1.0 + 4.0 / BLOCK as f64),
        }
    }

    /// Returns why a device cannot hold moments in this format.
    pub(crate) fn problem_on(self, device: &Device) -> Option<String> {
        (self == Self::EightBit && !Blockwise::is_supported(device)).then(|| {
            "`optimizer.state` is \"8bit\", and the device has no 8-bit integers: set `train.optimizer.state` to \"f32\"".into()
        })
    }
}

/// The moments; tensors are flat, on the plain device.
#[derive(Clone, Debug)]
pub(crate) enum Moments {
    /// In f32.
    Full(Box<[Tensor<1>; 2]>),
    /// In 8-bit codes.
    Coded(Box<[Blockwise; 2]>),
}

/// The names of the moments in files, as in torch.
const NAMES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// The values of their codes: a second moment is not negative.
const VALUES: [CodeValues; 2] = [CodeValues::Signed, CodeValues::Unsigned];

impl Moments {
    /// Returns the moments of a parameter of `n` numbers before its first step.
    pub(crate) fn zeros(format: MomentsFormat, n: usize, device: &Device) -> Self {
        match format {
            MomentsFormat::F32 => Self::Full(Box::new([(); 2].map(|()| Tensor::zeros([n], (device, DType::F32))))),
            MomentsFormat::EightBit => Self::Coded(Box::new(VALUES.map(|values| Blockwise::zeros(n, values, device)))),
        }
    }

    /// Takes a step: the weight, f32 `[n]`, and the moments after it.
    pub(crate) fn step(self, weight: Tensor<1>, gradient: Tensor<1>, step: AdamWStep) -> (Tensor<1>, Self) {
        match self {
            Self::Full(full) => {
                let [exp_avg, exp_avg_sq] = *full;
                let (weight, exp_avg, exp_avg_sq) = adamw(weight, exp_avg, exp_avg_sq, gradient, step);
                (weight, Self::Full(Box::new([exp_avg, exp_avg_sq])))
            }
            Self::Coded(coded) => {
                let [first, second] = *coded;
                let (weight, exp_avg, exp_avg_sq) = adamw(weight, first.decode(), second.decode(), gradient, step);
                (weight, Self::Coded(Box::new([first.replaced_by(exp_avg), second.replaced_by(exp_avg_sq)])))
            }
        }
    }

    /// Returns name, type and shape of the tensors in a file: `{path}.exp_avg` and `{path}.exp_avg_sq`, and with codes
    /// `{path}.exp_avg.scales` and `{path}.exp_avg_sq.scales`.
    pub(crate) fn specs(format: MomentsFormat, path: &str, shape: &[usize]) -> Vec<TensorSpec> {
        let spec = |part: &str, dtype, shape: &[usize]| TensorSpec {
            name: format!("{path}.{part}"),
            dtype,
            shape: shape.to_vec(),
        };
        match format {
            MomentsFormat::F32 => NAMES.map(|name| spec(name, DType::F32, shape)).into(),
            MomentsFormat::EightBit => {
                let blocks = shape.iter().product::<usize>().div_ceil(BLOCK);
                let both =
                    |name: &str| [spec(name, DType::U8, shape), spec(&format!("{name}.scales"), DType::F32, &[blocks])];
                NAMES.into_iter().flat_map(both).collect()
            }
        }
    }

    /// Returns the format.
    pub(crate) fn format(&self) -> MomentsFormat {
        match self {
            Self::Full(_) => MomentsFormat::F32,
            Self::Coded(_) => MomentsFormat::EightBit,
        }
    }

    /// Reads the tensors of [`specs`](Self::specs) from the device, in their order; `None` after the last.
    pub(crate) fn data(&self, index: usize) -> Option<TensorData> {
        match self {
            Self::Full(moments) => moments.get(index).map(Tensor::to_data),
            Self::Coded(moments) => {
                let (codes, scales) = moments.get(index / 2)?.parts();
                Some(if index.is_multiple_of(2) { codes.to_data() } else { scales.to_data() })
            }
        }
    }

    /// Reads the moments of a parameter of `shape` through `read`, which takes the part's name and its shape in the file.
    pub(crate) fn read(
        format: MomentsFormat,
        shape: &[usize],
        device: &Device,
        mut read: impl FnMut(&str, &[usize]) -> Result<TensorData, Error>,
    ) -> Result<Self, Error> {
        let n: usize = shape.iter().product();
        let [first, second] = NAMES;
        match format {
            MomentsFormat::F32 => {
                let mut full = |name| read(name, shape).map(|data| flat_tensor(data, device));
                Ok(Self::Full(Box::new([full(first)?, full(second)?])))
            }
            MomentsFormat::EightBit => {
                let mut coded = |name: &str, values| -> Result<Blockwise, Error> {
                    let codes = read(name, shape)?;
                    let (bytes, ..) = codes.into_parts();
                    let codes: Tensor<1, Int> =
                        Tensor::from_data(TensorData::from_bytes(bytes, [n], DType::U8), (device, DType::U8));
                    let scales = flat_tensor(read(&format!("{name}.scales"), &[n.div_ceil(BLOCK)])?, device);
                    Ok(Blockwise::from_parts(codes, scales, values))
                };
                let [signed, unsigned] = VALUES;
                Ok(Self::Coded(Box::new([coded(first, signed)?, coded(second, unsigned)?])))
            }
        }
    }
}

/// Copies the numbers of a tensor to a device, `[n]`.
pub(crate) fn flat_tensor(data: TensorData, device: &Device) -> Tensor<1> {
    let elements = data.num_elements();
    let dtype = data.dtype();
    let (bytes, ..) = data.into_parts();
    Tensor::from_data(TensorData::from_bytes(bytes, [elements], dtype), (device, dtype))
}
