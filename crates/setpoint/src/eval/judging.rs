//! The rewards of sampled answers, by any source that can score them.

use serde_json::{Value, json};
use setpoint_reward::{RewardSource, Scored};

use super::result;
use super::reward::{Answers, EvalConfig, EvalData};
use crate::annotate;
use crate::failure::Outcome;
use crate::session::Meter;
use crate::session::Session;
use crate::setup;
use crate::sources::{self, Entry, Opening};

/// The source of the rewards.
#[derive(Clone, Copy)]
pub enum Judge<'a> {
    /// A source that the settings choose.
    Chosen(Entry<'a>),
    /// A source of the caller's.
    Own(&'a dyn RewardSource),
}

impl<'a> Judge<'a> {
    /// Returns what decides the rewards, if it is not the reward model of the settings.
    pub fn identity(self) -> Outcome<Value> {
        let (key, settings) = match self {
            Self::Own(source) => return Ok(json!({ "source": source.identity() })),
            Self::Chosen(entry) => entry,
        };
        let mut identity = json!({ key: settings.to_value()? });
        for (name, hash) in settings.inputs()? {
            identity[name] = json!(hash);
        }
        Ok(identity)
    }

    /// Makes it ready to score.
    pub fn open(self, session: &Session, config: &EvalConfig, data: &EvalData) -> Outcome<Box<dyn RewardSource + 'a>> {
        let padding = data.reading.as_ref().and_then(|reading| reading.padding);
        match self {
            Self::Own(source) => Ok(Box::new(source)),
            Self::Chosen((_, settings)) => settings.open(&Opening {
                session,
                batch_tokens: config.batch_tokens,
                padding,
                output: None,
                section: "",
            }),
        }
    }
}

/// Collects the inputs that decide the rewards of some answers: the judge, all that it may look at, and how answers become text.
pub fn rewards_key(
    session: &Session,
    config: &EvalConfig,
    judge: Judge<'_>,
    data: &EvalData,
    answers: &Answers,
) -> Outcome<Value> {
    let judge = match &data.reward_encoder {
        Some(encoder) => {
            let end = data.reading.as_ref().map(|reading| reading.end);
            let model = result::computes(session, &config.reward)?;
            json!({ "model": model, "tokenizer": encoder.fingerprint(), "response_end": end })
        }
        None => judge.identity()?,
    };
    let records: Vec<_> =
        data.prompts.iter().map(|r| (r.source.row, annotate::prompt_text(&r.prompt), &r.extra)).collect();
    Ok(json!({
        "setpoint": env!("CARGO_PKG_VERSION"),
        "judge": judge,
        "tokenizer": data.encoder.fingerprint(),
        "prompts": setup::text_hash(&serde_json::to_string(&(records, &data.prompt_ids))?),
        "answers": setup::text_hash(&serde_json::to_string(answers)?),
        "batch_tokens": config.batch_tokens,
    }))
}

/// Mean reward of each prompt's answers. The reward model reads them through its own tokenizer and template.
pub fn judged(session: &Session, judge: &dyn RewardSource, answers: &Answers, data: &EvalData) -> Outcome<Vec<f64>> {
    let foreign = data.reward_encoder.as_ref().filter(|e| !e.agrees_with(&data.encoder));
    let mut texts = Vec::new();
    let mut ids = Vec::new();
    for (i, ((record, row), prompt)) in data.prompts.iter().zip(&answers.ids).zip(&data.prompt_ids).enumerate() {
        for answer in row {
            let text = setup::answer_text(&data.encoder, prompt, answer)?;
            // With one tokenizer the judge reads the very tokens that were sampled, a missing stop token included.
            ids.push(match (foreign, &data.reading) {
                (Some(encoder), Some(reading)) => setup::answer_ids(encoder, &data.judged_prompts[i], &text, reading)?,
                (_, reading) => {
                    let mut answer = answer.clone();
                    reading.iter().for_each(|reading| reading.complete(&data.encoder, &mut answer));
                    (prompt.clone(), answer)
                }
            });
            texts.push((record, text));
        }
    }
    let prompts: Vec<String> = texts.iter().map(|(record, _)| annotate::prompt_text(&record.prompt)).collect();
    let items: Vec<Scored<'_>> = texts
        .iter()
        .zip(&ids)
        .zip(&prompts)
        .enumerate()
        .map(|(i, (((record, text), (prompt_ids, response_ids)), prompt))| Scored {
            row: record.source.row,
            response_index: i % answers.ids[0].len().max(1),
            prompt,
            response: text,
            prompt_ids,
            response_ids,
            recorded: None,
            fields: Some(&record.extra),
        })
        .collect();
    let mut meter = Meter::new(session, items.len(), "rewards", "answers");
    let scores = judge.score(&items, &mut |done| meter.reach(done));
    meter.finish();
    let scores = scores.and_then(|scores| judge.check().map(|()| scores));
    let scores =
        scores.map_err(|error| sources::failure(session, error, texts.iter().map(|(record, _)| &record.source)))?;
    let mut at = 0;
    Ok(answers
        .ids
        .iter()
        .map(|row| {
            let own = &scores[at..at + row.len()];
            at += row.len();
            setpoint_eval::mean(own)
        })
        .collect())
}
