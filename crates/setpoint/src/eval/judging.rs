//! The rewards of sampled answers, by a reward model or a rule.

use serde_json::{Value, json};
use setpoint_reward::{ModelSource, RewardSource, RuleSource, Scored};

use super::result;
use super::reward::{Answers, EvalConfig, EvalData};
use crate::annotate;
use crate::failure::{Failure, Outcome};
use crate::session::Meter;
use crate::session::Session;
use crate::setup;

/// What decides the rewards of some answers: the judge, all that it may look at, and how answers become text.
pub fn rewards_key(session: &Session, config: &EvalConfig, data: &EvalData, answers: &Answers) -> Outcome<Value> {
    let judge = match (&config.rule, &data.reward_encoder) {
        (None, Some(encoder)) => {
            let end = data.reading.as_ref().map(|reading| reading.end);
            let model = result::computes(session, &config.reward)?;
            json!({ "model": model, "tokenizer": encoder.fingerprint(), "response_end": end })
        }
        (rule, _) => json!({ "rule": rule }),
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

/// Loads what judges.
pub fn judge(session: &Session, config: &EvalConfig, data: &EvalData) -> Outcome<Box<dyn RewardSource>> {
    if let Some(rule) = &config.rule {
        return Ok(Box::new(RuleSource::new(rule.clone())?));
    }
    let dir = config.reward.path.as_deref().ok_or_else(|| Failure::usage("reward.path", "no judge"))?;
    let options = setup::load_options(config.reward.dtype, session);
    let source = ModelSource::load(dir, &options, false, session.device())?.on(&session.devices);
    let padding = data.reading.as_ref().and_then(|reading| reading.padding);
    Ok(Box::new(source.with_batch_tokens(config.batch_tokens).before_padding(padding)))
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
    let scores = scores?;
    let mut at = 0;
    Ok(answers
        .ids
        .iter()
        .map(|row| {
            let own = &scores[at..at + row.len()];
            at += row.len();
            own.iter().sum::<f64>() / own.len() as f64
        })
        .collect())
}
