//! MinHash and bands (Broder 1997; Leskovec, Rajaraman & Ullman, *Mining of Massive Datasets*, chapter 3): candidates for similar texts
//! without comparing all pairs.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::words::{Parts, parts, runs};

/// The number of words and symbols in a row that make a shingle. A text with fewer is one shingle.
pub const SHINGLE_WORDS: usize = 5;
/// The hash functions of a signature.
const HASHES: usize = 128;
/// The smallest probability with which a pair at the threshold becomes a candidate.
const RECALL: f64 = 0.999;
/// Candidates of one band that a text is compared with.
const MOST_CANDIDATES: usize = 200;
/// Shingles that go through all hash functions before the next ones.
const PART: usize = 1024;
/// No further text in a chain.
const NONE: u32 = u32::MAX;

/// The shingles of a text, as hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shingles(Box<[u64]>);

impl Shingles {
    /// Returns the shingles of a text, in the order of their hashes and each once.
    pub(super) fn of(text: &str) -> Self {
        let parts = parts(text, Parts::WordsAndSymbols);
        let mut hashes: Vec<u64> = match parts.len() {
            0 => Vec::new(),
            count => runs(&parts, count.min(SHINGLE_WORDS)).collect(),
        };
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes.into())
    }

    /// Returns the Jaccard similarity with other shingles, the share of all shingles that both texts have, if it is at least `least`. It looks
    /// at no more of them than it takes to know.
    fn similarity(&self, other: &Self, least: f64) -> Option<f64> {
        let (own, others) = (self.0.len(), other.0.len());
        let share = |both: usize| both as f64 / (own + others - both).max(1) as f64;
        // The share grows with the number of common shingles.
        let mut needed = (least * (own + others) as f64 / (1.0 + least)) as usize;
        while needed <= own.min(others) && share(needed) < least {
            needed += 1;
        }
        let (mut i, mut j, mut both) = (0, 0, 0_usize);
        while both + (own - i).min(others - j) >= needed {
            let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) else { return Some(share(both)) };
            both += usize::from(a == b);
            i += usize::from(a <= b);
            j += usize::from(b <= a);
        }
        None
    }

    /// Returns the least value of each hash function over the shingles.
    fn signature(&self, functions: &[(u64, u64)]) -> Vec<u32> {
        let mut least = vec![NONE; functions.len()];
        // A part stays in the processor's cache for all functions.
        for part in self.0.chunks(PART) {
            for (least, &(factor, offset)) in least.iter_mut().zip(functions) {
                let values = part.iter().map(|hash| (factor.wrapping_mul(*hash).wrapping_add(offset) >> 32) as u32);
                *least = values.fold(*least, u32::min);
            }
        }
        least
    }
}

/// Returns the Jaccard similarity of the shingles of two texts.
#[must_use]
pub fn jaccard(a: &str, b: &str) -> f64 {
    Shingles::of(a).similarity(&Shingles::of(b), 0.0).unwrap_or_default()
}

/// A text as it is compared: its shingles, and a hash of each band of their signature.
#[derive(Debug)]
pub(super) struct Sketch {
    shingles: Shingles,
    bands: Vec<u64>,
}

/// Texts, and the bands of their signatures.
#[derive(Debug)]
pub(super) struct SimilarTexts {
    threshold: f64,
    /// A multiplier, odd, and an offset for each hash function.
    functions: Vec<(u64, u64)>,
    /// The number of values in a band.
    width: usize,
    texts: Vec<Shingles>,
    /// The last text of each band's content.
    last: HashMap<u64, u32>,
    /// For each text and band, the text before it with the same content.
    before: Vec<u32>,
    /// Texts with more candidates than are compared.
    pub(super) cut_short: usize,
}

impl SimilarTexts {
    pub(super) fn new(threshold: f64) -> Self {
        let width = width(threshold);
        let random = |i: usize, seed| xxh3_64_with_seed(&(i as u64).to_le_bytes(), seed);
        let functions = (0..HASHES / width * width).map(|i| (random(i, 1) | 1, random(i, 2))).collect();
        Self { threshold, functions, width, texts: Vec::new(), last: HashMap::new(), before: Vec::new(), cut_short: 0 }
    }

    /// Returns what a text is compared by.
    pub(super) fn sketch(&self, text: &str) -> Sketch {
        let shingles = Shingles::of(text);
        let signature = shingles.signature(&self.functions);
        // The number of a band is part of its hash.
        let content = |(number, band): (usize, &[u32])| {
            let bytes: Vec<u8> = band.iter().flat_map(|value| value.to_le_bytes()).collect();
            xxh3_64_with_seed(&bytes, number as u64)
        };
        let bands = signature.chunks_exact(self.width).enumerate().map(content).collect();
        Sketch { shingles, bands }
    }

    /// Returns the text that is most similar, the first of equals, and its similarity, if that reaches the threshold.
    pub(super) fn most_similar(&mut self, sketch: &Sketch) -> Option<(usize, f64)> {
        let Sketch { shingles, bands } = sketch;
        if shingles.0.is_empty() {
            return None;
        }
        let mut best: Option<(usize, f64)> = None;
        for candidate in self.candidates(bands) {
            let similarity = shingles.similarity(&self.texts[candidate], self.threshold);
            if let Some(similarity) = similarity.filter(|found| best.is_none_or(|(_, most)| *found > most)) {
                best = Some((candidate, similarity));
            }
        }
        best
    }

    /// Returns the texts that share a band, in their order; of those that share one band the last [`MOST_CANDIDATES`].
    fn candidates(&mut self, contents: &[u64]) -> Vec<usize> {
        let bands = contents.len();
        let (mut found, mut is_cut) = (Vec::new(), false);
        for (band, content) in contents.iter().enumerate() {
            let mut at = self.last.get(content).copied().unwrap_or(NONE);
            let mut steps = 0;
            while at != NONE && steps < MOST_CANDIDATES {
                found.push(at as usize);
                at = self.before[at as usize * bands + band];
                steps += 1;
            }
            is_cut |= at != NONE;
        }
        self.cut_short += usize::from(is_cut);
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Adds a text; false if it has no shingles, by which it could be found.
    pub(super) fn insert(&mut self, sketch: Sketch) -> bool {
        if sketch.shingles.0.is_empty() {
            return false;
        }
        let number = self.texts.len() as u32;
        for content in sketch.bands {
            self.before.push(self.last.insert(content, number).unwrap_or(NONE));
        }
        self.texts.push(sketch.shingles);
        true
    }
}

/// Returns the greatest width of a band with which a pair at the threshold is a candidate with the wanted probability: a pair of similarity
/// `s` shares a band of `w` values with a probability of s^w.
fn width(threshold: f64) -> usize {
    let recall = |width: usize| 1.0 - (1.0 - threshold.powi(width as i32)).powi((HASHES / width) as i32);
    (1..=HASHES).rev().find(|&width| recall(width) >= RECALL).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_as_wide_as_the_recall_allows() {
        // 1 - (1 - 0.8^5)^25 = 0.99995, and 1 - (1 - 0.8^6)^21 = 0.998.
        assert_eq!([0.5, 0.8, 0.9].map(width), [2, 5, 8]);
        assert_eq!(width(1.0), HASHES);
        assert_eq!(width(0.01), 1);
    }

    #[test]
    fn similarity_is_the_share_of_common_shingles() {
        assert_eq!(jaccard("a b c d e f", "a b c d e f"), 1.0);
        // a-e, b-f and b-f, c-g: one of three.
        assert_eq!(jaccard("a b c d e f", "b c d e f g"), 1.0 / 3.0);
        assert_eq!(jaccard("a b", "a b c"), 0.0, "short texts are one shingle");
        assert_eq!(jaccard("", ""), 0.0);
        assert_eq!(jaccard("a a a a a a a a", "a a a a a"), 1.0, "sets");
    }

    #[test]
    fn signatures_estimate_the_similarity() {
        let words = |from: usize, to: usize| (from..to).map(|i| format!("w{i} ")).collect::<String>();
        let index = SimilarTexts::new(0.5);
        let [a, b] = [Shingles::of(&words(0, 300)), Shingles::of(&words(100, 400))];
        let [x, y] = [&a, &b].map(|shingles| shingles.signature(&index.functions));
        let equal = x.iter().zip(&y).filter(|(x, y)| x == y).count() as f64 / x.len() as f64;
        // Of 396 shingles 196 are common; the deviation of 128 trials is 0.044.
        let similarity = a.similarity(&b, 0.0).unwrap();
        assert!((equal - similarity).abs() < 0.13, "{equal} {similarity}");
        assert_eq!(similarity, 196.0 / 396.0);
    }

    #[test]
    fn a_signature_has_the_least_values_of_all_parts() {
        let index = SimilarTexts::new(0.8);
        let shingles = Shingles((0..3 * PART as u64 + 1).map(|i| xxh3_64_with_seed(&i.to_le_bytes(), 7)).collect());
        let value =
            |&(factor, offset): &(u64, u64), hash: &u64| (factor.wrapping_mul(*hash).wrapping_add(offset) >> 32) as u32;
        let expected: Vec<u32> = index
            .functions
            .iter()
            .map(|function| shingles.0.iter().map(|hash| value(function, hash)).min().unwrap())
            .collect();
        assert_eq!(shingles.signature(&index.functions), expected);
        assert_eq!(Shingles(Box::new([])).signature(&index.functions), vec![NONE; index.functions.len()]);
    }

    #[test]
    fn a_similarity_is_told_from_the_least_on() {
        let words = |from: usize, to: usize| (from..to).map(|i| format!("w{i} ")).collect::<String>();
        let text = Shingles::of(&words(0, 104));
        for other in [words(0, 104), words(0, 103), words(50, 154), words(200, 240), words(0, 8), String::new()] {
            let other = Shingles::of(&other);
            let similarity = text.similarity(&other, 0.0).unwrap();
            for least in [0.001, 0.25, 0.5, 0.79, 0.8, 0.99, 1.0, similarity, similarity + 1e-12] {
                let told = (similarity >= least).then_some(similarity);
                assert_eq!(text.similarity(&other, least), told, "{least}");
                assert_eq!(other.similarity(&text, least), told, "{least}");
            }
        }
    }
}
