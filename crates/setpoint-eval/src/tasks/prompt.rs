//! The prompts of a model, word for word as lm-evaluation-harness writes them.

use super::doc::{Gold, TaskDoc, TaskMode};
use super::read::TaskSet;
use crate::error::Error;
use crate::python_random::PythonRandom;

/// The harness's seed of few-shot examples.
const SHOT_SEED: u32 = 1234;

/// One example as it is put to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRequest {
    /// Everything before the answer; empty if `contexts` has a text for each continuation.
    pub context: String,
    /// Everything before each continuation, if the choices are part of it; else empty.
    pub contexts: Vec<String>,
    /// The continuations whose log-likelihoods are compared; none where an answer is generated.
    pub continuations: Vec<String>,
}

impl TaskSet {
    /// The requests of all examples, in their order.
    ///
    /// MMLU's few-shot examples are the first of its dev split. Those of other tasks are drawn from the training split, again for each
    /// example and in the order of the examples, by Python's `random.Random(1234).sample`.
    ///
    /// # Errors
    /// Fewer few-shot examples than asked for.
    pub fn requests(&self, mode: TaskMode, shots: usize) -> Result<Vec<TaskRequest>, Error> {
        let definition = self.task.definition();
        let mut random = PythonRandom::from_seed(SHOT_SEED);
        self.docs
            .iter()
            .map(|doc| {
                let pool = self.shots.get(doc.subject.as_deref().unwrap_or_default()).map_or(&[][..], Vec::as_slice);
                // Without a test split the harness draws one more, lest the example itself be among them.
                let drawn = shots + usize::from(shots > 0 && definition.published().split != "test");
                if pool.len() < drawn {
                    return Err(Error::Shots { task: self.task.name(), needed: drawn, found: pool.len() });
                }
                let chosen: Vec<&TaskDoc> = if definition.shows_first_shots() {
                    pool[..shots].iter().collect()
                } else if shots == 0 {
                    Vec::new()
                } else {
                    let others = random.sample(pool.len(), drawn).into_iter().map(|i| &pool[i]);
                    others.filter(|shot| !shot.same_as(doc)).take(shots).collect()
                };
                Ok(self.request(doc, &chosen, mode))
            })
            .collect()
    }

    fn request(&self, doc: &TaskDoc, shots: &[&TaskDoc], mode: TaskMode) -> TaskRequest {
        let definition = self.task.definition();
        let describe = |subject: &str| definition.subjects().map(|subjects| (subjects.describe)(subject));
        let mut context = doc.subject.as_deref().and_then(describe).unwrap_or_default();
        for shot in shots {
            context += &format!("{} {}\n\n", self.ask(shot, mode), self.answer(shot, mode));
        }
        if let Some(filled) = definition.contexts(doc).filter(|_| mode == TaskMode::Likelihood) {
            let continuations = (0..filled.len()).map(|i| format!(" {}", definition.target(doc, i))).collect();
            let contexts = filled.iter().map(|text| format!("{context}{text}")).collect();
            return TaskRequest { context: String::new(), contexts, continuations };
        }
        context += &self.ask(doc, mode);
        let continuations = match mode {
            TaskMode::Cot => Vec::new(),
            TaskMode::Likelihood => (0..doc.choices.len()).map(|i| format!(" {}", definition.target(doc, i))).collect(),
        };
        TaskRequest { context, contexts: Vec::new(), continuations }
    }

    fn ask(&self, doc: &TaskDoc, mode: TaskMode) -> String {
        match mode {
            TaskMode::Likelihood => self.task.definition().ask(doc),
            TaskMode::Cot => self.task.definition().ask_step_by_step(doc),
        }
    }

    /// The answer of a few-shot example: the harness's `doc_to_target`.
    fn answer(&self, doc: &TaskDoc, mode: TaskMode) -> String {
        match &doc.gold {
            Gold::Solution(solution) => solution.clone(),
            Gold::Choice(index) => self.choice(doc, *index, mode),
            // As in the harness, the first of several right choices is shown.
            Gold::Choices(indices) => self.choice(doc, indices.first().copied().unwrap_or_default(), mode),
        }
    }

    fn choice(&self, doc: &TaskDoc, index: usize, mode: TaskMode) -> String {
        match mode {
            TaskMode::Likelihood => self.task.definition().target(doc, index),
            TaskMode::Cot => format!("({})", letter(index)),
        }
    }

    /// Texts at which a generated answer ends.
    pub fn stops(&self, mode: TaskMode) -> [&'static str; 3] {
        match mode {
            TaskMode::Cot => ["Q:", "</s>", "<|im_end|>"],
            TaskMode::Likelihood => ["Question:", "</s>", "<|im_end|>"],
        }
    }
}

/// A generated answer up to the first of the stops.
pub fn cut_at_stop<'a>(text: &'a str, stops: &[&str]) -> &'a str {
    let end = stops.iter().filter_map(|stop| text.find(stop)).min();
    &text[..end.unwrap_or(text.len())]
}

/// Returns the letter of a choice.
pub(super) fn letter(index: usize) -> char {
    ('A'..='Z').nth(index).unwrap_or('?')
}

/// Returns the choices of an example, each behind its letter.
pub(super) fn lettered(doc: &TaskDoc, between: &str, mark: impl Fn(char) -> String) -> String {
    let each = doc.choices.iter().zip('A'..).map(|(choice, letter)| format!("{}{choice}", mark(letter)));
    each.collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_at_the_first_stop() {
        assert_eq!(cut_at_stop("4 </s> Q: next", &["Q:", "</s>"]), "4 ");
        assert_eq!(cut_at_stop("4", &["Q:"]), "4");
    }
}
