//! A reward model that judges answers, without any network.

use setpoint_data::{Record, ResponseEnd, TextEncoder};
use setpoint_reward::{ModelSource, RewardSource, Scored};

use super::answers::conversation;
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::session::Meter;
use crate::session::Session;
use crate::setup;
use crate::setup::Reading;

/// A reward model's rewards of single-turn answers: `(instruction, answer)`.
pub fn rewards_of(
    session: &Session,
    section: &ModelSection,
    encoder: &TextEncoder,
    answers: &[(&str, &str)],
) -> Outcome<Vec<f64>> {
    let dir = section.path.as_deref().ok_or_else(|| Failure::usage("reward.path", "no judge"))?;
    let reading = Reading::of(section, encoder, ResponseEnd::Auto)?;
    let source = ModelSource::load(dir, &setup::load_options(section.dtype, session), false, session.device())?
        .on(&session.devices)
        .before_padding(reading.padding);
    let ids = answers
        .iter()
        .map(|(instruction, answer)| {
            let prompt = conversation([("user", *instruction)]);
            setup::answer_ids(encoder, &Record::new(prompt, Vec::new()), answer, &reading)
        })
        .collect::<Outcome<Vec<_>>>()?;
    let items: Vec<Scored<'_>> = answers
        .iter()
        .zip(&ids)
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
    Ok(rewards?)
}
