//! Judging answers through a [`JudgeClient`], as `gen_judgment.py` does.

use std::collections::HashMap;

use serde_json::json;

use super::files::{ArenaAnswer, ArenaGame, ArenaJudgment, ArenaQuestion};
use super::prompts::{arena_baseline, messages};
use super::verdict::ArenaVerdict;
use crate::error::Error;
use crate::judge::{ChatAnswer, ChatRequest, JudgeClient};

/// Settings of the judge's answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArenaJudging {
    /// Its temperature.
    pub temperature: f64,
    /// The greatest number of tokens of its answer.
    pub max_tokens: u32,
}

impl Default for ArenaJudging {
    /// Returns what is published for GPT-4.1.
    fn default() -> Self {
        Self { temperature: 0.0, max_tokens: 16_000 }
    }
}

/// Judges answers against a baseline's.
#[derive(Debug)]
pub struct ArenaJudge<'a> {
    client: &'a JudgeClient,
    questions: &'a [ArenaQuestion],
    judging: ArenaJudging,
}

impl<'a> ArenaJudge<'a> {
    /// Returns a judge of these questions.
    #[must_use]
    pub fn new(client: &'a JudgeClient, questions: &'a [ArenaQuestion], judging: ArenaJudging) -> Self {
        Self { client, questions, judging }
    }

    /// Compares the answers of a model with those of the baselines in both orders, first with the baseline as assistant A. `baselines` holds
    /// the answers of every baseline: that of a question's category is taken, or `only` if it is given.
    ///
    /// # Errors
    /// A missing answer, before anything is sent; those of [`JudgeClient::ask_all`]; [`Error::Judgment`] for the first judgment without a verdict if
    /// `on_failure` is `error`.
    pub fn judge(
        &self,
        model: &str,
        answers: &[ArenaAnswer],
        baselines: &[ArenaAnswer],
        only: Option<&str>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<ArenaJudgment>, Error> {
        let own: HashMap<&str, &str> = answers.iter().map(|a| (a.uid.as_str(), a.text())).collect();
        let others: HashMap<(&str, &str), &str> =
            baselines.iter().map(|a| ((a.model.as_str(), a.uid.as_str()), a.text())).collect();
        let mut requests = Vec::with_capacity(2 * self.questions.len());
        let mut names = Vec::with_capacity(self.questions.len());
        for question in self.questions {
            let missing =
                |model: &str| Error::MissingArenaAnswer { model: model.to_owned(), uid: question.uid.clone() };
            let baseline = only.or_else(|| arena_baseline(&question.category)).unwrap_or_default();
            let answer = own.get(question.uid.as_str()).ok_or_else(|| missing(model))?;
            let other = others.get(&(baseline, question.uid.as_str())).ok_or_else(|| missing(baseline))?;
            requests.push(self.request(question, other, answer));
            requests.push(self.request(question, answer, other));
            names.push(baseline);
        }
        let usable = |answer: &ChatAnswer| !answer.is_truncated() && ArenaVerdict::parse(&answer.content).is_some();
        let place = |at: usize| format!("question {}, round {}", self.questions[at / 2].uid, at % 2 + 1);
        let answers = self.client.ask_usable(&requests, &usable, progress, place)?;
        let mut games = requests.into_iter().zip(answers).map(|(request, answer)| {
            answer.ok().map(|answer| ArenaGame {
                // A text that was cut off may hold the label of an example.
                score: ArenaVerdict::parse(&answer.content).filter(|_| !answer.is_truncated()),
                judgment: json!({ "answer": answer.content }),
                prompt: request.messages,
            })
        });
        let row = |(question, baseline): (&ArenaQuestion, &str)| ArenaJudgment {
            uid: question.uid.clone(),
            category: question.category.clone(),
            judge: self.client.model().to_owned(),
            model: model.to_owned(),
            baseline: baseline.to_owned(),
            games: games.by_ref().take(2).collect(),
        };
        Ok(self.questions.iter().zip(names).map(row).collect())
    }

    fn request(&self, question: &ArenaQuestion, a: &str, b: &str) -> ChatRequest {
        ChatRequest {
            messages: messages(&question.category, &question.prompt, a, b).unwrap_or_default(),
            temperature: self.judging.temperature,
            max_tokens: Some(self.judging.max_tokens),
            ..ChatRequest::default()
        }
    }
}
