//! Number formats: bytes of a file to values and back. The files are little-endian, as is every machine that Burn's backends run on.

use std::borrow::Cow;

use burn::tensor::{DType, FloatDType, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;

const _: () = assert!(cfg!(target_endian = "little"));

/// The format of a weight file's tensor, if it is one of those that weights may have.
pub(super) fn float(dtype: Dtype) -> Option<FloatDType> {
    match dtype {
        Dtype::F32 => Some(FloatDType::F32),
        Dtype::BF16 => Some(FloatDType::BF16),
        Dtype::F16 => Some(FloatDType::F16),
        _ => None,
    }
}

/// The format in which parameters of this dtype are stored.
pub(super) fn stored(dtype: FloatDType) -> Dtype {
    match dtype {
        FloatDType::BF16 => Dtype::BF16,
        FloatDType::F16 => Dtype::F16,
        FloatDType::F64 | FloatDType::F32 | FloatDType::Flex32 => Dtype::F32,
    }
}

/// Values of the format `to` from the bytes of a tensor of the format `from`.
pub(super) fn decode(bytes: &[u8], from: FloatDType, to: FloatDType, shape: &[usize]) -> TensorData {
    let wide = |bytes: &[u8]| widen(bytes, from);
    let shape = shape.to_vec();
    match (from, to) {
        (FloatDType::BF16, FloatDType::BF16) => {
            TensorData::new(two(bytes).map(bf16::from_bits).collect::<Vec<_>>(), shape)
        }
        (FloatDType::F16, FloatDType::F16) => {
            TensorData::new(two(bytes).map(f16::from_bits).collect::<Vec<_>>(), shape)
        }
        (_, FloatDType::BF16) => {
            TensorData::new(wide(bytes).into_iter().map(bf16::from_f32).collect::<Vec<_>>(), shape)
        }
        (_, FloatDType::F16) => TensorData::new(wide(bytes).into_iter().map(f16::from_f32).collect::<Vec<_>>(), shape),
        _ => TensorData::new(wide(bytes), shape),
    }
}

/// Returns the f32 values of bytes in the format `from`; no value changes.
pub(crate) fn widen(bytes: &[u8], from: FloatDType) -> Vec<f32> {
    match from {
        FloatDType::BF16 => two(bytes).map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        FloatDType::F16 => two(bytes).map(|bits| f16::from_bits(bits).to_f32()).collect(),
        _ => four(bytes).map(f32::from_bits).collect(),
    }
}

/// The bytes of a tensor in the format `to`.
pub(super) fn encode(data: &TensorData, to: Dtype) -> Cow<'_, [u8]> {
    let same =
        matches!((data.dtype(), to), (DType::F32, Dtype::F32) | (DType::BF16, Dtype::BF16) | (DType::F16, Dtype::F16));
    if same {
        return Cow::Borrowed(data.as_bytes());
    }
    let values = data.iter::<f32>();
    Cow::Owned(match to {
        Dtype::BF16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        Dtype::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    })
}

fn two(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair))
}

fn four(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|&quad| u32::from_le_bytes(quad))
}
