//! Dropout without a random state: what is dropped follows from keys.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::TransformerOps;

/// The increments of SplitMix64 and, of 32 bits, of the words of a row: the golden ratio.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
pub(crate) const GOLDEN_32: u32 = 0x9e37_79b9;

/// The factors and shifts of SplitMix64.
pub(crate) const MIXERS: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
pub(crate) const MIXER_SHIFTS: [u32; 3] = [30, 27, 31];

/// The factors and shifts of lowbias32, an integer hash found by Wellons, <https://github.com/skeeto/hash-prospector>.
pub(crate) const FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];
pub(crate) const SHIFTS: [u32; 3] = [16, 15, 16];

/// Returns a key that follows from a key and a number, by the mixing of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", <https://doi.org/10.1145/2660193.2660195>). Different numbers give different keys.
#[inline(always)]
pub fn extend_key(key: u64, number: u64) -> u64 {
    let mut z = (key ^ number).wrapping_add(GOLDEN);
    z = (z ^ (z >> MIXER_SHIFTS[0])).wrapping_mul(MIXERS[0]);
    z = (z ^ (z >> MIXER_SHIFTS[1])).wrapping_mul(MIXERS[1]);
    z ^ (z >> MIXER_SHIFTS[2])
}

/// Returns the 32 random bits of a column in a row with this key: lowbias32 of a counter, with half of the key as the counter's start and the
/// other half between the two rounds.
#[inline(always)]
pub(crate) fn word([first, second]: [u32; 2], column: u32) -> u32 {
    let mut z = column.wrapping_mul(GOLDEN_32).wrapping_add(first);
    z = (z ^ (z >> SHIFTS[0])).wrapping_mul(FACTORS[0]) ^ second;
    z = (z ^ (z >> SHIFTS[1])).wrapping_mul(FACTORS[1]);
    z ^ (z >> SHIFTS[2])
}

/// The elements of a matrix that are dropped: each with the same probability, as follows from the key of its row, that of the matrix and
/// its column. The device, the other rows and the order of the work have no part in it. Clones share the keys.
#[derive(Clone, Debug, PartialEq)]
pub struct DropoutMask {
    rows: Arc<[u64]>,
    matrix: u64,
    rate: f64,
    kept: Kept,
}

/// A tensor that a device computed from the keys of rows, shared by all clones of a mask.
#[derive(Clone, Default)]
struct Kept(Arc<OnceLock<Box<dyn Any + Send + Sync>>>);

impl PartialEq for Kept {
    /// Follows from the keys.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl DropoutMask {
    /// A mask for matrices with these rows, whose elements are dropped with the probability `rate`.
    ///
    /// # Panics
    /// If `rate` is not at least 0 and below 1.
    pub fn new(rows: Arc<[u64]>, rate: f64) -> Self {
        assert!((0.0..1.0).contains(&rate), "a rate of at least 0 and below 1, not {rate}");
        Self { rows, matrix: 0, rate, kept: Kept::default() }
    }

    /// Returns the mask of the matrix with this key: other elements are dropped in each.
    #[must_use]
    pub fn for_matrix(&self, key: u64) -> Self {
        Self { matrix: key, ..self.clone() }
    }

    /// Returns whether an element is kept.
    pub fn keeps(&self, row: usize, column: usize) -> bool {
        word(self.key(row), column as u32) >= self.threshold()
    }

    /// Returns the factor of the elements that are kept, `1/(1 − rate)`: the expectation of an element is itself.
    pub fn scale(&self) -> f64 {
        1.0 / (1.0 - self.rate)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Returns the keys of the rows.
    #[cfg_attr(not(any(feature = "cube", feature = "remote")), allow(dead_code))]
    pub(crate) fn row_keys(&self) -> &Arc<[u64]> {
        &self.rows
    }

    /// Returns the key of the matrix.
    #[cfg_attr(not(any(feature = "cube", feature = "remote")), allow(dead_code))]
    pub(crate) fn matrix_key(&self) -> u64 {
        self.matrix
    }

    /// Returns the value that the first of these masks computed from the keys of rows. Values of another type are computed each time.
    #[cfg_attr(not(feature = "remote"), allow(dead_code))]
    pub(crate) fn keep<T: Clone + Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> T {
        let kept = self.kept.0.get_or_init(|| Box::new(OnceLock::<T>::new()));
        match kept.downcast_ref::<OnceLock<T>>() {
            Some(kept) => kept.get_or_init(make).clone(),
            None => make(),
        }
    }

    /// The halves of the key of a row of this matrix.
    #[inline(always)]
    pub(crate) fn key(&self, row: usize) -> [u32; 2] {
        let key = extend_key(self.rows[row], self.matrix);
        [key as u32, (key >> 32) as u32]
    }

    /// The words below it are those of elements that are dropped.
    pub(crate) fn threshold(&self) -> u32 {
        // The cast saturates.
        (self.rate * 2f64.powi(32)).round() as u32
    }
}

/// Sets the elements that a mask drops to 0 and scales the others (Srivastava et al., "Dropout",
/// <https://jmlr.org/papers/v15/srivastava14a.html>, section 10): `y = x / (1 − rate)` or 0. Nothing is kept for the backward pass, which finds
/// the same elements again.
///
/// # Shapes
/// `[t, d] -> [t, d]`
///
/// # Panics
/// If the mask has not one key for each row.
pub fn dropout(x: Tensor<2>, mask: &DropoutMask) -> Tensor<2> {
    let [rows, _] = x.dims();
    assert_eq!(mask.rows(), rows, "a key for each row");
    Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), mask.clone()))
}
