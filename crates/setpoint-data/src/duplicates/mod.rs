//! Texts that repeat others, exactly or nearly, and texts that share runs of words with an evaluation set.
//!
//! Everything here is deterministic, whatever the order of threads, and the memory of a text does not grow with the number of texts that
//! it resembles.

mod ngrams;
mod shingles;
mod words;

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3Default;

pub use self::ngrams::{NgramIndex, Overlap};
pub use self::shingles::{SHINGLE_WORDS, jaccard};
use self::shingles::{SimilarTexts, Sketch};

/// A text that another one repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repeated {
    /// The number of the earlier text, in the order in which the texts were given.
    pub earlier: usize,
    /// True if the texts are equal but for white space.
    pub is_exact: bool,
    /// The Jaccard similarity of the texts' shingles; 1 for equal texts.
    pub similarity: f64,
}

/// Finds texts that repeat earlier ones.
///
/// Two texts are near-duplicates if the Jaccard similarity of their sets of shingles ([`SHINGLE_WORDS`] words and symbols in a row, in
/// lower case) is at least the threshold. Candidates are found by MinHash and bands; their similarity is then computed exactly, so a
/// reported pair always has it. A pair at the threshold is missed with a probability below 0.1 %.
///
/// ```
/// use setpoint_data::Duplicates;
///
/// let mut duplicates = Duplicates::new(0.8);
/// assert!(duplicates.add("Name the capital of France.").is_none());
/// assert!(duplicates.add("Name the capital of  France.\n").unwrap().is_exact);
/// assert!(duplicates.add("Name the capital of Italy.").is_none());
/// ```
#[derive(Debug)]
pub struct Duplicates {
    /// The first text of each content, by a hash of 128 bits.
    exact: HashMap<u128, u32>,
    similar: SimilarTexts,
    /// The number of each text that others are compared with.
    kept: Vec<u32>,
    count: u32,
}

impl Duplicates {
    /// Looks for texts with at least this Jaccard similarity.
    ///
    /// # Panics
    /// When the threshold is not above 0 and at most 1.
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        assert!(threshold > 0.0 && threshold <= 1.0, "a threshold of {threshold}");
        Self { exact: HashMap::new(), similar: SimilarTexts::new(threshold), kept: Vec::new(), count: 0 }
    }

    /// Adds a text, and returns the earlier one that it repeats, if there is one. Later texts are compared with those alone that repeat none.
    pub fn add(&mut self, text: &str) -> Option<Repeated> {
        let found = self.equal(text);
        let sketch = if found.is_none() { Some(self.similar.sketch(text)) } else { None };
        let found = found.or_else(|| self.near(sketch.as_ref()?));
        if let Some(sketch) = sketch.filter(|_| found.is_none()) {
            self.keep(sketch);
        }
        self.note(text);
        found
    }

    /// Returns the earlier text that a text repeats, without adding it: an equal one, else the most similar one.
    pub fn find(&mut self, text: &str) -> Option<Repeated> {
        self.equal(text).or_else(|| {
            let sketch = self.similar.sketch(text);
            self.near(&sketch)
        })
    }

    /// Adds a text that later ones are compared with, whether it repeats another one or not.
    pub fn insert(&mut self, text: &str) {
        self.keep(self.similar.sketch(text));
        self.note(text);
    }

    fn equal(&self, text: &str) -> Option<Repeated> {
        let first = *self.exact.get(&content(text))?;
        Some(Repeated { earlier: first as usize, is_exact: true, similarity: 1.0 })
    }

    fn near(&mut self, sketch: &Sketch) -> Option<Repeated> {
        let (at, similarity) = self.similar.most_similar(sketch)?;
        Some(Repeated { earlier: self.kept[at] as usize, is_exact: false, similarity })
    }

    fn keep(&mut self, sketch: Sketch) {
        if self.similar.insert(sketch) {
            self.kept.push(self.count);
        }
    }

    /// Numbers a text. Those that are equal to it repeat it.
    fn note(&mut self, text: &str) {
        self.exact.entry(content(text)).or_insert(self.count);
        self.count += 1;
    }

    /// Returns how many texts had more candidates than are compared, so that a near-duplicate may have been missed.
    #[must_use]
    pub fn cut_short(&self) -> usize {
        self.similar.cut_short
    }
}

/// Returns a hash of a text in which all white space is one space.
fn content(text: &str) -> u128 {
    let mut hash = Xxh3Default::new();
    for word in text.split_whitespace() {
        hash.update(word.as_bytes());
        hash.update(b" ");
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A generator of texts; splitmix64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % n
        }

        /// A text of words, or an earlier one with some of its words replaced.
        fn text(&mut self, earlier: &[Vec<u64>]) -> Vec<u64> {
            if earlier.is_empty() || self.below(3) == 0 {
                let length = 3 + self.below(120);
                return (0..length).map(|_| self.below(400)).collect();
            }
            let mut text = earlier[self.below(earlier.len() as u64) as usize].clone();
            for _ in 0..self.below(4) {
                let at = self.below(text.len() as u64) as usize;
                text[at] = self.below(400);
            }
            text
        }
    }

    fn texts(seed: u64, count: usize) -> Vec<String> {
        let mut random = Random(seed);
        let mut words: Vec<Vec<u64>> = Vec::new();
        for _ in 0..count {
            let text = random.text(&words);
            words.push(text);
        }
        let shown = |words: &Vec<u64>| words.iter().map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ");
        words.iter().map(shown).collect()
    }

    /// The runs of words of a text, without hashes.
    fn runs(text: &str) -> HashSet<Vec<&str>> {
        let words: Vec<&str> = text.split_whitespace().collect();
        words.windows(SHINGLE_WORDS.min(words.len())).map(<[&str]>::to_vec).collect()
    }

    fn exact_similarity(a: &HashSet<Vec<&str>>, b: &HashSet<Vec<&str>>) -> f64 {
        let both = a.intersection(b).count();
        both as f64 / (a.len() + b.len() - both) as f64
    }

    /// Computes the result of [`Duplicates::add`] by comparing each text with all earlier ones that repeat none.
    fn quadratic(texts: &[String], runs: &[HashSet<Vec<&str>>], threshold: f64) -> Vec<Option<(bool, f64)>> {
        let mut kept: Vec<usize> = Vec::new();
        let mut found = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            if texts[..i].contains(text) {
                found.push(Some((true, 1.0)));
                continue;
            }
            let most = kept.iter().map(|&j| exact_similarity(&runs[i], &runs[j])).fold(0.0, f64::max);
            let near = most >= threshold;
            if !near {
                kept.push(i);
            }
            found.push(near.then_some((false, most)));
        }
        found
    }

    #[test]
    fn near_duplicates_are_those_of_an_exact_comparison_of_all_pairs() {
        let mut near = 0;
        for (seed, threshold) in [(1, 0.8), (2, 0.5), (3, 0.9), (4, 0.7), (5, 1.0), (6, 0.3)] {
            let texts = texts(seed, 180);
            let runs: Vec<_> = texts.iter().map(|text| runs(text)).collect();
            let mut duplicates = Duplicates::new(threshold);
            let found: Vec<_> = texts.iter().map(|text| duplicates.add(text)).collect();
            let shown: Vec<_> = found.iter().map(|r| r.map(|r| (r.is_exact, r.similarity))).collect();
            assert_eq!(shown, quadratic(&texts, &runs, threshold), "threshold {threshold}");
            for (own, found) in runs.iter().zip(&found) {
                let Some(found) = found else { continue };
                assert_eq!(exact_similarity(own, &runs[found.earlier]), found.similarity);
            }
            assert_eq!(duplicates.cut_short(), 0);
            near += shown.iter().flatten().filter(|(exact, _)| !exact).count();
        }
        assert!(near > 200, "{near} near-duplicates in all");
    }

    #[test]
    fn pairs_at_the_threshold_are_found() {
        // 100 words and the same with the last n replaced: the shingles that differ are known.
        let words = |from: usize, to: usize, mark: &str| (from..to).map(|i| format!("{mark}{i} ")).collect::<String>();
        let mut missed = 0;
        for trial in 0..200 {
            let mark = format!("t{trial}x");
            let (a, b) = (words(0, 100, &mark), words(0, 89, &mark) + &words(89, 100, "other"));
            let mut duplicates = Duplicates::new(0.79);
            duplicates.add(&a);
            // 96 shingles each, 85 in common: 85 / 107 = 0.794.
            missed += usize::from(duplicates.add(&b).is_none());
        }
        assert!(missed <= 1, "{missed} of 200");
    }

    #[test]
    fn symbols_make_a_difference_and_case_and_space_do_not() {
        let repeated = |a: &str, b: &str| {
            let mut duplicates = Duplicates::new(0.9);
            assert!(duplicates.add(a).is_none());
            duplicates.add(b)
        };
        assert!(repeated("What is 2 + 2?", "What is 2 - 2?").is_none());
        assert_eq!(
            repeated("What is 2 + 2?", "what IS 2+2?"),
            Some(Repeated { earlier: 0, is_exact: false, similarity: 1.0 })
        );
        assert!(repeated("a b", " a\n b ").unwrap().is_exact);
        assert!(repeated("空は青いですか", "海は青いですか").is_none());
        assert!(repeated("", "a").is_none());
        assert!(repeated("", " ").unwrap().is_exact, "texts without a word are equal");
    }

    #[test]
    fn texts_can_be_compared_with_others_alone() {
        let mut duplicates = Duplicates::new(0.8);
        for text in ["one two three", "one two three", "four five six seven eight nine"] {
            duplicates.insert(text);
        }
        assert_eq!(duplicates.find("one two three").map(|found| found.earlier), Some(0));
        assert_eq!(duplicates.find("Four five six seven eight nine").map(|found| found.earlier), Some(2));
        assert!(duplicates.find("ten eleven").is_none() && duplicates.find("ten eleven").is_none());
        assert!(duplicates.add("ten eleven").is_none());
        assert_eq!(duplicates.add("ten eleven").map(|found| found.earlier), Some(3), "the fourth text");
    }

    #[test]
    fn many_texts_that_are_alike_but_no_duplicates_take_bounded_time() {
        let boiler: String = (0..40).map(|i| format!("common{i} ")).collect();
        let mut duplicates = Duplicates::new(0.9);
        for i in 0..1000 {
            let own: String = (0..20).map(|j| format!("own{i}x{j} ")).collect();
            assert!(duplicates.add(&format!("{boiler}{own}")).is_none());
        }
        assert!(duplicates.cut_short() < 1000);
    }
}
