//! Linear maps whose weight is held in 4-bit codes: NF4, "4-bit NormalFloat" (Dettmers et al., "QLoRA", <https://arxiv.org/abs/2305.14314>).

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use crate::backend::TransformerOps;
use crate::composed;
use crate::functions::{LowRank, add_bias, check_factors};

/// The number of values that a number's code has.
pub(crate) const VALUES: usize = 16;

/// The number of values that the code of a scale has.
pub(crate) const SCALE_VALUES: usize = 256;

/// A matrix `[out, in]` in 4-bit codes on a device.
///
/// Its numbers, row by row, are cut into blocks, which may cross from one row to the next. A number is one of 16 values times the scale of
/// its block. With double quantisation scales have 8-bit codes: a scale is one of 256 values times the scale of a group of blocks, plus an
/// offset.
#[derive(Clone, Debug)]
pub struct Nf4 {
    /// The codes of the numbers, then those of the scales with double quantisation: bytes as [`Nf4Host`] has them, or i32 with four of these
    /// bytes each, the first in the highest bits, if the device has no u8.
    pub codes: Tensor<1, Int>,
    /// f32: the 16 values, the 256 values of scales with double quantisation, and the scales of blocks or groups.
    pub numbers: Tensor<1>,
    /// Shape and blocks.
    pub layout: Nf4Layout,
}

/// The shape and the blocks of a matrix in 4-bit codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nf4Layout {
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// The numbers in a block.
    pub block: usize,
    /// Double quantisation, if it is used.
    pub double: Option<Nf4Double>,
    /// The format that numbers are rounded to when they are dequantised.
    pub rounding: FloatDType,
}

/// The codes of scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nf4Double {
    /// The blocks in a group.
    pub group: usize,
    /// The number that is added to every scale.
    pub offset: f32,
}

/// The parts of a matrix in 4-bit codes, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Nf4Host<'a> {
    /// The codes of the numbers, two a byte, the first in the upper half.
    pub codes: &'a [u8],
    /// The values of the numbers' codes.
    pub values: &'a [f32; VALUES],
    /// The codes of the scales and their values, with double quantisation.
    pub scale_codes: Option<(&'a [u8], &'a [f32])>,
    /// The scales of blocks, or of groups of blocks with double quantisation.
    pub scales: &'a [f32],
}

impl Nf4Layout {
    /// Returns the number of numbers.
    pub(crate) fn count(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Returns the number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.count().div_ceil(self.block)
    }

    /// Returns where the scales begin among the numbers of [`Nf4`].
    pub(crate) fn first_scale(&self) -> usize {
        if self.double.is_some() { VALUES + SCALE_VALUES } else { VALUES }
    }

    /// Returns the number of stored scales.
    pub(crate) fn scales(&self) -> usize {
        match self.double {
            Some(Nf4Double { group, .. }) => self.blocks().div_ceil(group),
            None => self.blocks(),
        }
    }
}

impl Nf4 {
    /// Copies a matrix to a device.
    ///
    /// # Panics
    /// If the parts do not fit the layout.
    pub fn new(host: Nf4Host<'_>, layout: Nf4Layout, device: &Device) -> Self {
        let (scale_codes, scale_values) = host.scale_codes.unwrap_or_default();
        assert_eq!(host.codes.len(), layout.count().div_ceil(2), "codes of a matrix of {layout:?}");
        assert_eq!(host.scales.len(), layout.scales(), "scales of a matrix of {layout:?}");
        if layout.double.is_some() {
            assert_eq!(scale_codes.len(), layout.blocks(), "codes of scales of a matrix of {layout:?}");
            assert_eq!(scale_values.len(), SCALE_VALUES, "values of scales");
        }
        let codes = if device.supports_dtype(DType::U8) {
            let bytes = [host.codes, scale_codes].concat();
            let count = bytes.len();
            Tensor::from_data(TensorData::new(bytes, [count]), (device, DType::U8))
        } else {
            let words = [words(host.codes), words(scale_codes)].concat();
            let count = words.len();
            Tensor::from_data(TensorData::new(words, [count]), (device, DType::I32))
        };
        let numbers = [host.values.as_slice(), scale_values, host.scales].concat();
        let count = numbers.len();
        let numbers = Tensor::from_data(TensorData::new(numbers, [count]), (device, DType::F32));
        Self { codes, numbers, layout }
    }

    /// Returns the bytes that the matrix takes on its device.
    pub fn bytes(&self) -> usize {
        self.codes.shape().num_elements() * self.codes.dtype().size()
            + self.numbers.shape().num_elements() * self.numbers.dtype().size()
    }

    /// Returns the numbers in the format `dtype`, `[out, in]`, after they were rounded to that of the layout.
    pub fn dequantized(&self, dtype: FloatDType) -> Tensor<2> {
        let is_autodiff = self.numbers.device().is_autodiff();
        let (codes, numbers) = (self.codes.clone().inner(), self.numbers.clone().inner());
        let numbers =
            <Dispatch as Nf4Ops>::nf4_numbers(codes.into_dispatch(), numbers.into_dispatch(), self.layout, dtype);
        let numbers = Tensor::from_dispatch(numbers);
        if is_autodiff { numbers.autodiff() } else { numbers }
    }
}

/// Packs bytes by four, the first in the highest bits.
pub(crate) fn words(bytes: &[u8]) -> Vec<i32> {
    let word =
        |bytes: &[u8]| bytes.iter().zip([24, 16, 8, 0]).fold(0, |word, (&byte, by)| word | u32::from(byte) << by);
    bytes.chunks(4).map(|bytes| word(bytes).cast_signed()).collect()
}

/// [`linear`](crate::linear) with a weight in 4-bit codes: `y = x · Wᵀ + b`.
///
/// The weight is frozen: only `x` and the bias get gradients. It is dequantised where a product reads it, for the backward pass once more, and
/// at most one matrix at a time is in memory dequantised; on the CPU in f32 only some rows or columns of it, and on a GPU nothing of it if `x`
/// has few rows.
///
/// # Shapes
/// `x [t, in]`, `weight [out, in]`, `bias [out]`; the result is `[t, out]`.
pub fn linear_nf4(x: Tensor<2>, weight: &Nf4, bias: Option<Tensor<1>>) -> Tensor<2> {
    let Nf4 { codes, numbers, layout } = weight.clone();
    let (codes, numbers) = (codes.into_dispatch(), numbers.into_dispatch());
    add_bias(Tensor::from_dispatch(Dispatch::linear_nf4(x.into_dispatch(), codes, numbers, layout)), bias)
}

/// [`linear_lora`](crate::linear_lora) with a weight in 4-bit codes: `y = x · Wᵀ + scale · (x · Aᵀ) · Bᵀ + b`.
///
/// The weight is dequantised as in [`linear_nf4`].
///
/// # Shapes
/// `x [t, in]`, `weight [out, in]`, `bias [out]`; the result is `[t, out]`.
///
/// # Panics
/// If the factors do not fit the weight.
pub fn linear_lora_nf4(x: Tensor<2>, weight: &Nf4, bias: Option<Tensor<1>>, update: LowRank) -> Tensor<2> {
    let Nf4 { codes, numbers, layout } = weight.clone();
    check_factors(layout.shape, &update);
    let (x, codes, numbers) = (x.into_dispatch(), codes.into_dispatch(), numbers.into_dispatch());
    let (a, b) = (update.a.into_dispatch(), update.b.into_dispatch());
    add_bias(Tensor::from_dispatch(Dispatch::linear_lora_nf4(x, codes, numbers, layout, a, b, update.scale)), bias)
}

/// Dequantisation, without autodiff.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Remote: cfg(feature = "remote"), Fusion: cfg(feature = "fusion"))]
pub trait Nf4Ops: Backend {
    /// `[codes]`, `[numbers]` -> `[out, in]`
    #[fusion(dtype = DType::from(*dtype), shape = burn::tensor::Shape::from(layout.shape))]
    fn nf4_numbers(
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        composed::nf4::numbers::<Self>(codes, numbers, layout, dtype)
    }
}

#[cfg(feature = "ndarray")]
impl Nf4Ops for burn::backend::NdArray {}

#[cfg(feature = "remote")]
impl Nf4Ops for burn::backend::Remote {}
