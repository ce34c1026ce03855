//! The number formats of tensors.

use half::{bf16, f16};

/// The number format of the matrices in a GGUF file. Norms and biases are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberFormat {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 32 whole numbers in −127..=127 with an f16 scale: 8.5 bits a weight.
    Q8_0,
}

/// The number of weights in a block of [`NumberFormat::Q8_0`].
const BLOCK: usize = 32;

impl NumberFormat {
    /// Returns the code of a file that is mostly in this format (`general.file_type`).
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }

    /// Returns the code of a tensor in this format.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    /// Returns whether rows of this width can be written.
    pub(super) fn fits(self, width: usize) -> bool {
        self != Self::Q8_0 || width.is_multiple_of(BLOCK)
    }

    /// Returns the number of bytes that this many weights take.
    pub(super) fn bytes(self, weights: u64) -> u64 {
        match self {
            Self::F32 => 4 * weights,
            Self::F16 | Self::Bf16 => 2 * weights,
            Self::Q8_0 => weights / BLOCK as u64 * (BLOCK as u64 + 2),
        }
    }

    /// Appends a row. Fails with the first number that is not finite, or too large for the format.
    pub(super) fn encode(self, row: &[f32], out: &mut Vec<u8>) -> Result<(), f32> {
        let finite = |&x: &f32| if x.is_finite() { Ok(x) } else { Err(x) };
        match self {
            Self::F32 => row.iter().try_for_each(|x| finite(x).map(|x| out.extend(x.to_le_bytes()))),
            Self::F16 => row.iter().try_for_each(|&x| half(x).map(|half| out.extend(half.to_le_bytes()))),
            Self::Bf16 => row.iter().try_for_each(|&x| {
                let value = bf16::from_f32(x);
                if !value.is_finite() {
                    return Err(x);
                }
                out.extend(value.to_le_bytes());
                Ok(())
            }),
            Self::Q8_0 => row.chunks(BLOCK).try_for_each(|block| {
                block.iter().try_for_each(|x| finite(x).map(|_| ()))?;
                encode_block(block, out)
            }),
        }
    }
}

/// Appends a block: the scale `d = max|x| / 127` and each `x / d`, rounded half away from zero.
fn encode_block(block: &[f32], out: &mut Vec<u8>) -> Result<(), f32> {
    let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    // llama.cpp multiplies by the reciprocal, which rounds differently from a division.
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(half(scale).map_err(|_| largest)?.to_le_bytes());
    out.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
    Ok(())
}

/// Rounds to f16; fails with the number if f16 cannot hold it.
fn half(x: f32) -> Result<f16, f32> {
    let value = f16::from_f32(x);
    if value.is_finite() { Ok(value) } else { Err(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_scale_and_its_rounded_quotients() {
        // The largest is 127 scales, so quotients are the numbers themselves; halves go away from zero.
        let mut block = [0.0; BLOCK];
        block[..6].copy_from_slice(&[127.0, -126.5, 0.5, -0.5, 0.49, -3.0]);
        let mut bytes = Vec::new();
        NumberFormat::Q8_0.encode(&block, &mut bytes).unwrap();
        assert_eq!(bytes[..2], f16::from_f32(1.0).to_le_bytes());
        let codes: Vec<i8> = bytes[2..8].iter().map(|&byte| byte as i8).collect();
        assert_eq!(codes, [127, -127, 1, -1, 0, -3]);
        assert_eq!(bytes.len() as u64, NumberFormat::Q8_0.bytes(32));

        bytes.clear();
        NumberFormat::Q8_0.encode(&[0.0; BLOCK], &mut bytes).unwrap();
        assert_eq!(bytes, [0; 34]);
    }

    #[test]
    fn blocks_are_those_of_the_gguf_package() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/gguf.json");
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let rows = golden["q8_0"].as_array().unwrap();
        assert!(rows.len() >= 6);
        for case in rows {
            let row: Vec<f32> = case["row"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
            let mut bytes = Vec::new();
            NumberFormat::Q8_0.encode(&row, &mut bytes).unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, case["bytes"], "{row:?}");
        }
    }

    #[test]
    fn numbers_that_a_format_cannot_hold_are_named() {
        for (format, x) in [
            (NumberFormat::F32, f32::INFINITY),
            (NumberFormat::F16, 65_520.0),
            (NumberFormat::F16, -1e6),
            (NumberFormat::Bf16, f32::MAX),
            (NumberFormat::Q8_0, f32::NEG_INFINITY),
            (NumberFormat::Q8_0, 1e7),
        ] {
            let mut row = [1.0; BLOCK];
            row[7] = x;
            assert_eq!(format.encode(&row, &mut Vec::new()).map_err(f32::abs), Err(x.abs()), "{format:?}");
            row[7] = f32::NAN;
            assert!(format.encode(&row, &mut Vec::new()).is_err(), "{format:?}");
        }
        // The largest numbers that fit.
        NumberFormat::F16.encode(&[65_519.0], &mut Vec::new()).unwrap();
        NumberFormat::Q8_0.encode(&[65_504.0 * 127.0; BLOCK], &mut Vec::new()).unwrap();
    }
}
