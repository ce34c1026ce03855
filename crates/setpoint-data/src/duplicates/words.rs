//! Texts as words: what runs of words are compared by.

use xxhash_rust::xxh3::xxh3_64;

/// The parts of a text that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    /// Words alone, as evaluation sets are compared.
    Words,
    /// Words and every other character that is no white space: `2+2` and `2-2` differ.
    WordsAndSymbols,
}

/// Returns a hash of each part of a text in lower case, in order. A word is a run of letters and digits; in scripts without spaces, each
/// character is one.
pub(super) fn parts(text: &str, which: Parts) -> Vec<u64> {
    let mut found = Vec::new();
    let mut word = String::new();
    let mut end = |word: &mut String| {
        if !word.is_empty() {
            found.push(xxh3_64(word.as_bytes()));
            word.clear();
        }
    };
    for c in text.chars() {
        let is_word = c.is_alphanumeric();
        if !is_word || has_no_spaces(c) {
            end(&mut word);
        }
        if is_word {
            word.extend(c.to_lowercase());
        } else if which == Parts::WordsAndSymbols && !c.is_whitespace() {
            word.push(c);
        }
        if !is_word || has_no_spaces(c) {
            end(&mut word);
        }
    }
    end(&mut word);
    found
}

/// Returns whether a character belongs to a script that is written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, kana and ideographs.
fn has_no_spaces(c: char) -> bool {
    matches!(u32::from(c), 0x0e00..=0x0fff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff)
}

/// Returns a hash of each run of `n` parts.
pub(super) fn runs(parts: &[u64], n: usize) -> impl Iterator<Item = u64> {
    let mut bytes = Vec::with_capacity(8 * n);
    parts.windows(n).map(move |run| {
        bytes.clear();
        run.iter().for_each(|part| bytes.extend(part.to_le_bytes()));
        xxh3_64(&bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(words: &[&str]) -> Vec<u64> {
        words.iter().map(|word| xxh3_64(word.as_bytes())).collect()
    }

    #[test]
    fn words_and_symbols() {
        let text = "Don't  panic: 2+2 = Ünï!";
        assert_eq!(parts(text, Parts::Words), hashes(&["don", "t", "panic", "2", "2", "ünï"]));
        let all = hashes(&["don", "'", "t", "panic", ":", "2", "+", "2", "=", "ünï", "!"]);
        assert_eq!(parts(text, Parts::WordsAndSymbols), all);
        assert_eq!(parts("空は blue空", Parts::Words), hashes(&["空", "は", "blue", "空"]));
        assert!(parts(" \n", Parts::WordsAndSymbols).is_empty());
    }

    #[test]
    fn runs_overlap() {
        let all: Vec<u64> = (0..5).collect();
        assert_eq!(runs(&all, 3).count(), 3);
        assert_eq!(runs(&all, 6).count(), 0);
        let again: Vec<u64> = runs(&[1, 2, 3, 9, 1, 2, 3], 3).collect();
        assert_eq!(again[0], again[4]);
        assert_eq!(again.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}
