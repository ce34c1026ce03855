//! A reward model, or another source of rewards, that judges answers without any network.

use setpoint_data::{Record, ResponseEnd, TextEncoder};
use setpoint_reward::{RewardSource, Scored};

use super::answers::conversation;
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::session::Meter;
use crate::session::Session;
use crate::setup;
use crate::setup::Reading;
use crate::sources::{self, ModelSettings, Opening, SourceSettings as _};

/// Tokens in one forward pass.
const BATCH_TOKENS: usize = 8192;

/// Rewards of single-turn answers, `(instruction, answer)`, by a reward model.
pub fn rewards_of(
    session: &Session,
    section: &ModelSection,
    encoder: &TextEncoder,
    answers: &[(&str, &str)],
) -> Outcome<Vec<f64>> {
    let reading = Reading::of(section, encoder, ResponseEnd::Auto)?;
    let ids = answer_ids(encoder, &reading, answers)?;
    rewards_at(session, section, &reading, answers, &ids)
}

/// The tokens of single-turn answers, prompt and answer, as a reward model reads them.
pub fn answer_ids(
    encoder: &TextEncoder,
    reading: &Reading,
    answers: &[(&str, &str)],
) -> Outcome<Vec<(Vec<u32>, Vec<u32>)>> {
    let answers = answers.iter();
    let ids = answers.map(|(instruction, answer)| {
        let prompt = conversation([("user", *instruction)]);
        setup::answer_ids(encoder, &Record::new(prompt, Vec::new()), answer, reading)
    });
    ids.collect()
}

/// Rewards of single-turn answers, whose tokens are `ids`, by a reward model.
pub fn rewards_at(
    session: &Session,
    section: &ModelSection,
    reading: &Reading,
    answers: &[(&str, &str)],
    ids: &[(Vec<u32>, Vec<u32>)],
) -> Outcome<Vec<f64>> {
    let opening = Opening { session, batch_tokens: BATCH_TOKENS, padding: reading.padding, output: None, section: "" };
    let source = ModelSettings::raw(section).open(&opening)?;
    scored(session, source.as_ref(), answers, ids)
}

/// Rewards of single-turn answers, by a source that reads no tokens.
pub fn rewards_by(session: &Session, source: &dyn RewardSource, answers: &[(&str, &str)]) -> Outcome<Vec<f64>> {
    if source.needs_tokens() {
        let source = source.describe();
        return Err(Failure::run(format!("{source} reads tokens; a source that judges these answers reads text")));
    }
    scored(session, source, answers, &vec![Default::default(); answers.len()])
}

fn scored(
    session: &Session,
    source: &dyn RewardSource,
    answers: &[(&str, &str)],
    ids: &[(Vec<u32>, Vec<u32>)],
) -> Outcome<Vec<f64>> {
    let items: Vec<Scored<'_>> = answers
        .iter()
        .zip(ids)
        .enumerate()
        .map(|(row, ((prompt, response), (prompt_ids, response_ids)))| Scored {
            row,
            prompt,
            response,
            prompt_ids,
            response_ids,
            ..Scored::default()
        })
        .collect();
    let mut meter = Meter::new(session, items.len(), "rewards", "answers");
    let rewards = source.score(&items, &mut |done| meter.reach(done));
    meter.finish();
    let rewards = rewards.and_then(|rewards| source.finish().map(|()| rewards));
    rewards.map_err(|error| sources::failure(session, error, []))
}
