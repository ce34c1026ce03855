//! The language of a text, as the package langdetect (1.0.9) finds it: a naive Bayes classifier on n-grams of up to three letters (Nakatani
//! 2010), with the profiles of its 55 languages.
//!
//! Its n-grams are drawn at random. The draws here are those of the package with the seed 0.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use regex::Regex;

use crate::python_random::PythonRandom;
use crate::python_text::compiled;

/// Letters of an n-gram.
const LONGEST: usize = 3;
/// Letters of a text that count.
const LETTERS: usize = 10_000;
/// Classifications that are averaged.
const TRIALS: usize = 7;
/// Draws of a classification, unless it is certain before.
const DRAWS: usize = 1000;
const CERTAIN: f64 = 0.99999;
/// The least probability of an answer.
const LEAST: f64 = 0.1;
/// The mean and the standard deviation of the weight of unseen n-grams.
const SMOOTHING: (f64, f64) = (0.5, 0.05);
const BASE: f64 = 10_000.0;

static PROFILES: LazyLock<Profiles> = LazyLock::new(|| {
    let mut data = Vec::new();
    GzDecoder::new(&include_bytes!("../../data/langdetect.bin.gz")[..])
        .read_to_end(&mut data)
        .expect("the profiles are compiled in");
    Profiles::parse(&data).expect("the profiles are compiled in")
});

/// Returns the codes of all languages.
pub(super) fn languages() -> impl Iterator<Item = &'static str> {
    PROFILES.languages.iter().map(String::as_str)
}

/// Returns the code of a text's language, such as `en` or `zh-cn`; `unknown` if none is likely, and `None` if no part of the text tells.
///
/// # Example
/// ```
/// assert_eq!(setpoint_eval::language_of("Alle Menschen sind frei und gleich geboren."), Some("de"));
/// assert_eq!(setpoint_eval::language_of("12 + 30"), None);
/// ```
pub fn language_of(text: &str) -> Option<&'static str> {
    let profiles = &*PROFILES;
    let ngrams = profiles.ngrams_of(&profiles.cleaned(text));
    if ngrams.is_empty() {
        return None;
    }
    let mut random = PythonRandom::from_seed(0);
    let mut mean = vec![0.0; profiles.languages.len()];
    let mut spare = None;
    for _ in 0..TRIALS {
        let alpha = SMOOTHING.0 + random.gauss(&mut spare) * SMOOTHING.1;
        let probabilities = profiles.classify(&ngrams, alpha / BASE, &mut random);
        mean.iter_mut().zip(probabilities).for_each(|(mean, p)| *mean += p / TRIALS as f64);
    }
    let mut best = None;
    for (language, p) in mean.into_iter().enumerate().filter(|(_, p)| *p > LEAST) {
        if best.is_none_or(|(_, highest)| p > highest) {
            best = Some((language, p));
        }
    }
    Some(best.map_or("unknown", |(language, _)| profiles.languages[language].as_str()))
}

/// An n-gram as a number: 21 bits for each letter.
type Ngram = u64;

struct Profiles {
    languages: Vec<String>,
    /// Marks of Latin-1 that are no letters.
    excluded: Vec<char>,
    /// A letter of Vietnamese for a letter and a diacritic.
    composed: HashMap<(char, char), char>,
    /// The representative of a class of ideographs.
    ideographs: HashMap<char, char>,
    /// The range of each n-gram's probabilities.
    ngrams: HashMap<Ngram, (usize, usize)>,
    /// Languages with the probability of an n-gram.
    probabilities: Vec<(u8, f64)>,
}

impl Profiles {
    fn parse(data: &[u8]) -> Option<Self> {
        let mut rest = data;
        let mut languages = Vec::new();
        let mut totals: Vec<Vec<f64>> = Vec::new();
        for line in section(&mut rest)? {
            let mut words = line.split(' ');
            languages.push(words.next()?.to_owned());
            totals.push(words.map(|n| n.parse().ok()).collect::<Option<_>>()?);
        }
        let marks = section(&mut rest)?;
        let (excluded, composed) = marks.split_first()?;
        let composed = composed.iter().map(|line| {
            let mut chars = line.chars();
            Some(((chars.next()?, chars.next()?), chars.next()?))
        });
        let classes = section(&mut rest)?;
        let ideographs = classes.iter().flat_map(|class| {
            let first = class.chars().next().unwrap_or_default();
            class.chars().map(move |c| (c, first))
        });
        let words = section(&mut rest)?;
        let (counts, rest) = rest.split_at_checked(words.len())?;
        let total: usize = counts.iter().map(|n| usize::from(*n)).sum();
        let (owners, mut numbers) = rest.split_at_checked(total)?;
        let mut owners = owners.iter();
        let (mut ngrams, mut probabilities) = (HashMap::with_capacity(words.len()), Vec::with_capacity(total));
        for (word, count) in words.iter().zip(counts) {
            let begin = probabilities.len();
            let letters: Vec<char> = word.chars().collect();
            for language in owners.by_ref().take(usize::from(*count)) {
                let of_length = totals.get(usize::from(*language))?.get(letters.len() - 1)?;
                probabilities.push((*language, varint(&mut numbers)? as f64 / of_length));
            }
            ngrams.insert(packed(&letters), (begin, probabilities.len()));
        }
        Some(Self {
            languages,
            excluded: excluded.chars().collect(),
            composed: composed.collect::<Option<_>>()?,
            ideographs: ideographs.collect(),
            ngrams,
            probabilities,
        })
    }

    /// Returns the letters that count: without addresses, and without Latin ones if most are others.
    fn cleaned(&self, text: &str) -> Vec<char> {
        static URL: LazyLock<Regex> = LazyLock::new(|| compiled("https?://[-_.?&~;+=/#0-9A-Za-z]{1,2076}"));
        static MAIL: LazyLock<Regex> =
            LazyLock::new(|| compiled("[-_.0-9A-Za-z]{1,64}@[-_0-9A-Za-z]{1,255}[-_.0-9A-Za-z]{1,255}"));
        let text = URL.replace_all(text, " ");
        let text = self.compose(&MAIL.replace_all(&text, " "));
        let mut cleaned = Vec::new();
        let mut previous = '\0';
        for c in text.into_iter().take(LETTERS) {
            if c != ' ' || previous != ' ' {
                cleaned.push(c);
            }
            previous = c;
        }
        let is_latin = |c: char| ('A'..='z').contains(&c);
        let latin = cleaned.iter().filter(|c| is_latin(**c)).count();
        // The package means to leave out the letters of Vietnamese, but compares two names that never agree.
        let others = cleaned.iter().filter(|c| **c >= '\u{300}').count();
        if 2 * latin < others {
            cleaned.retain(|c| !is_latin(*c));
        }
        cleaned
    }

    /// Joins letters of Vietnamese with the diacritics behind them.
    fn compose(&self, text: &str) -> Vec<char> {
        let mut out = Vec::with_capacity(text.len());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let composed = chars.peek().and_then(|mark| self.composed.get(&(c, *mark)));
            if composed.is_some() {
                chars.next();
            }
            out.push(composed.copied().unwrap_or(c));
        }
        out
    }

    /// Returns the known n-grams of a text, but none that end in a word of capitals.
    fn ngrams_of(&self, text: &[char]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut window = vec![' '];
        let mut capitals = false;
        for &c in text {
            let c = self.normalized(c);
            let last = window.last().copied().unwrap_or(' ');
            if last == ' ' {
                window = vec![' '];
                capitals = false;
            } else if window.len() >= LONGEST {
                window.remove(0);
            }
            // A space behind a space changes nothing, but the space alone counts again.
            if last != ' ' || c != ' ' {
                window.push(c);
                capitals = c.is_uppercase() && (capitals || last.is_uppercase());
            }
            if !capitals {
                let lengths = 1..=window.len();
                let ngrams = lengths.map(|n| &window[window.len() - n..]).filter(|ngram| **ngram != [' ']);
                found.extend(ngrams.filter_map(|ngram| self.ngrams.get(&packed(ngram))));
            }
        }
        found
    }

    /// Returns the representative of a letter: marks are spaces, and letters that tell nothing are one.
    fn normalized(&self, c: char) -> char {
        match c {
            'A'..='Z' | 'a'..='z' => c,
            '\0'..='\u{7f}' | '\u{2000}'..='\u{206f}' => ' ',
            '\u{80}'..='\u{ff}' if self.excluded.contains(&c) => ' ',
            '\u{219}' => '\u{15f}',
            '\u{21b}' => '\u{163}',
            '\u{6cc}' => '\u{64a}',
            '\u{1ea0}'..='\u{1eff}' => '\u{1ec3}',
            '\u{3040}'..='\u{309f}' => '\u{3042}',
            '\u{30a0}'..='\u{30ff}' => '\u{30a2}',
            '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' => '\u{3105}',
            '\u{4e00}'..='\u{9fff}' => self.ideographs.get(&c).copied().unwrap_or(c),
            '\u{ac00}'..='\u{d7af}' => '\u{ac00}',
            _ => c,
        }
    }

    /// Returns the probabilities of the languages, by n-grams that are drawn until one language is certain.
    fn classify(&self, ngrams: &[(usize, usize)], weight: f64, random: &mut PythonRandom) -> Vec<f64> {
        let count = self.languages.len();
        let mut probabilities = vec![1.0 / count as f64; count];
        for draw in 0.. {
            let (begin, end) = ngrams[random.below(ngrams.len())];
            let mut factors = vec![weight; count];
            for (language, p) in &self.probabilities[begin..end] {
                factors[usize::from(*language)] += p;
            }
            probabilities.iter_mut().zip(factors).for_each(|(p, factor)| *p *= factor);
            if draw % 5 == 0 {
                let sum: f64 = probabilities.iter().sum();
                probabilities.iter_mut().for_each(|p| *p /= sum);
                let highest = probabilities.iter().copied().fold(0.0, f64::max);
                if highest > CERTAIN || draw >= DRAWS {
                    break;
                }
            }
        }
        probabilities
    }
}

fn packed(letters: &[char]) -> Ngram {
    letters.iter().fold(0, |packed, c| packed << 21 | u64::from(*c))
}

/// Takes the lines up to an empty one.
fn section<'d>(data: &mut &'d [u8]) -> Option<Vec<&'d str>> {
    let end = data.windows(2).position(|pair| pair == b"\n\n")?;
    let (section, rest) = data.split_at(end);
    *data = &rest[2..];
    Some(std::str::from_utf8(section).ok()?.split('\n').collect())
}

/// Takes a number of seven bits a byte, the lowest first.
fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = data.split_first()?;
        *data = rest;
        number |= u64::from(byte & 127) << shift;
        if *byte < 128 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_complete() {
        let profiles = &*PROFILES;
        assert_eq!(
            (profiles.languages.len(), profiles.ngrams.len(), profiles.probabilities.len()),
            (55, 87598, 184_129)
        );
        assert_eq!((profiles.composed.len(), profiles.excluded.len()), (120, 4));
    }

    #[test]
    fn texts_without_letters_tell_nothing() {
        for text in ["", "123 ... !", "https://example.org", "me@example.org", "\u{2014}\u{a0}", "\u{1f600}"] {
            assert_eq!(language_of(text), None, "{text}");
        }
        assert_eq!(language_of("This is a sentence."), Some("en"));
    }
}
