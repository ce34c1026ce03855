//! What a model is asked, word for word as lm-evaluation-harness asks it.

use super::doc::{Gold, Task, TaskDoc, TaskMode};
use super::read::TaskSet;
use crate::error::Error;
use crate::python_random::PythonRandom;

/// The harness's seed of few-shot examples.
const SHOT_SEED: u32 = 1234;

/// One example as it is put to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRequest {
    /// Everything before the answer.
    pub context: String,
    /// The continuations whose log-likelihoods are compared; none where an answer is generated.
    pub continuations: Vec<String>,
}

impl TaskSet {
    /// The requests of all examples, in their order.
    ///
    /// MMLU's few-shot examples are the first of its dev split; the others' are drawn from the training split, anew for each example
    /// and in the order of the examples, by Python's `random.Random(1234).sample`.
    ///
    /// # Errors
    /// Fewer few-shot examples than asked for.
    pub fn requests(&self, mode: TaskMode, shots: usize) -> Result<Vec<TaskRequest>, Error> {
        let mut random = PythonRandom::from_seed(SHOT_SEED);
        self.docs
            .iter()
            .map(|doc| {
                let pool = self.shots.get(doc.subject.as_deref().unwrap_or_default()).map_or(&[][..], Vec::as_slice);
                // Without a test split the harness draws one more, lest the example itself be among them.
                let drawn = shots + usize::from(shots > 0 && self.task == Task::SocialIqa);
                if pool.len() < drawn {
                    return Err(Error::Shots { task: self.task.name(), needed: drawn, found: pool.len() });
                }
                let chosen: Vec<&TaskDoc> = match self.task {
                    Task::Mmlu => pool[..shots].iter().collect(),
                    _ if shots == 0 => Vec::new(),
                    _ => {
                        let others = random.sample(pool.len(), drawn).into_iter().map(|i| &pool[i]);
                        others.filter(|shot| !shot.same_as(doc)).take(shots).collect()
                    }
                };
                Ok(self.request(doc, &chosen, mode))
            })
            .collect()
    }

    fn request(&self, doc: &TaskDoc, shots: &[&TaskDoc], mode: TaskMode) -> TaskRequest {
        let mut context = doc.subject.as_deref().map(description).unwrap_or_default();
        for shot in shots {
            context += &format!("{} {}\n\n", self.ask(shot, mode), self.answer(shot, mode));
        }
        context += &self.ask(doc, mode);
        let continuations = match mode {
            TaskMode::Cot => Vec::new(),
            TaskMode::Likelihood => (0..doc.choices.len()).map(|i| format!(" {}", self.target(doc, i))).collect(),
        };
        TaskRequest { context, continuations }
    }

    /// `doc_to_text`.
    fn ask(&self, doc: &TaskDoc, mode: TaskMode) -> String {
        let lettered = |between: &str, mark: &dyn Fn(char) -> String| {
            let each = doc.choices.iter().zip('A'..).map(|(choice, letter)| format!("{}{choice}", mark(letter)));
            each.collect::<Vec<_>>().join(between)
        };
        match (mode, self.task) {
            (TaskMode::Cot, Task::Gsm8k) => format!("Q: {}\nA: Let's think step by step.", doc.question),
            // `mmlu_flan_cot_zeroshot`'s form, for the other multiple-choice tasks as well.
            (TaskMode::Cot, _) => {
                let choices = lettered(" ", &|letter| format!("({letter}) "));
                format!("Q: {}\n{choices}\nA: Let's think step by step.", doc.question.trim())
            }
            (TaskMode::Likelihood, Task::Mmlu) => {
                format!("{}\n{}\nAnswer:", doc.question.trim(), lettered("\n", &|letter| format!("{letter}. ")))
            }
            (TaskMode::Likelihood, Task::SocialIqa) => format!("Q: {}\nA:", doc.question),
            (TaskMode::Likelihood, _) => format!("Question: {}\nAnswer:", doc.question),
        }
    }

    /// `doc_to_target` of a few-shot example.
    fn answer(&self, doc: &TaskDoc, mode: TaskMode) -> String {
        match (&doc.gold, mode) {
            (Gold::Solution(solution), _) => solution.clone(),
            (Gold::Choice(index), TaskMode::Likelihood) => self.target(doc, *index),
            (Gold::Choice(index), TaskMode::Cot) => format!("({})", letter(*index)),
        }
    }

    /// The text of a choice: MMLU's are letters.
    fn target(&self, doc: &TaskDoc, index: usize) -> String {
        match self.task {
            Task::Mmlu => letter(index).to_string(),
            _ => doc.choices[index].clone(),
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

pub(super) fn letter(index: usize) -> char {
    ('A'..='Z').nth(index).unwrap_or('?')
}

fn description(subject: &str) -> String {
    let subject = subject.replace('_', " ");
    format!("The following are multiple choice questions (with answers) about {subject}.\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn doc(index: usize, question: &str, choices: &[&str], gold: Gold, subject: Option<&str>) -> TaskDoc {
        TaskDoc {
            index,
            subject: subject.map(str::to_owned),
            question: question.into(),
            choices: choices.iter().map(|c| (*c).to_owned()).collect(),
            gold,
        }
    }

    #[test]
    fn mmlu_shows_the_first_examples_of_its_own_subject() {
        let subject = Some("high_school_biology");
        let shots = vec![
            doc(0, "one? ", &["a", "b", "c", "d"], Gold::Choice(2), subject),
            doc(1, "two?", &["a", "b", "c", "d"], Gold::Choice(0), subject),
        ];
        let set = TaskSet {
            task: Task::Mmlu,
            docs: vec![doc(0, " three? ", &["w", "x", "y", "z"], Gold::Choice(1), subject)],
            shots: BTreeMap::from([("high_school_biology".to_owned(), shots)]),
            undecided: 0,
        };
        let request = &set.requests(TaskMode::Likelihood, 1).unwrap()[0];
        assert_eq!(
            request.context,
            "The following are multiple choice questions (with answers) about high school biology.\n\n\
             one?\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nthree?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
        );
        assert_eq!(request.continuations, [" A", " B", " C", " D"]);
        let cot = &set.requests(TaskMode::Cot, 0).unwrap()[0];
        assert!(cot.context.ends_with("Q: three?\n(A) w (B) x (C) y (D) z\nA: Let's think step by step."), "{cot:?}");
        assert!(matches!(set.requests(TaskMode::Likelihood, 3), Err(Error::Shots { needed: 3, found: 2, .. })));
    }

    #[test]
    fn an_answer_ends_at_the_first_stop() {
        assert_eq!(cut_at_stop("4 </s> Q: next", &["Q:", "</s>"]), "4 ");
        assert_eq!(cut_at_stop("4", &["Q:"]), "4");
    }
}
