//! The causal mask, computed where the scores are.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{FloatDType, Shape};

/// Added to the score of a token that must not be seen; finite, so that no infinities meet.
const HIDDEN: f32 = -1e30;

/// Computes which of the positions `0 .. seen` each token may not see: those behind its own, and with a window of `n` those more than `n - 1`
/// before it.
///
/// # Shapes
/// `positions [b · s]`, as integers; the result is f32 `[b, 1, s, seen]`, 0 or [`HIDDEN`].
pub(super) fn causal<B: Backend>(
    positions: IntTensor<B>,
    [b, s]: [usize; 2],
    seen: usize,
    window: Option<usize>,
) -> FloatTensor<B> {
    let (device, dtype) = (positions.device(), positions.dtype());
    let shape = Shape::from([b, 1, s, seen]);
    // Summed up where the scores are: what `int_arange` counts is sent to a lent device.
    let ones = B::int_ones(Shape::from([seen]), &device, dtype.into());
    let others = B::int_sub_scalar(B::int_cumsum(ones, 0), 1.into());
    let others = B::int_expand(B::int_reshape(others, Shape::from([1, 1, 1, seen])), shape.clone());
    let positions = B::int_expand(B::int_reshape(positions, Shape::from([b, 1, s, 1])), shape.clone());
    let bools = get_or_init_device_settings::<B>(&device).bool_dtype;
    let hidden = B::int_greater(others.clone(), positions.clone(), bools);
    let mask = B::float_mask_fill(B::float_zeros(shape, &device, FloatDType::F32), hidden, HIDDEN.into());
    match window.filter(|&window| window < seen) {
        None => mask,
        Some(window) => {
            let gone = B::int_sub_scalar(positions, (window as i64).into());
            B::float_mask_fill(mask, B::int_lower_equal(others, gone, bools), HIDDEN.into())
        }
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use burn::backend::NdArray;
    use burn::backend::ops::{FloatTensorOps, IntTensorOps};
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn each_token_sees_itself_and_those_before_it() {
        let device = Default::default();
        // The last two tokens of a text of four, and the only two of another.
        let positions = NdArray::int_from_data(TensorData::new(vec![2i32, 3, 0, 1], [4]), &device);
        let mask = NdArray::float_into_data(causal::<NdArray>(positions, [2, 2], 4, None));
        let mask = burn::tensor::read_sync(mask).unwrap();
        assert_eq!(mask.shape().as_slice(), [2, 1, 2, 4]);
        let h = HIDDEN;
        let expected = [0.0, 0.0, 0.0, h, 0.0, 0.0, 0.0, 0.0, 0.0, h, h, h, 0.0, 0.0, h, h];
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(mask.as_slice::<f32>().unwrap()), bits(&expected));
    }

    #[test]
    fn a_window_hides_what_lies_further_back() {
        let device = Default::default();
        let positions = NdArray::int_from_data(TensorData::new(vec![2i32, 3], [2]), &device);
        let mask = NdArray::float_into_data(causal::<NdArray>(positions, [1, 2], 4, Some(2)));
        let mask = burn::tensor::read_sync(mask).unwrap();
        let hidden: Vec<bool> = mask.as_slice::<f32>().unwrap().iter().map(|&value| value < 0.0).collect();
        assert_eq!(hidden, [true, false, false, true, true, true, false, false]);
    }
}
