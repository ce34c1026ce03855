//! The scales of the blocks, as they are or quantised once more.

use std::sync::OnceLock;

/// The scale of each block of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scales {
    /// As f32.
    Single(Vec<f32>),
    /// As 8-bit codes.
    Double(Double),
}

/// Scales as 8-bit codes: a block's scale is `values[code] · absmax + offset`, where `absmax` is shared by 256 blocks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Double {
    pub(crate) codes: Vec<u8>,
    pub(crate) absmax: Vec<f32>,
    /// The blocks that share an `absmax`.
    pub(crate) block: usize,
    pub(crate) offset: f32,
    /// The values of the 256 codes.
    pub(crate) values: Vec<f32>,
}

/// The blocks that share an `absmax`.
pub(super) const BLOCK: usize = 256;

impl Scales {
    /// Returns the number of blocks.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Single(scales) => scales.len(),
            Self::Double(double) => double.codes.len(),
        }
    }

    /// Returns the bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Single(scales) => 4 * scales.len(),
            Self::Double(double) => double.codes.len() + 4 * double.absmax.len(),
        }
    }

    /// Returns the scale of a block.
    pub(super) fn get(&self, block: usize) -> f32 {
        match self {
            Self::Single(scales) => scales[block],
            // Rounded twice, as bitsandbytes does.
            Self::Double(double) => {
                double.values[usize::from(double.codes[block])] * double.absmax[block / double.block] + double.offset
            }
        }
    }
}

impl Double {
    /// Quantises the scales of a matrix.
    pub(super) fn quantize(scales: &[f32]) -> Self {
        let sum: f64 = scales.iter().map(|&scale| f64::from(scale)).sum();
        let offset = (sum / scales.len().max(1) as f64) as f32;
        Self::around(scales, offset)
    }

    /// Quantises the distances of the scales from `offset`.
    pub(super) fn around(scales: &[f32], offset: f32) -> Self {
        let mut codes = Vec::with_capacity(scales.len());
        let mut absmax = Vec::with_capacity(scales.len().div_ceil(BLOCK));
        for block in scales.chunks(BLOCK) {
            let largest = block.iter().fold(0.0_f32, |largest, scale| largest.max((scale - offset).abs()));
            absmax.push(largest);
            let inverse = 1.0 / largest;
            codes
                .extend(block.iter().map(|scale| if largest == 0.0 { 0 } else { nearest((scale - offset) * inverse) }));
        }
        Self { codes, absmax, block: BLOCK, offset, values: values().to_vec() }
    }
}

/// The numbers in −1..=1 for which a code is looked up.
const STEPS: usize = 1 << 16;

/// Returns the code of the value that is nearest to the nearest of [`STEPS`] numbers, as bitsandbytes' CPU library does.
fn nearest(x: f32) -> u8 {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let last = (STEPS - 1) as f32;
    let table = TABLE.get_or_init(|| {
        let values = values();
        let code = |x: f32| {
            let right = values.partition_point(|&value| value < x);
            match (right.checked_sub(1), values.get(right)) {
                (None, _) => 0,
                (Some(left), Some(value)) if value - x < x - values[left] => right,
                (Some(left), _) => left,
            }
        };
        (0..STEPS).map(|step| code(step as f32 / last * 2.0 - 1.0) as u8).collect()
    });
    let step = (x.clamp(-1.0, 1.0) + 1.0) * 0.5 * last + 0.5;
    table[(step as usize).min(STEPS - 1)]
}

/// Returns the values of the 256 codes, ascending: bitsandbytes' dynamic map.
///
/// For each of seven powers of ten there are 1, 2, 4, … 64 of each sign: the middles of equal parts of 0.1 to 1, times the power. 0 and 1
/// are values as well.
pub(super) fn values() -> &'static [f32] {
    static VALUES: OnceLock<Vec<f32>> = OnceLock::new();
    VALUES.get_or_init(|| {
        let mut values = vec![0.0, 1.0];
        for exponent in 0..7_i32 {
            let parts = 1_usize << exponent;
            // The ends of the parts, rounded as torch.linspace rounds them: from the nearer end, with one rounding.
            let width = (1.0 - 0.1_f32) / parts as f32;
            let end = |i: usize| match i < parts.div_ceil(2) {
                true => width.mul_add(i as f32, 0.1),
                false => (-width).mul_add((parts - i) as f32, 1.0),
            };
            let power = 10_f64.powi(exponent - 6) as f32;
            for i in 0..parts {
                let middle = (end(i) + end(i + 1)) / 2.0;
                values.extend([power * middle, -(power * middle)]);
            }
        }
        values.sort_by(f32::total_cmp);
        values
    })
}
