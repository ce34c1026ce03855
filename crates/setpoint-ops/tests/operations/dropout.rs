//! Dropout: its masks, its values and its gradient.

use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use setpoint_ops::{DropoutMask, dropout, extend_key};

use crate::{check, lift, tensor, values};

/// A mask with keys that follow from their number.
fn mask(rows: usize, rate: f64) -> DropoutMask {
    DropoutMask::new((0..rows as u64).map(|row| extend_key(5, row)).collect::<Arc<[u64]>>(), rate)
}

/// Returns which elements are dropped, row by row.
fn dropped(mask: &DropoutMask, [rows, columns]: [usize; 2]) -> Vec<bool> {
    (0..rows * columns).map(|i| !mask.keeps(i / columns, i % columns)).collect()
}

#[test]
fn elements_are_dropped_or_scaled_forward_and_backward() {
    // One element; columns that no vector divides; more rows than a thread takes at a time.
    for shape in [[1, 1], [7, 37], [300, 130], [2, 40_000]] {
        for rate in [0.0, 0.1, 0.5, 0.95] {
            let mask = mask(shape[0], rate).for_matrix(3);
            let factors = dropped(&mask, shape).into_iter().map(|dropped| {
                let scale = 1.0 / (1.0 - rate);
                if dropped { 0.0 } else { scale as f32 }
            });
            let factors: Vec<f32> = factors.collect();
            check(
                [shape],
                |[x]| dropout(x, &mask),
                |[x]| {
                    let device = x.device().without_autodiff();
                    let factors = Tensor::from_data(TensorData::new(factors.clone(), shape), &device);
                    x.clone() * lift(&x, factors)
                },
            );
        }
    }
}

/// The numbers that the authors' generator makes of the seed 1234567.
#[test]
fn keys_are_numbers_of_splitmix64() {
    let state = |draw: u64| 1_234_567_u64.wrapping_add(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let found = [0, 1, 2].map(|draw| extend_key(state(draw), 0));
    assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
}

/// Counts of independent draws are within five standard deviations of their means, in all and in each row and column.
#[test]
fn the_probability_is_the_rate_everywhere() {
    let [rows, columns] = [2000, 512];
    for rate in [0.05, 0.5] {
        let dropped = dropped(&mask(rows, rate).for_matrix(1), [rows, columns]);
        let check = |count: usize, of: usize, what: &str| {
            let (mean, deviation) = (rate * of as f64, (rate * (1.0 - rate) * of as f64).sqrt());
            let off = (count as f64 - mean) / deviation;
            assert!(off.abs() < 5.0, "{what}: {count} of {of} at {rate}");
            off
        };
        check(dropped.iter().filter(|&&dropped| dropped).count(), rows * columns, "all");
        let row = |row: usize| dropped[row * columns..][..columns].iter().filter(|&&dropped| dropped).count();
        let column = |column: usize| (0..rows).filter(|row| dropped[row * columns + column]).count();
        let offs: Vec<f64> = (0..rows).map(|i| check(row(i), columns, "a row")).collect();
        let more: Vec<f64> = (0..columns).map(|i| check(column(i), rows, "a column")).collect();
        // Independent draws spread as much as a binomial distribution says: the mean square has the variance 2/n.
        for offs in [offs, more] {
            let n = offs.len() as f64;
            let spread = offs.iter().map(|off| off * off).sum::<f64>() / n;
            assert!((spread - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{spread} of {n}");
        }
    }
}

/// Two masks agree by chance alone: of neighbouring rows, of neighbouring columns, and of two matrices.
#[test]
fn masks_of_rows_columns_and_matrices_are_independent() {
    let [rows, columns] = [1000, 512];
    let rate = 0.3;
    let [one, other] = [1, 2].map(|matrix| dropped(&mask(rows, rate).for_matrix(matrix), [rows, columns]));
    let agree = |pairs: Vec<(bool, bool)>, what: &str| {
        let n = pairs.len() as f64;
        let both = pairs.into_iter().filter(|&(a, b)| a && b).count() as f64;
        let p: f64 = rate * rate;
        assert!((both - p * n).abs() < 5.0 * (p * (1.0 - p) * n).sqrt(), "{what}: {both} of {n}");
    };
    agree(one.iter().copied().zip(other).collect(), "two matrices");
    for distance in [1, 2, 16, 64, 255] {
        let shifted = |by: usize| one.iter().copied().zip(one[by..].iter().copied()).collect();
        agree(shifted(distance), "columns");
        agree(shifted(distance * columns), "rows");
    }
}

/// Elements that are dropped do not depend on the rows next to theirs.
#[test]
fn a_row_has_its_own_mask() {
    let all = mask(40, 0.4);
    let few = DropoutMask::new(Arc::from([7, 3].map(|row| extend_key(5, row))), 0.4);
    for column in 0..200 {
        assert_eq!(few.keeps(0, column), all.keeps(7, column));
        assert_eq!(few.keeps(1, column), all.keeps(3, column));
    }
}

#[test]
fn bf16_elements_are_rounded_from_f32() {
    let device = Device::flex();
    let mask = mask(6, 0.3);
    let x = tensor::<2>(1, [6, 40], &device).cast(FloatDType::BF16);
    let expected = dropout(x.clone().cast(FloatDType::F32), &mask).cast(FloatDType::BF16);
    let found = dropout(x, &mask);
    assert_eq!(found.dtype(), DType::BF16);
    let wide = |x: Tensor<2>| values(x.cast(FloatDType::F32));
    assert_eq!(wide(found), wide(expected));
}

#[test]
#[should_panic(expected = "a rate of at least 0 and below 1")]
fn all_elements_cannot_be_dropped() {
    mask(1, 1.0);
}
