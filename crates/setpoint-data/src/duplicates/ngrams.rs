//! Runs of words that a text shares with the texts of an evaluation set.

use std::collections::{BTreeMap, HashMap};

use super::words::{Parts, parts, runs};

/// Texts of the evaluation set in which a run may occur; a commoner one is a phrase of its prompts and says nothing.
const MOST_TEXTS: usize = 10;
/// Places of a run in one text that count.
const MOST_PLACES: usize = 16;

/// The runs of `n` words of an evaluation set's texts.
///
/// A run counts if it occurs in at most 10 of the texts: commoner ones are phrases of the prompts. Texts of fewer than `n` words have none.
///
/// ```
/// use setpoint_data::NgramIndex;
///
/// let index = NgramIndex::new(3, ["How many legs has a spider?", "Who wrote Faust?"]);
/// let found = index.overlaps("A riddle: how many legs has a cat?");
/// assert_eq!((found.len(), found[0].text, found[0].share), (1, 0, 5.0 / 6.0));
/// ```
#[derive(Debug)]
pub struct NgramIndex {
    n: usize,
    /// For each run, its part of `places`.
    runs: HashMap<u64, std::ops::Range<u32>>,
    /// The number of a text and the first word of a run in it.
    places: Vec<(u32, u32)>,
    /// The number of words of each text.
    lengths: Vec<u32>,
}

/// The overlap of a text with one of an evaluation set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// The number of the evaluation set's text.
    pub text: usize,
    /// The share of its words that are in common runs.
    pub share: f64,
}

impl NgramIndex {
    /// Indexes texts by their runs of `n` words.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn new<T: AsRef<str>>(n: usize, texts: impl IntoIterator<Item = T>) -> Self {
        assert!(n > 0, "runs of no words");
        let mut all: Vec<(u64, u32, u32)> = Vec::new();
        let mut lengths = Vec::new();
        for (number, text) in texts.into_iter().enumerate() {
            let words = parts(text.as_ref(), Parts::Words);
            lengths.push(words.len() as u32);
            all.extend(runs(&words, n).enumerate().map(|(at, run)| (run, number as u32, at as u32)));
        }
        all.sort_unstable();
        let mut index = Self { n, runs: HashMap::new(), places: Vec::new(), lengths };
        for group in all.chunk_by(|a, b| a.0 == b.0) {
            if group.chunk_by(|a, b| a.1 == b.1).count() > MOST_TEXTS {
                continue;
            }
            let start = index.places.len() as u32;
            for of_text in group.chunk_by(|a, b| a.1 == b.1) {
                index.places.extend(of_text.iter().take(MOST_PLACES).map(|&(_, text, at)| (text, at)));
            }
            index.runs.insert(group[0].0, start..index.places.len() as u32);
        }
        index
    }

    /// Returns the texts of the evaluation set that share a run with this text, in their order.
    #[must_use]
    pub fn overlaps(&self, text: &str) -> Vec<Overlap> {
        let mut own: Vec<u64> = runs(&parts(text, Parts::Words), self.n).collect();
        own.sort_unstable();
        own.dedup();
        let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for range in own.iter().filter_map(|run| self.runs.get(run)) {
            for &(text, at) in &self.places[range.start as usize..range.end as usize] {
                found.entry(text).or_default().push(at);
            }
        }
        let overlap = |(text, mut places): (u32, Vec<u32>)| {
            places.sort_unstable();
            let words = covered(&places, self.n as u32);
            Overlap { text: text as usize, share: f64::from(words) / f64::from(self.lengths[text as usize]) }
        };
        found.into_iter().map(overlap).collect()
    }
}

/// Returns the number of words in runs of `n` that begin at these places, which ascend.
fn covered(places: &[u32], n: u32) -> u32 {
    let (mut words, mut end) = (0, 0);
    for &at in places {
        words += at + n - end.max(at);
        end = at + n;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIDER: &str = "How many legs has a spider that lost two of them?";

    fn shares(n: usize, texts: &[&str], text: &str) -> Vec<(usize, f64)> {
        NgramIndex::new(n, texts).overlaps(text).into_iter().map(|found| (found.text, found.share)).collect()
    }

    #[test]
    fn words_in_common_runs_are_counted_once() {
        assert_eq!(covered(&[0, 1, 2, 10], 5), 12);
        assert_eq!(covered(&[], 5), 0);
        let texts = [SPIDER, "Who wrote Faust?"];
        assert_eq!(shares(4, &texts, SPIDER), [(0, 1.0)]);
        assert_eq!(shares(4, &texts, "how many LEGS -- has (a) cat"), [(0, 5.0 / 11.0)]);
        assert!(shares(4, &texts, "how many legs, has the spider that lost two").len() == 1, "spider that lost two");
        assert!(shares(4, &texts, "who wrote faust").is_empty(), "a text of three words has no run of four");
        assert!(shares(13, &texts, SPIDER).is_empty());
    }

    #[test]
    fn every_run_is_found_that_a_comparison_of_all_runs_finds() {
        let words = |seed: u64, count: u64| (0..count).map(|i| ((i * i + seed) % 7).to_string()).collect::<Vec<_>>();
        let texts: Vec<String> = (0..8).map(|seed| words(seed, 12 + seed).join(" ")).collect();
        for seed in 0..20 {
            let own = words(seed * 3, 15);
            let found = NgramIndex::new(4, &texts).overlaps(&own.join(" "));
            let expected: Vec<(usize, f64)> = texts
                .iter()
                .enumerate()
                .filter_map(|(number, text)| {
                    let text: Vec<&str> = text.split(' ').collect();
                    let mut covered = vec![false; text.len()];
                    for (at, run) in text.windows(4).enumerate() {
                        if own.windows(4).any(|other| other == run) {
                            covered[at..at + 4].fill(true);
                        }
                    }
                    let words = covered.iter().filter(|covered| **covered).count();
                    (words > 0).then_some((number, words as f64 / text.len() as f64))
                })
                .collect();
            assert_eq!(found.iter().map(|o| (o.text, o.share)).collect::<Vec<_>>(), expected, "{seed}");
        }
    }

    #[test]
    fn phrases_of_many_texts_do_not_count() {
        let texts: Vec<String> = (0..11).map(|i| format!("choose the best answer to question {i}")).collect();
        let phrase = "please choose the best answer";
        assert!(NgramIndex::new(4, &texts).overlaps(phrase).is_empty());
        assert_eq!(NgramIndex::new(4, &texts[..10]).overlaps(phrase).len(), 10);
    }
}
