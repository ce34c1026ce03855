//! Numbers of 4-bit codes, looked up in tables that stay in registers if the processor has instructions for that: AVX2 and AVX-512.

use pulp::{Arch, Scalar, Simd};

use super::simd::vectorised;

/// Numbers in a table.
pub(super) const NUMBERS: usize = 16;

/// Codes that are looked up at a time.
pub(super) const CODES: usize = 16;

/// These codes, two a byte, the first in the upper half.
pub(super) type Codes = [u8; CODES / 2];

/// A processor, as it looks up numbers.
pub(super) trait Lookup: Simd {
    /// A table of 16 numbers.
    type Table: Copy;

    /// 16 numbers, as vectors.
    type Numbers: AsRef<[Self::f32s]>;

    /// Returns a table of these numbers.
    fn table(self, numbers: &[f32; NUMBERS]) -> Self::Table;

    /// Returns the numbers of some codes.
    fn look_up(self, codes: Codes, table: Self::Table) -> Self::Numbers;
}

/// Work that looks up numbers.
pub(super) trait WithLookup {
    /// Its result.
    type Output;

    /// Does the work. It and what it calls must be `#[inline(always)]`.
    fn with_lookup<S: Lookup>(self, simd: S) -> Self::Output;
}

/// Does work with the widest vectors that the processor has.
pub(super) fn dispatch<W: WithLookup>(work: W) -> W::Output {
    match Arch::new() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(simd) => simd.vectorize(
            #[inline(always)]
            || work.with_lookup(simd),
        ),
        #[cfg(target_arch = "x86_64")]
        Arch::V3(simd) => simd.vectorize(
            #[inline(always)]
            || work.with_lookup(simd),
        ),
        _ => vectorised(
            #[inline(always)]
            || work.with_lookup(Scalar),
        ),
    }
}

/// Returns whether tables stay in registers.
pub(super) fn is_in_registers() -> bool {
    struct HasVectors;
    impl WithLookup for HasVectors {
        type Output = bool;

        #[inline(always)]
        fn with_lookup<S: Lookup>(self, _: S) -> bool {
            S::F32_LANES > 1
        }
    }
    dispatch(HasVectors)
}

/// Any processor: numbers are looked up one by one, in memory.
impl Lookup for Scalar {
    type Table = [f32; NUMBERS];
    type Numbers = [f32; CODES];

    #[inline(always)]
    fn table(self, numbers: &[f32; NUMBERS]) -> Self::Table {
        *numbers
    }

    #[inline(always)]
    fn look_up(self, codes: Codes, table: Self::Table) -> Self::Numbers {
        let mut numbers = [0.0; CODES];
        for (pair, code) in numbers.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
            *pair = [table[usize::from(code >> 4)], table[usize::from(code & 15)]];
        }
        numbers
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m256i, __m512, __m512i};

    use pulp::x86::{V3, V4};
    use pulp::{cast, f32x8, f32x16};

    use super::{CODES, Codes, Lookup, NUMBERS};

    /// AVX2: a register holds half a table.
    impl Lookup for V3 {
        type Table = [__m256; 2];
        type Numbers = [f32x8; 2];

        #[inline(always)]
        fn table(self, numbers: &[f32; NUMBERS]) -> Self::Table {
            cast(*numbers)
        }

        #[inline(always)]
        fn look_up(self, codes: Codes, table: Self::Table) -> Self::Numbers {
            let [a, b, c, d, e, f, g, h] = codes;
            [look_up_8(self, [a, b, c, d], table), look_up_8(self, [e, f, g, h], table)]
        }
    }

    /// The numbers of eight codes.
    #[inline(always)]
    fn look_up_8(simd: V3, bytes: [u8; 4], [low, high]: [__m256; 2]) -> f32x8 {
        // Each lane gets all bytes, and shifts its code to the lowest bits.
        let shifts: __m256i = cast([4u32, 0, 12, 8, 20, 16, 28, 24]);
        let codes = simd.avx2._mm256_srlv_epi32(simd.avx._mm256_set1_epi32(i32::from_le_bytes(bytes)), shifts);
        // The lowest three bits choose in each half; the fourth one, as the sign, chooses the half.
        let low = simd.avx2._mm256_permutevar8x32_ps(low, codes);
        let high = simd.avx2._mm256_permutevar8x32_ps(high, codes);
        let is_high: __m256 = cast(simd.avx2._mm256_slli_epi32::<28>(codes));
        cast(simd.avx._mm256_blendv_ps(low, high, is_high))
    }

    /// For each of 16 lanes, the byte with its code, and three times 0.
    const PLACES: [[u8; 4]; CODES] = {
        let mut places = [[0, 0x80, 0x80, 0x80]; CODES];
        let mut lane = 0;
        while lane < CODES {
            places[lane][0] = lane as u8 / 2;
            lane += 1;
        }
        places
    };

    /// For each of 16 lanes, the place of its code in that byte.
    const SHIFTS: [u32; CODES] = [4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0];

    /// AVX-512: a register holds a table.
    impl Lookup for V4 {
        type Table = __m512;
        type Numbers = [f32x16; 1];

        #[inline(always)]
        fn table(self, numbers: &[f32; NUMBERS]) -> Self::Table {
            cast(*numbers)
        }

        #[inline(always)]
        fn look_up(self, codes: Codes, table: Self::Table) -> Self::Numbers {
            let (places, shifts): (__m512i, __m512i) = (cast(PLACES), cast(SHIFTS));
            // All eight bytes are in each 16 of the vector, from which a lane may take one.
            let bytes = self.avx512f._mm512_set1_epi64(i64::from_le_bytes(codes));
            let bytes = self.avx512bw._mm512_shuffle_epi8(bytes, places);
            // Only the lowest four bits choose.
            let codes = self.avx512f._mm512_srlv_epi32(bytes, shifts);
            [cast(self.avx512f._mm512_permutexvar_ps(codes, table))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks up codes, as a list.
    struct LookUp(Codes, [f32; NUMBERS]);

    impl WithLookup for LookUp {
        type Output = Vec<f32>;

        #[inline(always)]
        fn with_lookup<S: Lookup>(self, simd: S) -> Vec<f32> {
            let numbers = simd.look_up(self.0, simd.table(&self.1));
            pulp::bytemuck::cast_slice::<_, f32>(numbers.as_ref()).to_vec()
        }
    }

    #[test]
    fn every_code_in_every_place_has_its_number() {
        let table: [f32; NUMBERS] = std::array::from_fn(|i| 100.0 + i as f32);
        for first in 0..16u8 {
            // All codes, beginning with another one each time; neighbours differ.
            let code = |i: u8| (first + 7 * i) % 16;
            let codes: Codes = std::array::from_fn(|i| code(2 * i as u8) << 4 | code(2 * i as u8 + 1));
            let expected: Vec<f32> = (0..CODES as u8).map(|i| table[usize::from(code(i))]).collect();
            assert_eq!(dispatch(LookUp(codes, table)), expected, "on this processor");
            assert_eq!(LookUp(codes, table).with_lookup(Scalar), expected, "on any processor");
        }
    }

    /// A processor with AVX-512 has AVX2 as well.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn narrower_vectors_find_the_same_numbers() {
        let Some(simd) = pulp::x86::V3::try_new() else { return };
        let table: [f32; NUMBERS] = std::array::from_fn(|i| (i as f32).exp());
        for seed in 0..200u32 {
            let codes: Codes = std::array::from_fn(|i| (seed.wrapping_mul(2_654_435_761) >> (3 * i)) as u8);
            let found = simd.vectorize(
                #[inline(always)]
                || LookUp(codes, table).with_lookup(simd),
            );
            assert_eq!(found, LookUp(codes, table).with_lookup(Scalar));
        }
    }
}
