//! What all kernels need: their inputs in order, memory for their results, and a grid.

use burn::tensor::{Bytes, DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::{FloatKind, IntKind, UIntKind};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::server::CubeCountSelection;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::choice::Needs;

/// Units of a cube in kernels that share memory.
pub(super) const UNITS: usize = 256;

/// Cubes along an axis of a grid, which every device has.
pub(super) const CUBES: usize = 65_535;

/// Positions and lengths in a kernel are 32 bits wide.
const LONGEST: usize = 1 << 31;

/// Returns what a kernel needs that adds up a number of each unit.
pub(super) const fn needs_sums(buffers: usize) -> Needs {
    Needs { units: UNITS, shared: UNITS * size_of::<f32>(), buffers }
}

/// Returns what a kernel needs whose units work alone.
pub(super) const fn needs_nothing(buffers: usize) -> Needs {
    Needs { units: 1, shared: 0, buffers }
}

/// Returns why kernels do not take tensors, if so: they take those of one of the number formats that they compute with in f32, if none is too
/// long.
pub(super) fn problem(tensors: &[&CubeTensor]) -> Option<String> {
    let sizes = tensors.iter().map(|x| x.meta.shape().num_elements());
    problem_of_formats(tensors.iter().map(|x| x.dtype)).or_else(|| sizes.max().and_then(problem_of_length))
}

/// Returns why kernels do not take tensors as f32, if so.
pub(super) fn problem_with_f32(tensors: &[&CubeTensor]) -> Option<String> {
    let other = tensors.iter().find(|x| x.dtype != DType::F32);
    other.map(|x| format!("it takes f32 there, and finds {}", x.dtype.name())).or_else(|| problem(tensors))
}

fn problem_of_formats(mut formats: impl Iterator<Item = DType>) -> Option<String> {
    let first = formats.next()?;
    if !matches!(first, DType::F32 | DType::BF16 | DType::F16) {
        return Some(format!("it does not take {}", first.name()));
    }
    formats
        .find(|&other| other != first)
        .map(|other| format!("it does not take {} with {}", first.name(), other.name()))
}

/// Returns why kernels do not take a tensor of `count` numbers, if they do not.
pub(super) fn problem_of_length(count: usize) -> Option<String> {
    (count >= LONGEST).then(|| format!("it takes fewer than {LONGEST} numbers, and finds {count}"))
}

/// Returns a tensor whose elements lie in memory row by row.
pub(super) fn in_order(x: CubeTensor) -> CubeTensor {
    into_contiguous(x)
}

/// Returns a tensor that nobody else holds, in order, with the same numbers.
pub(super) fn owned(x: CubeTensor) -> CubeTensor {
    let x = in_order(x);
    if x.can_mut() { x } else { x.copy() }
}

/// Returns a tensor that nothing has been written into, on the device of another.
pub(super) fn fresh<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), Shape::from(shape), dtype)
}

/// Returns a row of numbers on the device of a tensor.
pub(super) fn upload(like: &CubeTensor, numbers: Vec<u32>) -> CubeTensor {
    let (client, shape) = (like.client.clone(), Shape::from([numbers.len()]));
    let handle = client.create(Bytes::from_elems(numbers));
    CubeTensor::new_contiguous(client, like.device.clone(), shape, handle, DType::U32)
}

/// Returns how a tensor's elements are stored.
///
/// # Panics
/// If kernels do not read such elements.
pub(super) fn element(x: &CubeTensor) -> ElemType {
    match x.dtype {
        DType::F32 => ElemType::Float(FloatKind::F32),
        DType::BF16 => ElemType::Float(FloatKind::BF16),
        DType::F16 => ElemType::Float(FloatKind::F16),
        DType::I32 => ElemType::Int(IntKind::I32),
        DType::I64 => ElemType::Int(IntKind::I64),
        DType::U8 => ElemType::UInt(UIntKind::U8),
        dtype => unreachable!("no kernel reads {dtype:?}"),
    }
}

/// Returns a grid of at least so many cubes; a cube knows its number as `CUBE_POS`.
pub(super) fn cubes(client: &Client, count: usize) -> CubeCount {
    CubeCountSelection::new(client, count as u32).cube_count()
}

/// Returns the size and the number of cubes for at least so many units, which work alone.
pub(super) fn units(client: &Client, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, count);
    (cubecl::calculate_cube_count_elemwise(client, count, dim), dim)
}

/// Returns how many neighbouring elements a unit takes at a time of tensors that lie in memory alike.
pub(super) fn vector_size(x: &CubeTensor) -> usize {
    let count = x.meta.shape().num_elements();
    x.client.io_optimized_vector_sizes(x.dtype.size()).find(|size| count.is_multiple_of(*size)).unwrap_or(1)
}

/// Returns an array of zeros.
#[cube]
pub(super) fn zeros(#[comptime] count: usize) -> Array<f32> {
    let mut sums = Array::<f32>::new(count);
    #[unroll]
    for i in 0..count {
        sums[i] = 0.0f32;
    }
    sums
}

/// Adds up a number of each unit of a cube, in a fixed order, and returns the sum to all of them.
#[cube]
pub(super) fn sum_of_cube(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            let sum = shared[unit] + shared[unit + half];
            shared[unit] = sum;
        }
        sync_cube();
        half /= 2;
    }
    let sum = shared[0];
    sync_cube();
    sum
}

/// Returns the largest of a number of each unit of a cube to all of them.
#[cube]
pub(super) fn largest_of_cube(value: f32, shared: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            if other > shared[unit] {
                shared[unit] = other;
            }
        }
        sync_cube();
        half /= 2;
    }
    let largest = shared[0];
    sync_cube();
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_kernels_do_not_take_are_named() {
        let problem = |formats: &[DType]| problem_of_formats(formats.iter().copied());
        assert_eq!(problem(&[DType::BF16, DType::BF16]), None);
        assert_eq!(problem(&[DType::F64]).as_deref(), Some("it does not take f64"));
        assert_eq!(problem(&[DType::BF16, DType::F32]).as_deref(), Some("it does not take bf16 with f32"));
        // The logits of a chunk and the embeddings of Llama-3-8B, then what 32 bits do not count.
        assert_eq!([262 * 128_256, 128_256 * 4096].map(problem_of_length), [None, None]);
        let found = problem_of_length(16_744 * 128_256).unwrap();
        assert_eq!(found, "it takes fewer than 2147483648 numbers, and finds 2147518464");
    }
}
