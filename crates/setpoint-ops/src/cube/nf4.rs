//! Dequantisation: each unit reads a byte of codes and writes its two numbers. Products with few rows read the codes themselves
//! ([`super::nf4_product`]).

use burn::tensor::{DType, FloatDType};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{element, fresh, in_order, problem_of_length, units};
use crate::nf4::{Nf4Double, Nf4Layout, VALUES};

/// The layout as a kernel is compiled for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Codes {
    /// Bytes in an integer of codes.
    pub(super) bytes: usize,
    pub(super) block: usize,
    /// The blocks in a group, with double quantisation.
    group: Option<usize>,
    first_scale: usize,
    /// The numbers are rounded to bf16; they stay as they are otherwise.
    pub(super) is_rounded: bool,
}

impl Codes {
    pub(super) fn new(codes: &CubeTensor, layout: &Nf4Layout) -> Self {
        Self {
            bytes: if codes.dtype == DType::U8 { 1 } else { 4 },
            block: layout.block,
            group: layout.double.map(|Nf4Double { group, .. }| group),
            first_scale: layout.first_scale(),
            is_rounded: layout.rounding == FloatDType::BF16,
        }
    }

    /// Returns the byte with which the codes of scales begin: they begin with an integer of their own.
    pub(super) fn first_scale_code(self, layout: &Nf4Layout) -> usize {
        layout.count().div_ceil(2).next_multiple_of(self.bytes)
    }
}

/// Returns a byte; the first of an integer is in its highest bits.
#[cube]
pub(super) fn byte<C: Int>(codes: &[C], place: usize, #[comptime] bytes: usize) -> u32 {
    let word = u32::cast_from(codes[place / bytes]);
    if comptime!(bytes == 4) { (word >> (u32::cast_from(3 - place % 4) * 8u32)) & 255u32 } else { word }
}

/// Rounds to the nearest number of bf16, ties to even.
#[cube]
pub(super) fn rounded(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    f32::reinterpret((bits + 32_767u32 + ((bits >> 16u32) & 1u32)) & 0xFFFF_0000u32)
}

/// Returns the scale of a block; with double quantisation `value · scale of the group + offset`.
#[cube]
pub(super) fn scale<C: Int>(
    codes: &[C],
    numbers: &[f32],
    block: usize,
    offset: f32,
    first_scale_code: usize,
    #[comptime] layout: Codes,
) -> f32 {
    if comptime!(layout.group.is_some()) {
        let code = byte::<C>(codes, first_scale_code + block, comptime!(layout.bytes));
        let group = block / comptime!(layout.group.unwrap_or(1));
        numbers[comptime!(VALUES) + usize::cast_from(code)] * numbers[comptime!(layout.first_scale) + group] + offset
    } else {
        numbers[comptime!(layout.first_scale) + block]
    }
}

/// `value · scale`, rounded to the format of the layout.
#[cube(launch)]
fn numbers_kernel<C: Int, F: Float>(
    codes: &[C],
    numbers: &[f32],
    dense: &mut [F],
    offset: f32,
    first_scale_code: usize,
    #[comptime] layout: Codes,
    #[define(C, F)] _elements: [ElemType; 2],
) {
    let place = ABSOLUTE_POS;
    if place * 2 >= dense.len() {
        terminate!();
    }
    let pair = byte::<C>(codes, place, comptime!(layout.bytes));
    for i in 0..2usize {
        let at = place * 2 + i;
        if at < dense.len() {
            let code = (pair >> (u32::cast_from(1 - i) * 4u32)) & 15u32;
            let block = at / comptime!(layout.block);
            let scale = scale::<C>(codes, numbers, block, offset, first_scale_code, layout);
            let mut number = numbers[usize::cast_from(code)] * scale;
            if comptime!(layout.is_rounded) {
                number = rounded(number);
            }
            dense[at] = F::cast_from(number);
        }
    }
}

/// Returns why the kernel does not take a layout and integers of codes, if so.
pub(super) fn problem(codes: &CubeTensor, layout: &Nf4Layout) -> Option<String> {
    let rounding = DType::from(layout.rounding);
    if !matches!(codes.dtype, DType::U8 | DType::I32) {
        Some(format!("it does not take codes in {}", codes.dtype.name()))
    } else if !matches!(rounding, DType::F32 | DType::BF16) {
        Some(format!("it does not round to {}", rounding.name()))
    } else {
        problem_of_length(layout.count())
    }
}

/// Answers the numbers in the format `dtype`, `[out, in]`.
pub(super) fn numbers(codes: CubeTensor, numbers: CubeTensor, layout: Nf4Layout, dtype: FloatDType) -> CubeTensor {
    let [codes, numbers] = [codes, numbers].map(in_order);
    let client = codes.client.clone();
    let compiled = Codes::new(&codes, &layout);
    let dense = fresh(&codes, layout.shape, dtype.into());
    let elements = [element(&codes), element(&dense)];
    let (count, dim) = units(&client, layout.count().div_ceil(2));
    numbers_kernel::launch(
        &client,
        count,
        dim,
        codes.into_buffer_arg(),
        numbers.into_buffer_arg(),
        dense.clone().into_buffer_arg(),
        layout.double.map_or(0.0, |double| double.offset),
        compiled.first_scale_code(&layout),
        compiled,
        elements,
    );
    dense
}
