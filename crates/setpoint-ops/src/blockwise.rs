//! Numbers in 8-bit codes, in blocks with a scale each: what the optimizer's moments are held in (Dettmers et al., "8-bit Optimizers via
//! Block-wise Quantization", <https://arxiv.org/abs/2110.02861>, section 2).

use std::sync::OnceLock;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::composed;

/// The numbers in a block.
pub const BLOCK: usize = 256;

/// The number of values that a code has.
pub(crate) const CODES: usize = 256;

/// Smaller scales are taken for this one, so that a block of zeros divides by no zero.
pub(crate) const SMALLEST_SCALE: f32 = 1e-38;

/// The values of the codes, as fractions of their block's scale: the dynamic data type of bitsandbytes (`create_dynamic_map`), whose
/// steps are small next to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeValues {
    /// −1 to 1: first moments.
    Signed,
    /// 0 to 1: second moments.
    Unsigned,
}

impl CodeValues {
    /// Returns the 256 values, rising.
    pub fn values(self) -> &'static [f32; CODES] {
        static SIGNED: OnceLock<[f32; CODES]> = OnceLock::new();
        static UNSIGNED: OnceLock<[f32; CODES]> = OnceLock::new();
        match self {
            Self::Signed => SIGNED.get_or_init(|| dynamic_values(true)),
            Self::Unsigned => UNSIGNED.get_or_init(|| dynamic_values(false)),
        }
    }

    /// Returns the 255 numbers halfway between two values.
    pub(crate) fn bounds(self) -> [f32; CODES - 1] {
        let values = self.values();
        std::array::from_fn(|i| (values[i] + values[i + 1]) / 2.0)
    }
}

/// Computes the values: seven decades, each with twice as many as the one below, then 0 and 1.
fn dynamic_values(is_signed: bool) -> [f32; CODES] {
    const DECADES: i32 = 7;
    let mut values = vec![0.0, 1.0];
    for decade in 0..DECADES {
        let intervals = 1_usize << if is_signed { decade } else { decade + 1 };
        // The bounds of equal intervals from 0.1 to 1, computed from both ends as torch's linspace does.
        let (start, end) = (0.1_f32, 1.0_f32);
        let step = (end - start) / intervals as f32;
        let bound = |i: usize| {
            if i < intervals.div_ceil(2) {
                step.mul_add(i as f32, start)
            } else {
                (-step).mul_add((intervals - i) as f32, end)
            }
        };
        let power = 10.0_f64.powi(decade - (DECADES - 1)) as f32;
        for i in 0..intervals {
            let value = power * ((bound(i) + bound(i + 1)) / 2.0);
            values.push(value);
            if is_signed {
                values.push(-value);
            }
        }
    }
    values.sort_by(f32::total_cmp);
    std::array::from_fn(|i| values[i])
}

/// Numbers in 8-bit codes on a device.
#[derive(Clone, Debug)]
pub struct Blockwise {
    /// u8 `[n]`.
    codes: Tensor<1, Int>,
    /// f32 `[⌈n / BLOCK⌉]`: the largest absolute value of each block.
    scales: Tensor<1>,
    tables: Tables,
}

/// The values of codes on a device: they cross over once, not in every step.
#[derive(Clone, Debug)]
struct Tables {
    /// f32 `[256]`.
    values: Tensor<1>,
    /// f32 `[255]`: the numbers halfway between two values.
    bounds: Tensor<1>,
}

impl Tables {
    fn new(kind: CodeValues, device: &Device) -> Self {
        let table = |numbers| Tensor::from_data(numbers, (device, DType::F32));
        Self { values: table(TensorData::from(*kind.values())), bounds: table(TensorData::from(kind.bounds())) }
    }
}

impl Blockwise {
    /// Returns whether a device can hold codes.
    pub fn is_supported(device: &Device) -> bool {
        device.supports_dtype(DType::U8)
    }

    /// Returns `n` zeros.
    pub fn zeros(n: usize, values: CodeValues, device: &Device) -> Self {
        // Any code is zero where the scale is.
        Self {
            codes: Tensor::zeros([n], (device, DType::U8)),
            scales: Tensor::zeros([n.div_ceil(BLOCK)], (device, DType::F32)),
            tables: Tables::new(values, device),
        }
    }

    /// Rounds numbers to the nearest value of their block, f32 `[n]` without autodiff.
    pub fn encode(numbers: Tensor<1>, values: CodeValues) -> Self {
        let device = numbers.device();
        Self::encode_by(numbers, Tables::new(values, &device))
    }

    /// Rounds other numbers to the nearest value of their block, f32 `[n]` without autodiff.
    #[must_use]
    pub fn replaced_by(self, numbers: Tensor<1>) -> Self {
        Self::encode_by(numbers, self.tables)
    }

    fn encode_by(numbers: Tensor<1>, tables: Tables) -> Self {
        let bounds = tables.bounds.clone().into_dispatch();
        let (codes, scales) = <Dispatch as BlockwiseOps>::encode_blocks(numbers.into_dispatch(), bounds);
        Self { codes: Tensor::from_dispatch(codes), scales: Tensor::from_dispatch(scales), tables }
    }

    /// Returns the numbers, f32 `[n]`.
    pub fn decode(&self) -> Tensor<1> {
        Tensor::from_dispatch(<Dispatch as BlockwiseOps>::decode_blocks(
            self.codes.clone().into_dispatch(),
            self.scales.clone().into_dispatch(),
            self.tables.values.clone().into_dispatch(),
        ))
    }

    /// Returns codes (u8 `[n]`) and scales (f32, one a block), for a file.
    pub fn parts(&self) -> (&Tensor<1, Int>, &Tensor<1>) {
        (&self.codes, &self.scales)
    }

    /// Returns the numbers whose parts these are.
    ///
    /// # Panics
    /// If there is not one scale for each block of codes.
    pub fn from_parts(codes: Tensor<1, Int>, scales: Tensor<1>, values: CodeValues) -> Self {
        assert_eq!(codes.dims()[0].div_ceil(BLOCK), scales.dims()[0], "a scale for each block");
        let tables = Tables::new(values, &scales.device());
        Self { codes, scales, tables }
    }
}

/// Encoding and decoding, without autodiff.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Remote: cfg(feature = "remote"), Fusion: cfg(feature = "fusion"))]
pub trait BlockwiseOps: Backend {
    /// `[n]`, `[255]` -> u8 `[n]`, `[⌈n / BLOCK⌉]`
    #[fusion(default)]
    fn encode_blocks(numbers: FloatTensor<Self>, bounds: FloatTensor<Self>) -> (IntTensor<Self>, FloatTensor<Self>) {
        composed::blockwise::encode::<Self>(numbers, bounds)
    }

    /// u8 `[n]`, `[⌈n / BLOCK⌉]`, `[256]` -> `[n]`
    #[fusion(default)]
    fn decode_blocks(
        codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        values: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        composed::blockwise::decode::<Self>(codes, scales, values)
    }
}

#[cfg(feature = "ndarray")]
impl BlockwiseOps for burn::backend::NdArray {}

#[cfg(feature = "remote")]
impl BlockwiseOps for burn::backend::Remote {}
