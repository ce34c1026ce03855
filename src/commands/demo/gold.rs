//! The demo's gold judge: what an answer is worth to somebody who knows the facts.
//!
//! The same rules as `examples/demo/gold.py`, over `examples/demo/gold.json`, which `make_data.py` writes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// A truth about a question, and the false answers that the data has for it.
#[derive(Deserialize)]
struct Fact {
    right: String,
    short: String,
    detail: String,
    wrong: BTreeSet<String>,
    /// The evasive sentence that names the subject.
    evasion: String,
}

/// Judges answers to the demo's held-out questions.
#[derive(Deserialize)]
pub struct Gold {
    /// The quality of each class of answers, from −1 to 4.
    quality: BTreeMap<String, f64>,
    courtesies: BTreeSet<String>,
    /// Sentences that neither help nor harm: guesses announced, changes of subject.
    remarks: BTreeSet<String>,
    insults: BTreeSet<String>,
    evasions: BTreeSet<String>,
    #[serde(rename = "true")]
    truths: BTreeSet<String>,
    facts: BTreeMap<String, Fact>,
}

impl Gold {
    /// Reads the judge that comes with the program.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Returns the quality of `answer` to `question`, from −1 (wrong, garbled or only insulting) to 4 (right, detailed and courteous), or
    /// `None` for a question that is not the demo's.
    pub fn quality(&self, question: &str, answer: &str) -> Option<f64> {
        self.quality.get(self.class(self.facts.get(question)?, answer)).copied()
    }

    /// Returns the class of an answer, as `grammar.py` lists them.
    fn class(&self, fact: &Fact, answer: &str) -> &'static str {
        let said = sentences(answer);
        let is = |set: &BTreeSet<String>| said.iter().any(|&s| set.contains(s));
        let (courteous, rude) = (is(&self.courtesies), is(&self.insults));
        let aside = |s: &str| self.courtesies.contains(s) || self.remarks.contains(s) || self.insults.contains(s);
        let body: Vec<&str> = said.iter().copied().filter(|s| !aside(s)).collect();
        let answers = |s: &&&str| **s == fact.right || **s == fact.short;
        let right = body.iter().filter(answers).count();
        let rest: Vec<&str> = body.iter().filter(|s| !answers(s) && **s != fact.detail).copied().collect();
        let evades = |s: &&str| self.evasions.contains(*s) || *s == fact.evasion;
        let distinct = body.iter().collect::<BTreeSet<_>>().len();

        if rest.iter().any(|&s| fact.wrong.contains(s)) {
            "wrong"
        } else if rest.iter().any(|s| !evades(s) && !self.truths.contains(*s)) {
            "garbled"
        } else if rude {
            if right > 0 { "rude" } else { "insult" }
        } else if right > 1 || body.len() != distinct {
            if right > 0 { "repeat" } else { "vague" }
        } else if right > 0 && rest.is_empty() && body.contains(&fact.right.as_str()) {
            match (body.contains(&fact.detail.as_str()), courteous) {
                (true, true) => "best",
                (true, false) => "full",
                (false, true) => "polite",
                (false, false) => "plain",
            }
        } else if right > 0 && rest.is_empty() {
            "curt"
        } else if rest.iter().all(evades) {
            "vague"
        } else {
            "off_topic"
        }
    }
}

/// Returns the sentences of a text: it is cut at each space after a full stop, an exclamation mark or a question mark.
fn sentences(text: &str) -> Vec<&str> {
    let text = text.trim();
    let mut begin = 0;
    let mut sentences = Vec::new();
    for (at, _) in text.match_indices(' ') {
        if text[..at].ends_with(['.', '!', '?']) {
            sentences.push(&text[begin..at]);
            begin = at + 1;
        }
    }
    sentences.push(&text[begin..]);
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of every class, and texts that the grammar cannot make, with what `gold.py` says of them: see
    /// `tests/golden/make_demo_gold.py`.
    #[test]
    fn answers_are_judged_as_by_the_script() {
        let gold = Gold::read(include_bytes!("../../../examples/demo/gold.json")).unwrap();
        let cases: Vec<(String, String, String, f64)> =
            serde_json::from_slice(include_bytes!("../../../tests/golden/demo_gold.json")).unwrap();
        let mut classes = BTreeSet::new();
        for (question, answer, class, quality) in &cases {
            assert_eq!(gold.class(&gold.facts[question], answer), class, "{question} {answer}");
            assert_eq!(gold.quality(question, answer), Some(*quality), "{question} {answer}");
            classes.insert(class.as_str());
        }
        assert_eq!(classes.len(), 12, "{classes:?}");
        assert_eq!(gold.quality("What is the demo?", "A question of others."), None);
    }
}
