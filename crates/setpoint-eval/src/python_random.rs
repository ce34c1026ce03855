//! `random.Random` of CPython, for choices that published results hang on.

use rand_mt::Mt;
use sha2::{Digest, Sha512};

/// Python's generator.
pub(crate) struct PythonRandom(Mt);

impl PythonRandom {
    /// `random.Random(text)`: seeded by the bytes of the text and their SHA-512 as one big-endian number.
    pub(crate) fn from_text(text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        let digest = Sha512::digest(&bytes);
        bytes.extend_from_slice(&digest);
        // `init_by_array` takes the number's 32-bit words from the lowest up.
        let key: Vec<u32> = bytes.rchunks(4).map(|word| word.iter().fold(0, |w, b| w << 8 | u32::from(*b))).collect();
        Self(Mt::new_with_key(key))
    }

    /// `random.Random(seed)` for a number.
    pub(crate) fn from_seed(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    /// `choices([False, True])[0]`: `random()` takes 27 and 26 bits of two words, and the first bit says whether it is at least ½.
    pub(crate) fn coin(&mut self) -> bool {
        let (first, _) = (self.0.next_u32(), self.0.next_u32());
        first >> 31 == 1
    }

    /// `sample(range(n), k)`; `k` numbers below `n`, or all of them if there are fewer.
    pub(crate) fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let k = k.min(n);
        let mut threshold = 21;
        if k > 5 {
            // 4 ** ceil(log(3k, 4))
            let mut power = 1;
            while power < 3 * k {
                power *= 4;
            }
            threshold += power;
        }
        if n <= threshold {
            let mut pool: Vec<usize> = (0..n).collect();
            return (0..k)
                .map(|i| {
                    let j = self.below(n - i);
                    let drawn = pool[j];
                    pool[j] = pool[n - i - 1];
                    drawn
                })
                .collect();
        }
        let mut drawn = Vec::with_capacity(k);
        while drawn.len() < k {
            let j = self.below(n);
            if !drawn.contains(&j) {
                drawn.push(j);
            }
        }
        drawn
    }

    /// `random()`.
    fn unit(&mut self) -> f64 {
        let (high, low) = (self.0.next_u32() >> 5, self.0.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `gauss(0.0, 1.0)`, which draws two numbers at once: `spare` keeps the second.
    pub(crate) fn gauss(&mut self, spare: &mut Option<f64>) -> f64 {
        if let Some(spare) = spare.take() {
            return spare;
        }
        let angle = self.unit() * std::f64::consts::TAU;
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        *spare = Some(angle.sin() * radius);
        angle.cos() * radius
    }

    /// `_randbelow(n)` for `n` from 1 to 2³²−1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = (self.0.next_u32() >> (32 - bits)) as usize;
            if drawn < n {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_those_of_python() {
        // python -c "import random; r = random.Random(1234); print([r.sample(range(n), k) for n, k in ((7473, 5), (7473, 5), (20, 3), (60, 8), (3, 3))])"
        let mut random = PythonRandom::from_seed(1234);
        let got: Vec<Vec<usize>> =
            [(7473, 5), (7473, 5), (20, 3), (60, 8), (3, 3)].map(|(n, k)| random.sample(n, k)).into();
        let expected: [&[usize]; 5] = [
            &[6374, 3610, 957, 61, 742],
            &[7462, 6610, 4769, 286, 5501],
            &[2, 3, 11],
            &[15, 1, 58, 50, 57, 22, 41, 39],
            &[1, 2, 0],
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn normal_numbers_are_those_of_python() {
        // python -c "import random; r = random.Random(0); print([r.gauss(0.0, 1.0) for _ in range(3)], r.choice(range(100)))"
        let (mut random, mut spare) = (PythonRandom::from_seed(0), None);
        let got: [f64; 3] = std::array::from_fn(|_| random.gauss(&mut spare));
        for (got, expected) in got.iter().zip([0.9417154046806644, -1.3965781047011498, -0.6797144480784211]) {
            assert!((got - expected).abs() < 1e-12, "{got} against {expected}");
        }
        assert_eq!(random.below(100), 65);
    }

    #[test]
    fn coins_are_those_of_python() {
        // python -c "import random; r = random.Random('a text'); print([r.choices([False, True])[0] for _ in range(12)])"
        let mut random = PythonRandom::from_text("a text");
        let expected = [false, false, false, false, false, false, true, true, false, true, true, false];
        assert_eq!(std::array::from_fn::<bool, 12, _>(|_| random.coin()), expected);
    }
}
