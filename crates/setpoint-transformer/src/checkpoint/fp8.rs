//! Matrices of 8-bit floats (`float8_e4m3fn`) with scales: DeepSeek's and Qwen's, with a scale for each block (`X.weight_scale_inv`), and
//! llm-compressor's, with a scale for each row or for the whole matrix (`X.weight_scale`). A number is its code times its scale, rounded once
//! to the format of the model.

use safetensors::Dtype;

use super::Checkpoint;
use super::numbers;
use super::quantized::Packed;
use super::reader::Entry;
use crate::Error;
use crate::config::{fp8_block, object};

/// The endings of the scales' names.
const ENDINGS: [&str; 2] = [".weight_scale_inv", ".weight_scale"];
/// Scales of the layer's input, which is not quantised here.
const OF_INPUT: [&str; 2] = [".input_scale", ".activation_scale"];

impl Checkpoint {
    /// Returns the names of the scales of matrices of 8-bit floats.
    pub(super) fn fp8_scales(&self) -> Vec<String> {
        let is_fp8 = |name: &str| self.tensors.get(name).is_some_and(|entry| entry.info.dtype == Dtype::F8_E4M3);
        let names = self.tensors.keys().filter(|name| {
            ENDINGS
                .iter()
                .any(|ending| name.strip_suffix(ending).is_some_and(|module| is_fp8(&format!("{module}.weight"))))
        });
        names.cloned().collect()
    }

    /// Replaces a matrix of 8-bit floats and its scales by the matrix. `dtype`: the format of the model.
    pub(super) fn unite_fp8(&mut self, scales: &str, dtype: Dtype) -> Result<(), Error> {
        let Some((module, ending)) = ENDINGS.iter().find_map(|ending| Some((scales.strip_suffix(ending)?, *ending)))
        else {
            return Ok(());
        };
        let name = format!("{module}.weight");
        let (Some(codes), Some(factors)) = (self.tensors.get(&name).cloned(), self.tensors.get(scales).cloned()) else {
            return Ok(());
        };
        let &[rows, width] = codes.info.shape.as_slice() else {
            return Err(self.damaged_at(&codes, format!("of 8-bit floats, `{name}`, has shape {:?}", codes.info.shape)));
        };
        if numbers::float(factors.info.dtype).is_none() {
            let message =
                format!("has scales, `{scales}`, of dtype {:?}; expected F32, BF16 or F16", factors.info.dtype);
            return Err(self.damaged_at(&factors, message));
        }
        let by_blocks = ending == ENDINGS[0];
        let block = match factors.info.shape.as_slice() {
            [] | [1] => [rows.max(1), width.max(1)],
            [1, 1] if !by_blocks => [rows.max(1), width.max(1)],
            &[count] | &[count, 1] if !by_blocks && count == rows => [1, width.max(1)],
            &[down, across] if by_blocks => {
                let block = self.block_size()?;
                if [down, across] != [rows.div_ceil(block[0]), width.div_ceil(block[1])] {
                    let message = format!(
                        "`{name}` of shape [{rows}, {width}] has scales of shape [{down}, {across}], which do not fit blocks of {} by {}",
                        block[0], block[1]
                    );
                    return Err(self.damaged_at(&factors, message));
                }
                block
            }
            shape => {
                let message = format!(
                    "`{name}` of shape [{rows}, {width}] has scales of shape {shape:?}; expected one a row, or one"
                );
                return Err(self.damaged_at(&factors, message));
            }
        };
        self.tensors.remove(scales);
        for ending in OF_INPUT {
            self.tensors.remove(&format!("{module}{ending}"));
        }
        let packed = Packed::Fp8 { codes: codes.clone(), scales: factors, block };
        self.tensors.insert(name, Entry::packed(codes, dtype, vec![rows, width], packed));
        Ok(())
    }

    /// Returns the size of the blocks that share a scale, which the configuration states.
    fn block_size(&self) -> Result<[usize; 2], Error> {
        let path = self.dir.join("config.json");
        let map = object(&path, &setpoint_files::read_text(&path)?)?;
        fp8_block(&map).ok_or_else(|| Error::Inconsistent {
            path,
            message: "`quantization_config.weight_block_size` is none; expected two whole numbers above 0".to_owned(),
        })
    }
}

/// Computes a row of numbers from its codes and from the scales of the blocks that it crosses.
pub(super) fn dequantize(codes: &[u8], scales: &[f32], block: usize, row: &mut [f32]) {
    for (j, (x, &code)) in row.iter_mut().zip(codes).enumerate() {
        *x = e4m3(code) * scales[j / block];
    }
}

/// Returns the value of a code: a sign, four bits of exponent with bias 7, three of mantissa. There are no infinities, and one NaN of each
/// sign.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from((code >> 3) & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code & 128 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_values_of_the_format() {
        // From "FP8 Formats for Deep Learning" (Micikevicius et al., 2022), table 1.
        let cases =
            [(0x00, 0.0), (0x01, 2f32.powi(-9)), (0x07, 0.875 * 2f32.powi(-6)), (0x08, 2f32.powi(-6)), (0x7e, 448.0)];
        for (code, value) in cases {
            assert_eq!(e4m3(code).to_bits(), f32::to_bits(value), "{code:#x}");
            assert_eq!(e4m3(code | 0x80).to_bits(), f32::to_bits(-value), "{code:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        // Their order is that of their values.
        assert!((0..0x7e).all(|code| e4m3(code) < e4m3(code + 1)));
    }

    #[test]
    fn columns_have_the_scale_of_their_block() {
        let mut row = [0.0; 5];
        dequantize(&[0x38; 5], &[1.0, 2.0, 4.0], 2, &mut row);
        assert_eq!(row, [1.0, 1.0, 2.0, 2.0, 4.0]);
    }
}
