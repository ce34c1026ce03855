//! Samples for the same prompts, side by side.

use serde::Serialize;

use super::chart::{Key, Look};
use super::number::count;
use super::read::{Measured, Run};

/// Prompts that are shown.
const PROMPTS: usize = 20;
/// The longest text that is shown, characters.
const LONGEST: usize = 4000;

/// A prompt with what the models wrote.
#[derive(Debug, PartialEq, Serialize)]
pub struct Prompt {
    text: String,
    completions: Vec<Completion>,
}

/// A completion of a model.
#[derive(Debug, PartialEq, Serialize)]
struct Completion {
    key: Key,
    text: String,
}

/// A run or result, and its prompts with what it wrote.
type Column<'a> = (Key, &'a [(String, String)]);

fn key(subject: usize, name: String) -> Key {
    Key { subject: Some(subject), look: Look::Solid, name }
}

/// Returns the samples of runs and results by prompt. Prompts that more models answered come first.
pub fn side_by_side(runs: &[Run], results: &[Measured], numbers: &[usize]) -> Vec<Prompt> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let name = match run.samples.step {
            Some(step) => format!("{}, after step {}", run.name, count(step)),
            None => run.name.clone(),
        };
        columns.push((key(i, name), &run.samples.pairs));
    }
    columns.extend(results.iter().zip(numbers).map(|(result, i)| (key(*i, result.name.clone()), &*result.samples)));
    let mut prompts: Vec<&str> = Vec::new();
    // More prompts than are shown, so that those with several answers can come first.
    for (prompt, _) in columns.iter().flat_map(|(_, samples)| samples.iter().take(50 * PROMPTS)) {
        if !prompts.contains(&prompt.as_str()) && prompts.len() < 50 * PROMPTS {
            prompts.push(prompt);
        }
    }
    let mut found: Vec<Prompt> = prompts
        .into_iter()
        .map(|prompt| {
            let completions = columns.iter().filter_map(|(key, samples)| {
                let (_, text) = samples.iter().find(|(other, _)| other == prompt)?;
                Some(Completion { key: key.clone(), text: shortened(text) })
            });
            Prompt { text: shortened(prompt), completions: completions.collect() }
        })
        .collect();
    found.sort_by_key(|prompt| std::cmp::Reverse(prompt.completions.len()));
    found.truncate(PROMPTS);
    found
}

/// Returns a text without its end if it is very long.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => {
            let left = text[end..].chars().count();
            format!("{} … ({} more characters)", &text[..end], count(left as u64))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::read::Samples;

    fn run(name: &str, pairs: &[(&str, &str)]) -> Run {
        let pairs = pairs.iter().map(|(prompt, text)| ((*prompt).to_owned(), (*text).to_owned())).collect();
        Run { name: name.into(), samples: Samples { step: Some(40), pairs }, ..Run::default() }
    }

    #[test]
    fn shared_prompts_come_first_with_an_answer_for_each_model() {
        let runs = [run("dro", &[("a", "1"), ("b", "2")]), run("dpo", &[("b", "3"), ("c", "4")])];
        let found = side_by_side(&runs, &[], &[]);
        assert_eq!(found.iter().map(|prompt| prompt.text.as_str()).collect::<String>(), "bac");
        let answers: Vec<_> = found[0].completions.iter().map(|c| (c.key.name.as_str(), c.text.as_str())).collect();
        assert_eq!(answers, [("dro, after step 40", "2"), ("dpo, after step 40", "3")]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(LONGEST + 1234);
        let found = shortened(&text);
        assert!(found.ends_with("é … (1,234 more characters)") && found.chars().count() < LONGEST + 40);
        assert_eq!(shortened("short"), "short");
    }
}
