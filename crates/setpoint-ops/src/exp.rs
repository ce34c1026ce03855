//! The exponential function, in operations that a compiler vectorises.

/// `e^x` to within two units in the last place, `e^-87.3` below that, NaN for NaN.
///
/// `x = k·ln 2 + r` with `|r| ≤ ln 2 / 2`; `e^r` by the polynomial of Cephes' `expf` (Moshier), `2^k` by its exponent bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // 1.5·2²³: adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // Comparisons and not min/max, which would turn NaN into a number.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    // ln 2 in two parts, the first exact in a product with k.
    let r = x - k * 0.693_359_4;
    let r = r + k * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let e = p * (r * r) + r + 1.0;
    e * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}
