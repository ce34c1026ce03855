//! The optimizer's passes over parameters.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

use crate::composed;

/// The numbers of one step of AdamW (Loshchilov and Hutter, <https://arxiv.org/abs/1711.05101>, Algorithm 2), in the order of operations of
/// `torch.optim.AdamW`:
///
/// ```text
/// θ ← decay·θ
/// m ← β₁·m + (1 − β₁)·s·g          v ← β₂·v + (1 − β₂)·(s·g)²
/// θ ← θ − rate · m / (√v/root + ε)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// `1 − η·λ`, or 1 where nothing decays.
    pub decay: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// `s`, the factor on the gradient that clips it.
    pub scale: f64,
    /// `η / (1 − β₁ᵗ)`.
    pub rate: f64,
    /// `√(1 − β₂ᵗ)`.
    pub root: f64,
    /// ε.
    pub eps: f64,
}

/// Passes over parameters and gradients, without autodiff.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Remote: cfg(feature = "remote"), Fusion: cfg(feature = "fusion"))]
pub trait OptimizerOps: Backend {
    /// `[weight, m, v]` after the step; all f32 `[n]`.
    #[fusion(meta = |weight, exp_avg, exp_avg_sq, _gradient, _step| (weight.clone(), exp_avg.clone(), exp_avg_sq.clone()))]
    fn adamw(
        weight: FloatTensor<Self>,
        exp_avg: FloatTensor<Self>,
        exp_avg_sq: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::adamw::step::<Self>([weight, exp_avg, exp_avg_sq], gradient, step).into()
    }

    /// `Σ x²`, added up row by row: `[n] -> [1]`.
    #[fusion(dtype = x, shape = burn::tensor::Shape::from([1]))]
    fn sum_of_squares(x: FloatTensor<Self>, row: usize) -> FloatTensor<Self> {
        composed::adamw::sum_of_squares::<Self>(x, row)
    }

    /// `[height, d]`, `[t]`, `[t, d]` -> `[height, d]`
    #[fusion(dtype = table, shape = table)]
    fn add_rows(table: FloatTensor<Self>, ids: IntTensor<Self>, rows: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::adamw::add_rows::<Self>(table, ids, rows)
    }
}

#[cfg(feature = "ndarray")]
impl OptimizerOps for burn::backend::NdArray {}

#[cfg(feature = "remote")]
impl OptimizerOps for burn::backend::Remote {}

/// One step of AdamW on one parameter: answers the weight and the two moments. Tensors that nobody else holds are changed in place.
///
/// # Shapes
/// f32 `[n]` each, on one device without autodiff.
pub fn adamw(
    weight: Tensor<1>,
    exp_avg: Tensor<1>,
    exp_avg_sq: Tensor<1>,
    gradient: Tensor<1>,
    step: AdamWStep,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let (weight, exp_avg, exp_avg_sq) = <Dispatch as OptimizerOps>::adamw(
        weight.into_dispatch(),
        exp_avg.into_dispatch(),
        exp_avg_sq.into_dispatch(),
        gradient.into_dispatch(),
        step,
    );
    (Tensor::from_dispatch(weight), Tensor::from_dispatch(exp_avg), Tensor::from_dispatch(exp_avg_sq))
}

/// `Σ x²` in f32, in an order that depends on `n` and `row` alone, so that a repeated run gives the same bits.
///
/// # Shapes
/// f32 `[n]` with `n` a multiple of `row`, on a device without autodiff; the result is `[1]`.
pub fn sum_of_squares(x: Tensor<1>, row: usize) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as OptimizerOps>::sum_of_squares(x.into_dispatch(), row))
}

/// Adds rows to those rows of a table that their ids name, as the gradient of an embedding needs it. An id may occur more than once; its rows
/// are added in their order. A table that nobody else holds is changed in place where the backend can.
///
/// # Shapes
/// `table [height, d]`, `ids [t]`, `rows [t, d]`, f32, on one device without autodiff; the result is the table.
///
/// # Panics
/// If there is not a row for each id, or rows and table differ in width.
pub fn add_rows(table: Tensor<2>, ids: Tensor<1, Int>, rows: Tensor<2>) -> Tensor<2> {
    assert_eq!(rows.dims(), [ids.dims()[0], table.dims()[1]], "a row of the table's width for each id");
    let (table, ids, rows) = (table.into_dispatch(), ids.into_dispatch(), rows.into_dispatch());
    Tensor::from_dispatch(<Dispatch as OptimizerOps>::add_rows(table, ids, rows))
}
