//! The verdicts of IFEval against those of lm-evaluation-harness, on responses of all kinds. The harness had the built-in parameters of
//! sentences; with NLTK's own, 6 of its 38,940 verdicts are others.

use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value};
use setpoint_eval::{IfEvalInstruction, language_of, sentence_rules};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ifeval.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The numbers of `draw` in tests/golden/make_ifeval.py.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n as u64).unwrap()
    }
}

fn draw(seed: u64, pieces: &[String], groups: &[usize], joins: &[String]) -> String {
    let mut numbers = Numbers(seed);
    let starts = [(0, pieces.len()), (0, groups[0]), (groups[0], groups[1]), (groups[0] + groups[1], groups[2])];
    let (begin, length) = starts[numbers.below(starts.len())];
    let join = &joins[numbers.below(joins.len())];
    let count = numbers.below(9);
    let mut parts: Vec<&str> = (0..count).map(|_| pieces[begin + numbers.below(length)].as_str()).collect();
    if numbers.below(4) == 0 && !parts.is_empty() {
        parts = vec![parts[0]; parts.len()];
    }
    let text = parts.join(join);
    match numbers.below(8) {
        0 => format!("\"{text}\""),
        1 => format!(" {text}\n"),
        _ => text,
    }
}

fn responses(golden: &Value) -> Vec<String> {
    let (pieces, joins) = (texts(&golden["pieces"]), texts(&golden["joins"]));
    let groups: Vec<usize> = serde_json::from_value(golden["groups"].clone()).unwrap();
    let drawn = 0..golden["drawn"].as_u64().unwrap();
    let mut responses: Vec<String> = drawn.map(|seed| draw(seed, &pieces, &groups, &joins)).collect();
    responses.extend(pieces);
    responses
}

#[test]
fn verdicts_are_those_of_the_reference() {
    assert_eq!(sentence_rules(), "built-in", "the golden verdicts are for these: unset NLTK_DATA");
    let golden = golden();
    let responses = responses(&golden);
    let (mut cases, mut wrong) = (0, Vec::new());
    let mut followed = [0; 4];
    for check in golden["checks"].as_array().unwrap() {
        let name = check["instruction"].as_str().unwrap();
        let kwargs: &Map<String, Value> = check["kwargs"].as_object().unwrap();
        let instruction = IfEvalInstruction::new(name, kwargs).unwrap();
        let verdicts = check["verdicts"].as_str().unwrap();
        assert_eq!(verdicts.len(), responses.len());
        for (response, expected) in responses.iter().zip(verdicts.chars()) {
            let (strict, loose) = (instruction.is_followed(response), instruction.is_followed_loosely(response));
            let found = usize::from(strict) + 2 * usize::from(loose);
            let expected = usize::try_from(expected.to_digit(4).unwrap()).unwrap();
            followed[expected] += 1;
            cases += 1;
            if found != expected {
                wrong.push(format!("{name} {}: {found} instead of {expected} for {response:?}", check["kwargs"]));
            }
        }
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{} of {cases} verdicts differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases > 2000 && followed[0] > 1000 && followed[3] > 1000 && followed[2] > 50, "{cases} {followed:?}");
    let names: Vec<&str> = IfEvalInstruction::names().collect();
    let checked: Vec<&str> =
        golden["checks"].as_array().unwrap().iter().map(|c| c["instruction"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 25);
    assert!(names.iter().all(|name| checked.contains(name)), "every instruction is checked");
}

#[test]
fn languages_are_those_of_langdetect() {
    let golden = golden();
    let mut texts = responses(&golden);
    let groups: Vec<usize> = serde_json::from_value(golden["groups"].clone()).unwrap();
    let pieces = self::texts(&golden["pieces"]);
    for piece in &pieces[..groups[0]] {
        texts.extend([6, 12, 24, 48].map(|length| piece.chars().take(length).collect::<String>()));
    }
    let expected: Vec<Option<String>> = serde_json::from_value(golden["languages"].clone()).unwrap();
    assert_eq!(texts.len(), expected.len());
    let wrong: Vec<String> = texts
        .iter()
        .zip(&expected)
        .filter(|(text, expected)| language_of(text) != expected.as_deref())
        .map(|(text, expected)| format!("{:?} instead of {expected:?}: {text:?}", language_of(text)))
        .collect();
    assert!(wrong.is_empty(), "{} of {} languages differ:\n{}", wrong.len(), texts.len(), wrong.join("\n"));
    let mut found: Vec<&String> = expected.iter().flatten().collect();
    found.sort();
    found.dedup();
    assert!(found.len() >= 20, "{found:?}");
}

#[test]
fn long_and_repetitive_responses_are_judged_in_linear_time() {
    let golden = golden();
    let mut checks: Vec<&Value> = golden["checks"].as_array().unwrap().iter().collect();
    checks.dedup_by_key(|check| check["instruction"].clone());
    let instructions: Vec<IfEvalInstruction> = checks
        .into_iter()
        .map(|check| {
            let kwargs = check["kwargs"].as_object().unwrap();
            IfEvalInstruction::new(check["instruction"].as_str().unwrap(), kwargs).unwrap()
        })
        .collect();
    let begin = Instant::now();
    for text in ["!", "* ", ". ", "[", "<<", "'", "\u{93f}", "{\"a\":", "p.", "Section 1 ", "@a.b"] {
        let response = text.repeat(20_000 / text.len());
        let followed = instructions.iter().filter(|instruction| instruction.is_followed(&response)).count();
        assert!(followed < instructions.len());
    }
    // Milliseconds each; quadratic time would be minutes.
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}
