//! Judging answers through a [`JudgeClient`], as `gen_judgment.py` does.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::files::{MtAnswer, MtPairJudgment, MtQuestion, MtReference, MtSingleJudgment};
use super::prompts::{MtPrompt, needs_reference};
use super::verdict::{MtWinner, parse_rating, parse_verdict};
use crate::error::Error;
use crate::judge::{ChatAnswer, ChatRequest, ChatResult, JudgeClient};

/// The text that FastChat writes for a judgment that never came.
pub(super) const ERROR: &str = "$ERROR$";

/// A model and its answers by question.
#[derive(Debug, Clone, PartialEq)]
pub struct MtContestant {
    /// The model's name.
    pub model: String,
    answers: BTreeMap<u64, Vec<String>>,
}

impl MtContestant {
    /// The first choice of every answer.
    pub fn new(model: impl Into<String>, answers: &[MtAnswer]) -> Self {
        let turns = |a: &MtAnswer| a.choices.first().map(|c| c.turns.clone()).unwrap_or_default();
        Self { model: model.into(), answers: answers.iter().map(|a| (a.question_id, turns(a))).collect() }
    }

    fn turn(&self, question: &MtQuestion, turn: usize) -> Result<&str, Error> {
        let found = self.answers.get(&question.question_id).and_then(|turns| turns.get(turn));
        found.map(String::as_str).ok_or_else(|| Error::MissingAnswer {
            model: self.model.clone(),
            question: question.question_id,
            turn: turn + 1,
        })
    }
}

/// Grades answers to MT-Bench.
#[derive(Debug)]
pub struct MtJudge<'a> {
    client: &'a JudgeClient,
    questions: &'a [MtQuestion],
    references: MtContestant,
}

/// One prompt to be sent.
struct Ask<'q> {
    question: &'q MtQuestion,
    turn: usize,
    prompt: MtPrompt,
    user_prompt: String,
}

impl<'a> MtJudge<'a> {
    /// A judge of these questions; `references` are shown to it for maths, reasoning and coding.
    pub fn new(client: &'a JudgeClient, questions: &'a [MtQuestion], references: &[MtReference]) -> Self {
        Self { client, questions, references: MtContestant::new("the reference", references) }
    }

    /// Rates every turn of every answer from 1 to 10. A judgment that never came, was cut off or holds no rating has a score of −1.
    ///
    /// # Errors
    /// A missing answer or reference, before anything is sent; those of [`JudgeClient::ask_all`]; [`Error::Judgment`] for the first
    /// judgment without a rating if `on_failure` is `error`.
    pub fn single(
        &self,
        contestant: &MtContestant,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<MtSingleJudgment>, Error> {
        let mut asks = Vec::new();
        for (question, turn) in self.turns() {
            let answers = self.texts(contestant, question, turn)?;
            asks.push(self.ask(question, turn, false, |name| match name {
                "answer" | "answer_1" => answers.first().copied(),
                "answer_2" => answers.get(1).copied(),
                _ => None,
            })?);
        }
        let judgments = self.judge(&asks, &|text| parse_rating(text).is_some(), progress)?;
        let row = |(ask, (judgment, whole)): (Ask<'_>, (String, bool))| MtSingleJudgment {
            question_id: ask.question.question_id,
            model: contestant.model.clone(),
            judge: self.signature(&ask),
            user_prompt: ask.user_prompt,
            score: parse_rating(&judgment).filter(|_| whole).unwrap_or(-1.0),
            judgment,
            turn: ask.turn as u8 + 1,
            extra: stamp(),
        };
        Ok(asks.into_iter().zip(judgments).map(row).collect())
    }

    /// Compares two models on every turn, in both orders.
    ///
    /// # Errors
    /// As [`single`](Self::single).
    pub fn pairs(
        &self,
        first: &MtContestant,
        second: &MtContestant,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<MtPairJudgment>, Error> {
        let mut asks = Vec::new();
        for (question, turn) in self.turns() {
            let (one, two) = (self.texts(first, question, turn)?, self.texts(second, question, turn)?);
            for (a, b) in [(&one, &two), (&two, &one)] {
                asks.push(self.ask(question, turn, true, |name| match name {
                    "answer_a" | "answer_a_1" => a.first().copied(),
                    "answer_b" | "answer_b_1" => b.first().copied(),
                    "answer_a_2" => a.get(1).copied(),
                    "answer_b_2" => b.get(1).copied(),
                    _ => None,
                })?);
            }
        }
        let names_winner = |text: &str| parse_verdict(text, false) != MtWinner::Error;
        let mut games = self.judge(&asks, &names_winner, progress)?.into_iter();
        let mut asks = asks.into_iter();
        let mut rows = Vec::new();
        let winner =
            |text: &str, whole: bool, swapped| if whole { parse_verdict(text, swapped) } else { MtWinner::Error };
        while let (Some(one), Some(two), Some((g1_judgment, g1_whole)), Some((g2_judgment, g2_whole))) =
            (asks.next(), asks.next(), games.next(), games.next())
        {
            rows.push(MtPairJudgment {
                question_id: one.question.question_id,
                model_1: first.model.clone(),
                model_2: second.model.clone(),
                g1_winner: winner(&g1_judgment, g1_whole, false),
                g2_winner: winner(&g2_judgment, g2_whole, true),
                judge: self.signature(&one),
                turn: Some(one.turn as u8 + 1),
                g1_user_prompt: one.user_prompt,
                g1_judgment,
                g2_user_prompt: two.user_prompt,
                g2_judgment,
                extra: stamp(),
            });
        }
        Ok(rows)
    }

    /// Both turns of every question, as FastChat judges them.
    fn turns(&self) -> impl Iterator<Item = (&'a MtQuestion, usize)> {
        self.questions.iter().flat_map(|q| (0..q.turns.len().min(2)).map(move |turn| (q, turn)))
    }

    /// A contestant's answers up to a turn.
    fn texts<'c>(
        &self,
        contestant: &'c MtContestant,
        question: &MtQuestion,
        turn: usize,
    ) -> Result<Vec<&'c str>, Error> {
        (0..=turn).map(|t| contestant.turn(question, t)).collect()
    }

    fn ask<'t>(
        &self,
        question: &'a MtQuestion,
        turn: usize,
        pairwise: bool,
        answer: impl Fn(&str) -> Option<&'t str>,
    ) -> Result<Ask<'a>, Error> {
        let referenced = needs_reference(&question.category);
        let prompt = MtPrompt::choose(pairwise, referenced, turn == 1);
        let references = if referenced { self.texts(&self.references, question, turn)? } else { Vec::new() };
        let asked = |i: usize| question.turns.get(i).map(String::as_str);
        let user_prompt = prompt.user_prompt(|name| match name {
            "question" | "question_1" => asked(0),
            "question_2" => asked(1),
            "ref_answer_1" => references.first().copied(),
            "ref_answer_2" => references.get(1).copied(),
            name => answer(name),
        });
        Ok(Ask { question, turn, prompt, user_prompt })
    }

    /// The judge's texts, and whether each is whole: one that was cut off has neither a rating nor a winner.
    fn judge(
        &self,
        asks: &[Ask<'_>],
        decides: &(dyn Fn(&str) -> bool + Sync),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<(String, bool)>, Error> {
        let requests: Vec<ChatRequest> = asks
            .iter()
            .map(|ask| ChatRequest {
                messages: ask.prompt.messages(&ask.user_prompt),
                temperature: 0.0,
                max_tokens: Some(2048),
                ..ChatRequest::default()
            })
            .collect();
        let usable = |answer: &ChatAnswer| !answer.is_truncated() && decides(&answer.content);
        let place = |at: usize| format!("question {}, turn {}", asks[at].question.question_id, asks[at].turn + 1);
        let answers = self.client.ask_usable(&requests, &usable, progress, place)?;
        let text = |answer: ChatResult| match answer {
            Ok(answer) => {
                let whole = !answer.is_truncated();
                (answer.content, whole)
            }
            Err(_) => (ERROR.to_owned(), true),
        };
        Ok(answers.into_iter().map(text).collect())
    }

    fn signature(&self, ask: &Ask<'_>) -> (String, String) {
        (self.client.model().to_owned(), ask.prompt.name.clone())
    }
}

/// `tstamp`: seconds since 1970.
fn stamp() -> Map<String, Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Map::from_iter([("tstamp".to_owned(), json!(now.as_secs_f64()))])
}
