//! The weight of a linear map as products read it: some rows or columns at a time, wherever their numbers come from.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};

use super::host::{Matrix, Values, all_f32};
use super::nf4::Nf4;
use crate::composed::nf4::Weight;

/// The weight of a linear map, `[out, in]`, whose numbers the kernels read as f32.
pub(super) enum F32Weight {
    /// All numbers are in memory.
    Dense { values: Values, shape: [usize; 2] },
    /// They are dequantised.
    Nf4(Nf4),
}

impl F32Weight {
    /// Returns a weight of f32.
    pub(super) fn dense(weight: FlexTensor) -> Self {
        let shape = [weight.shape()[0], weight.shape()[1]];
        Self::Dense { values: Values::of(weight), shape }
    }

    /// Returns the weight if the kernels can read it.
    pub(super) fn of(weight: &Weight<Flex>) -> Option<Self> {
        match weight {
            Weight::Dense(weight) => all_f32(&[weight]).then(|| Self::dense(weight.clone())),
            Weight::Nf4(weight) => Nf4::of(weight).map(Self::Nf4),
        }
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense { shape, .. } => *shape,
            Self::Nf4(weight) => weight.shape(),
        }
    }

    /// `count` rows from `start` on, one after the other; in `buffer` if they are nowhere else.
    pub(super) fn rows<'a>(&'a self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> &'a [f32] {
        match self {
            Self::Dense { values, shape: [_, inputs] } => &values.f32()[start * inputs..(start + count) * inputs],
            Self::Nf4(weight) => weight.rows(buffer, start, count),
        }
    }

    /// `[out, count]`: the columns from `start` on; in `buffer` if they are nowhere else.
    fn columns<'a>(&'a self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> Matrix<'a> {
        match self {
            Self::Dense { values, shape: [outputs, inputs] } => {
                Matrix::new(values.f32(), *outputs, *inputs, *inputs).columns_from(start, count)
            }
            Self::Nf4(weight) => weight.columns(buffer, start, count),
        }
    }
}

/// The second factor of a product.
pub(super) trait Columns: Sync {
    /// Returns the number of columns.
    fn count(&self) -> usize;

    /// `count` columns from `start` on; in `buffer` if they are nowhere else.
    fn part<'a>(&'a self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> Matrix<'a>;
}

impl Columns for Matrix<'_> {
    fn count(&self) -> usize {
        self.columns()
    }

    fn part<'a>(&'a self, _: &'a mut Vec<f32>, start: usize, count: usize) -> Matrix<'a> {
        self.columns_from(start, count)
    }
}

/// A weight as it is.
pub(super) struct Plain<'a>(pub(super) &'a F32Weight);

impl Columns for Plain<'_> {
    fn count(&self) -> usize {
        self.0.shape()[1]
    }

    fn part<'a>(&'a self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> Matrix<'a> {
        self.0.columns(buffer, start, count)
    }
}

/// A weight with rows and columns exchanged.
pub(super) struct Transposed<'a>(pub(super) &'a F32Weight);

impl Columns for Transposed<'_> {
    fn count(&self) -> usize {
        self.0.shape()[0]
    }

    fn part<'a>(&'a self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> Matrix<'a> {
        let inputs = self.0.shape()[1];
        Matrix::new(self.0.rows(buffer, start, count), count, inputs, inputs).transposed()
    }
}
