//! Sentences, as NLTK's splitter finds them: Punkt (Kiss and Strunk 2006). The parameters for English that NLTK distributes have no clear licence.
//! So those here are this project's own, and those of an installation of NLTK are read if there is one.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::nltk::{is_digit, is_space, is_word};
use crate::python_text;

/// This project's parameters: abbreviations, sentence starters, pairs of words, and words with the cases in which they occur.
const OWN: &str = include_str!("../../data/sentences_english.txt");
/// The variable that names NLTK's folders of data.
const FOLDERS: &str = "NLTK_DATA";
/// The folder of NLTK's parameters in its folder of data.
const FOLDER: &str = "tokenizers/punkt_tab/english";
/// The longest of NLTK's files that is read, in bytes; they have up to 250 kB.
const LONGEST: u64 = 16 << 20;

/// The parameters of the installation, else the own ones.
static ENGLISH: LazyLock<(Parameters, bool)> = LazyLock::new(|| {
    let places: Vec<PathBuf> =
        std::env::var_os(FOLDERS).iter().flat_map(std::env::split_paths).map(|place| place.join(FOLDER)).collect();
    if let Some(installed) = places.iter().find_map(|place| Parameters::read(place)) {
        return (installed, true);
    }
    if !places.is_empty() {
        log::warn!("{FOLDERS}: no folder has the files of {FOLDER}, so sentences follow the built-in rules");
    }
    (Parameters::parse(OWN), false)
});

/// Returns which rules divide texts into sentences: those of NLTK's `punkt_tab` if the variable `NLTK_DATA` names a folder that has it, which the
/// reference uses, else the built-in ones.
#[must_use]
pub fn sentence_rules() -> &'static str {
    if ENGLISH.1 { "punkt_tab of NLTK" } else { "built-in" }
}

/// A word that began with a capital at the beginning of a sentence, within one, or at an unknown place.
const UPPER: u8 = 0b1110;
/// The second of these.
const UPPER_WITHIN: u8 = 0b100;
/// A word that began with a small letter at any of these.
const LOWER: u8 = 0b111_0000;
/// The first of these.
const LOWER_AT_BEGINNING: u8 = 0b1_0000;
/// The type of all numbers.
const NUMBER: &str = "##number##";

struct Parameters {
    abbreviations: HashSet<String>,
    starters: HashSet<String>,
    collocations: HashSet<(String, String)>,
    cases: HashMap<String, u8>,
}

impl Parameters {
    fn parse(text: &str) -> Self {
        let mut parts = text.split("\n\n").map(|part| part.split('\n'));
        let mut part = || parts.next().into_iter().flatten();
        let owned = |line: &str| line.to_owned();
        let abbreviations = part().map(owned).collect();
        let starters = part().map(owned).collect();
        let pair = |line: &str| line.split_once('\t').map(|(a, b)| (owned(a), owned(b)));
        let collocations = part().filter_map(pair).collect();
        let case =
            |line: &str| line.split_once('\t').and_then(|(word, flags)| Some((owned(word), flags.parse().ok()?)));
        let cases = part().filter_map(case).collect();
        Self { abbreviations, starters, collocations, cases }
    }
}

impl Parameters {
    /// Reads the files of NLTK's `punkt_tab`, if all of them can be read.
    fn read(folder: &Path) -> Option<Self> {
        let read = |name: &str| setpoint_files::read_text_up_to(&folder.join(name), LONGEST).ok();
        let names = ["abbrev_types.txt", "sent_starters.txt", "collocations.tab", "ortho_context.tab"];
        let files: Vec<String> = names.into_iter().map(read).collect::<Option<_>>()?;
        Some(Self::parse(&files.iter().map(|text| text.trim_end()).collect::<Vec<&str>>().join("\n\n")))
    }
}

/// Returns the sentences of a text, without the white space between them.
pub(super) fn sentences(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let slices = realigned(&chars, &slices(&chars));
    slices.into_iter().map(|slice| chars[slice].iter().collect()).collect()
}

/// A character that may end a sentence, and its surroundings.
struct Candidate {
    /// Its place.
    at: usize,
    /// The word before it.
    word: Range<usize>,
    /// The end of the token behind it.
    end: usize,
    /// The beginning of the next word, if white space comes first.
    next: Option<usize>,
}

/// Returns the candidates; of several within one word the last.
fn candidates(text: &[char]) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for at in (0..text.len()).filter(|&at| ends_sentences(text[at])) {
        let Some((end, next)) = behind(text, at + 1) else { continue };
        let previous = found.last().map_or(0..0, |c| c.word.clone());
        let before = previous.end..at;
        // A space at the very beginning does not count.
        let space = text[before].iter().rposition(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c'));
        let begin = match space {
            None | Some(0) => previous.start,
            Some(space) => previous.end + space + 1,
        };
        if found.last().is_some_and(|c| c.word.end > begin) {
            found.pop();
        }
        found.push(Candidate { at, word: begin..at, end, next });
    }
    found
}

/// Returns the end of what follows a candidate, punctuation or white space and a word, and the word's beginning.
fn behind(text: &[char], at: usize) -> Option<(usize, Option<usize>)> {
    if is_punctuation(*text.get(at)?) {
        return Some((at + 1, None));
    }
    let next = at + text[at..].iter().position(|c| !is_space(*c))?;
    let length = text[next..].iter().position(|c| is_space(*c)).unwrap_or(text.len() - next);
    (next > at).then_some((next + length, Some(next)))
}

fn ends_sentences(c: char) -> bool {
    matches!(c, '.' | '?' | '!')
}

/// Returns whether a character cannot be part of a word.
fn is_punctuation(c: char) -> bool {
    matches!(
        c,
        ')' | '"'
            | ';'
            | '}'
            | ']'
            | '*'
            | ':'
            | '@'
            | '\''
            | '('
            | '{'
            | '['
            | '‘'
            | '’'
            | '“'
            | '”'
            | '«'
            | '»'
            | '?'
            | '!'
    )
}

/// Cuts a text behind the candidates that end a sentence.
fn slices(text: &[char]) -> Vec<Range<usize>> {
    let mut slices = Vec::new();
    let mut begin = 0;
    for candidate in candidates(text) {
        let context = [&text[candidate.word], &text[candidate.at..candidate.end]].concat();
        if holds_break(&context) {
            slices.push(begin..candidate.at + 1);
            begin = candidate.next.unwrap_or(candidate.at + 1);
        }
    }
    let end = text.iter().rposition(|c| !python_text::is_space(*c)).map_or(0, |last| last + 1);
    slices.push(begin..end.max(begin));
    slices
}

/// Moves quotes and brackets that follow a sentence into it.
fn realigned(text: &[char], slices: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut moved = 0;
    for (i, slice) in slices.iter().enumerate() {
        let begin = slice.start + moved;
        moved = 0;
        match slices.get(i + 1).and_then(|next| Some((next.start, closing(&text[next.clone()])?))) {
            Some((next, (closing, length))) => {
                out.push(begin.min(next + closing)..next + closing);
                moved = length;
            }
            None if begin < slice.end => out.push(begin..slice.end),
            None => {}
        }
    }
    out
}

/// Returns the number of closing marks at the beginning of a sentence, and their length with white space behind them.
fn closing(sentence: &[char]) -> Option<(usize, usize)> {
    let marks = sentence.iter().take_while(|c| {
        matches!(c, '"' | '\'' | ')' | ']' | '}' | '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' | '«' | '»')
    });
    let count = marks.count();
    let rest = &sentence[count..];
    let spaces = rest.iter().take_while(|c| is_space(**c)).count();
    (count > 0 && (spaces > 0 || rest.is_empty() || rest.starts_with(&['-', '-']))).then_some((count, count + spaces))
}

/// A token with its annotations.
struct Token {
    text: Vec<char>,
    /// In lower case; all numbers are one.
    kind: String,
    breaks: bool,
    abbreviation: bool,
    ellipsis: bool,
}

impl Token {
    fn new(text: &[char], english: &Parameters) -> Self {
        let lower: String = text.iter().collect::<String>().to_lowercase();
        let is_one = text.len() == 1 && ends_sentences(text[0]);
        let ellipsis = !is_one && text.len() > 1 && text.iter().all(|c| *c == '.');
        let ends_once = text.ends_with(&['.']) && !text.ends_with(&['.', '.']);
        let (mut breaks, mut abbreviation) = (is_one, false);
        if !is_one && !ellipsis && ends_once {
            let stem = &lower[..lower.len() - 1];
            let last = stem.rsplit('-').next().unwrap_or(stem);
            abbreviation = english.abbreviations.contains(stem) || english.abbreviations.contains(last);
            breaks = !abbreviation;
        }
        let kind = if is_number(&lower) { NUMBER.to_owned() } else { lower };
        Self { text: text.to_vec(), kind, breaks, abbreviation, ellipsis }
    }

    fn ends_with_period(&self) -> bool {
        self.text.ends_with(&['.'])
    }

    /// Returns the type without a final period.
    fn stem(&self) -> &str {
        if self.kind.len() > 1 { self.kind.strip_suffix('.').unwrap_or(&self.kind) } else { &self.kind }
    }

    /// Returns the type, without a final period that ends a sentence.
    fn word(&self) -> &str {
        if self.breaks { self.stem() } else { &self.kind }
    }

    fn is_initial(&self) -> bool {
        matches!(self.text[..], [letter, '.'] if is_word(letter) && !is_digit(letter))
    }

    fn begins_upper(&self) -> bool {
        self.text[0].is_uppercase()
    }

    /// Returns whether the token begins a sentence, by its case and by the cases that the word occurred in; `None` if these do not tell.
    fn begins_sentence(&self, english: &Parameters) -> Option<bool> {
        if matches!(self.text[..], [';' | ':' | ',' | '.' | '!' | '?']) {
            return Some(false);
        }
        let cases = english.cases.get(self.word()).copied().unwrap_or_default();
        if self.begins_upper() && cases & LOWER != 0 && cases & UPPER_WITHIN == 0 {
            return Some(true);
        }
        (self.text[0].is_lowercase() && (cases & UPPER != 0 || cases & LOWER_AT_BEGINNING == 0)).then_some(false)
    }

    /// Decides again whether a period ends a sentence, by the token that follows.
    fn reconsider(&mut self, next: &Self, english: &Parameters) {
        if !self.ends_with_period() {
            return;
        }
        let (stem, word) = (self.stem().to_owned(), next.word().to_owned());
        if english.collocations.contains(&(stem.clone(), word.clone())) {
            self.breaks = false;
            self.abbreviation = true;
            return;
        }
        let initial = self.is_initial();
        let begins = next.begins_sentence(english);
        if (self.abbreviation || self.ellipsis)
            && !initial
            && (begins == Some(true) || next.begins_upper() && english.starters.contains(&word))
        {
            self.breaks = true;
            return;
        }
        if initial || stem == NUMBER {
            let never_lower = || english.cases.get(&word).is_none_or(|cases| cases & LOWER == 0);
            if begins == Some(false) || begins.is_none() && initial && next.begins_upper() && never_lower() {
                self.breaks = false;
                self.abbreviation = true;
            }
        }
    }
}

/// Returns whether a text matches `-?[.,]?\d[\d,.-]*\.?`.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let text = text.strip_prefix(['.', ',']).unwrap_or(text);
    text.starts_with(is_digit) && text.chars().all(|c| is_digit(c) || matches!(c, ',' | '.' | '-'))
}

/// Returns whether a token that is not the last ends a sentence.
fn holds_break(text: &[char]) -> bool {
    let english = &ENGLISH.0;
    let lines = text.split(|c| *c == '\n').filter(|line| !line.iter().all(|c| python_text::is_space(*c)));
    let mut tokens: Vec<Token> = lines.flat_map(tokens).map(|token| Token::new(token, english)).collect();
    for i in 1..tokens.len() {
        let (before, behind) = tokens.split_at_mut(i);
        before[i - 1].reconsider(&behind[0], english);
        if before[i - 1].breaks {
            return true;
        }
    }
    false
}

/// Divides a line into words, which keep their periods, and punctuation.
fn tokens(line: &[char]) -> Vec<&[char]> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < line.len() {
        if is_space(line[at]) {
            at += 1;
            continue;
        }
        let rest = &line[at..];
        let length = repeated(rest).unwrap_or_else(|| if begins_word(rest[0]) { word_length(rest) } else { 1 });
        tokens.push(&rest[..length]);
        at += length;
    }
    tokens
}

fn begins_word(c: char) -> bool {
    !matches!(c, '(' | '"' | '`' | '{' | '[' | ':' | ';' | '&' | '#' | '*' | '@' | ')' | '}' | ']' | '-' | ',')
}

/// Returns the length of a word, which is at least 1.
fn word_length(text: &[char]) -> usize {
    let ends =
        |rest: &[char]| rest.first().is_none_or(|c| is_space(*c) || is_punctuation(*c)) || repeated(rest).is_some();
    let end = (1..text.len()).find(|&at| ends(&text[at..]) || text[at] == ',' && ends(&text[at + 1..]));
    end.unwrap_or(text.len())
}

/// Returns the length of dashes, periods, or periods with spaces between them at the beginning of a text.
fn repeated(text: &[char]) -> Option<usize> {
    let run = |mark: char| text.iter().take_while(|c| **c == mark).count();
    let longest = run('-').max(run('.'));
    if longest > 1 {
        return Some(longest);
    }
    let spaced = text.chunks_exact(2).take_while(|pair| pair[0] == '.' && is_space(pair[1])).count();
    match text.get(2 * spaced) {
        Some('.') if spaced > 1 => Some(2 * spaced + 1),
        // The last period is the end, whatever follows its space.
        _ if spaced > 2 => Some(2 * spaced - 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_nltks_with_these_parameters() {
        // nltk 3.10.4, PunktSentenceTokenizer().tokenize with the parameters in sentences_english.txt
        for (text, expected) in [
            ("", &[][..]),
            ("One. Two! Three?", &["One.", "Two!", "Three?"]),
            (
                "Dr. Smith met Mr. J. Bach at 3 p.m. on Fri. They spoke.",
                &["Dr. Smith met Mr. J. Bach at 3 p.m. on Fri.", "They spoke."],
            ),
            ("(He left.) \"She stayed.\" End", &["(He left.)", "\"She stayed.\"", "End"]),
            ("Wait... What? No.", &["Wait...", "What?", "No."]),
            ("It cost 3.50. Really. 5. items", &["It cost 3.50.", "Really.", "5. items"]),
        ] {
            assert_eq!(sentences(text), expected, "{text}");
        }
    }

    #[test]
    fn parameters_of_an_installation_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert!(Parameters::read(dir.path()).is_none());
        write("abbrev_types.txt", "dr\ne.g\n");
        write("sent_starters.txt", "");
        write("collocations.tab", "no\tyes\n");
        assert!(Parameters::read(dir.path()).is_none(), "a file is missing");
        write("ortho_context.tab", "the\t114\na\t2\n");
        let read = Parameters::read(dir.path()).unwrap();
        assert!(read.abbreviations.contains("e.g") && read.abbreviations.len() == 2);
        assert!(read.collocations.contains(&("no".to_owned(), "yes".to_owned())));
        assert_eq!(read.cases["the"], 114);
        assert_eq!(read.cases.len(), 2);
    }

    #[test]
    fn the_own_parameters_are_complete() {
        let own = Parameters::parse(OWN);
        let sizes = (own.abbreviations.len(), own.collocations.len(), own.cases.len());
        assert_eq!(sizes, (157, 0, 332));
    }
}
