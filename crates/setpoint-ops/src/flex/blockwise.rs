//! Numbers in 8-bit codes.

use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Bytes, DType, Shape};
use rayon::prelude::*;

use super::host::{Values, tensor};
use crate::blockwise::{BLOCK, BlockwiseOps, SMALLEST_SCALE};

impl BlockwiseOps for Flex {
    fn encode_blocks(numbers: FloatTensor<Self>, bounds: FloatTensor<Self>) -> (IntTensor<Self>, FloatTensor<Self>) {
        let (numbers, bounds) = (Values::of(numbers), Values::of(bounds));
        let (numbers, bounds) = (numbers.f32(), bounds.f32());
        let mut codes = vec![0_u8; numbers.len()];
        let scales: Vec<f32> = codes
            .par_chunks_mut(BLOCK)
            .zip(numbers.par_chunks(BLOCK))
            .map(|(codes, numbers)| {
                let scale = numbers.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                let inverse = 1.0 / scale.max(SMALLEST_SCALE);
                for (code, x) in codes.iter_mut().zip(numbers) {
                    let fraction = (x * inverse).clamp(-1.0, 1.0);
                    *code = bounds.partition_point(|&bound| bound < fraction) as u8;
                }
                scale
            })
            .collect();
        let (n, count) = (codes.len(), scales.len());
        let codes = FlexTensor::new(Bytes::from_elems(codes), Layout::contiguous(Shape::from([n])), DType::U8);
        (codes, tensor(scales, [count]))
    }

    fn decode_blocks(
        codes: IntTensor<Self>,
        scales: FloatTensor<Self>,
        values: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (codes, scales, values) = (Values::of(codes), Values::of(scales), Values::of(values));
        let (codes, values) = (codes.u8(), values.f32());
        let mut numbers = vec![0.0_f32; codes.len()];
        numbers.par_chunks_mut(BLOCK).zip(codes.par_chunks(BLOCK)).zip(scales.f32()).for_each(
            |((numbers, codes), scale)| {
                for (number, &code) in numbers.iter_mut().zip(codes) {
                    *number = values[usize::from(code)] * scale;
                }
            },
        );
        let n = numbers.len();
        tensor(numbers, [n])
    }
}
