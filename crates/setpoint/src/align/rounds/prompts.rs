//! The prompts that the policy answers, and which of them belong to a round.

use std::path::Path;

use serde_json::{Map, Value};
use setpoint_align::{LogZ0, ReferenceSample};
use setpoint_data::{
    Boundary, EncodeOptions, EncodeReport, Example, ExampleStore, Lengths, LongRows, Record, ResponseEnd, TextEncoder,
    Uses, load_records, pointwise_row,
};
use setpoint_train::Order;

use super::super::prepare::{samples_reader, samples_setting, unscored_tokens};
use super::super::settings::AlignConfig;
use super::settings::RolloutSection;
use crate::failure::{Failure, Outcome};
use crate::reference_samples::{RESPONSES, column};
use crate::session::Session;
use crate::setup;
use crate::training::Mix;

/// The columns that a chat template is given.
const FOR_TEMPLATES: [&str; 2] = ["tools", "chat_template_kwargs"];

/// The prompts of the data.
pub struct Prompts {
    /// The rows.
    pub records: Vec<Record>,
    /// Their prompts as tokens.
    pub ids: Vec<Vec<u32>>,
    /// The parts of the data sets in a pass over the prompts; `None` if they are not trained on.
    pub mix: Option<Mix>,
    /// The prompts' tokens that are not scored; `None` if no prompt is.
    pub t0: Option<usize>,
    /// Samples of the reference model for each prompt, if the data has them and the level of the targets is estimated from them.
    pub samples: Option<Vec<Vec<ReferenceSample>>>,
}

impl Prompts {
    /// Reads and encodes the prompts of the data. Prompts that are longer than `encode.max_prompt_length`, or leave no room for a response
    /// within `encode.max_length`, are left out, unless `encode.long_rows` makes them an error.
    ///
    /// # Errors
    /// When the data cannot be read, a prompt cannot be encoded, or there are fewer prompts than the settings name for a round.
    pub fn read(session: &Session, config: &AlignConfig, encoder: &TextEncoder) -> Outcome<Self> {
        warn_of_no_effect(config);
        let (records, read) = load_records(&setup::looking_at(&config.data, Uses::PROMPT))?;
        setup::note_left_out("prompts", &read);
        let (seen, ids) = setup::prompts(&records, &config.data, encoder, "prompts", session)?;
        // A text stays a text, which the next job reads as this one did. The system turn of the settings it would not know.
        let records = if config.data.system.is_some() { seen } else { records };
        let (records, ids) = short_enough(&config.encode, records, ids)?;
        if ids.is_empty() {
            return Err(Failure::run(format!("{}: no prompt is left to sample responses to", config.data.name()))
                .hint("shorten the prompts, or raise encode.max_prompt_length and encode.max_length"));
        }
        if let Some(named) =
            config.rollout.as_ref().and_then(|rollout| rollout.prompts).filter(|&named| ids.len() < named)
        {
            return Err(Failure::usage(
                "rollout.prompts",
                format!(
                    "a round has {named} prompts, and {} has {}: set `rollout.prompts` to at most as many",
                    config.data.name(),
                    ids.len()
                ),
            ));
        }
        if records.iter().any(|record| !record.responses.is_empty()) && !session.quiet {
            log::info!("prompts: the responses in {} are not used: the policy samples its own", config.data.name());
        }
        let sets: Vec<usize> = records.iter().map(|record| record.source.set).collect();
        let mix = Some(Mix::of(&config.data, &sets)?);
        let mut prompts = Self { records, ids, mix, t0: None, samples: None };
        let examples = ExampleStore::in_memory(&prompts.examples())?;
        prompts.t0 = unscored_tokens(config, &examples)?;
        let has_samples = || prompts.records.iter().any(|record| column(record, RESPONSES).is_some());
        // The level of a prompt can be estimated from the samples of its round, too.
        let is_asked = config.align.level() != Some(LogZ0::PerPrompt) || has_samples();
        if let Some(setting) = samples_setting(config).filter(|_| is_asked) {
            let reader = samples_reader(config, &config.data, setting);
            let mut samples = reader.read(&examples, Path::new(""), usize::MAX)?.all()?;
            // The responses of the data are not those that are trained on.
            samples.iter_mut().flatten().for_each(|sample| sample.in_data = false);
            prompts.samples = Some(samples);
        }
        Ok(prompts)
    }

    /// Reads and encodes the prompts of `[eval_data]` that a limit on the KL is checked on; none without a limit.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_held_out(session: &Session, config: &AlignConfig, encoder: &TextEncoder) -> Outcome<Option<Self>> {
        let Some(data) = config.eval_data.as_ref().filter(|_| config.stop.max_kl.is_some()) else { return Ok(None) };
        let (records, read) = load_records(&setup::looking_at(data, Uses::PROMPT))?;
        setup::note_left_out("evaluation data", &read);
        let (records, ids) = setup::prompts(&records, data, encoder, "evaluation data", session)?;
        Ok(Some(Self { records, ids, mix: None, t0: None, samples: None }))
    }

    /// Returns the prompts as rows without responses.
    pub fn examples(&self) -> Vec<Example> {
        let example = |(row, (record, ids)): (usize, (&Record, &Vec<u32>))| Example {
            row,
            source: record.source.clone(),
            prompt: ids.clone(),
            responses: Vec::new(),
            margin: None,
            assistant_spans: Vec::new(),
        };
        self.records.iter().zip(&self.ids).enumerate().map(example).collect()
    }

    /// Returns the prompts of a round: the next `count` of one shuffled pass over the data after another. A pass has of each data set as much
    /// as its weight says.
    pub fn of_round(&self, seed: u64, round: u64, count: usize) -> Vec<usize> {
        match self.mix.as_ref().and_then(|mix| mix.mixture.as_ref()) {
            Some(mixture) => next_of_passes(mixture.visits(), &|pass| mixture.epoch(seed, pass), round, count),
            None => next_of(self.ids.len(), seed, round, count),
        }
    }

    /// Returns a prompt as a row of the point-wise format has it, and the columns that belong to it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn columns(&self, row: usize) -> Outcome<(Value, Map<String, Value>)> {
        let mut record = self.records[row].clone();
        record.margin = None;
        record.responses = vec![setpoint_data::Response::new("")];
        record.extra.retain(|name, _| FOR_TEMPLATES.contains(&name.as_str()));
        let mut columns = pointwise_row(&record)?;
        let prompt = columns.shift_remove("prompt").unwrap_or_default();
        columns.retain(|name, _| FOR_TEMPLATES.contains(&name.as_str()));
        Ok((prompt, columns))
    }

    /// Describes the lengths of a round with so many responses, which are as long as they may be. `most`: of prompt and response together.
    pub fn report(&self, rollout: &RolloutSection, responses: usize, most: usize) -> EncodeReport {
        let lengths = || self.ids.iter().map(Vec::len);
        let total: usize = lengths().sum();
        let (prompts, response) = (rollout.prompts(), rollout.max_new_tokens);
        EncodeReport {
            rows: prompts,
            kept: prompts,
            prompt_tokens: (total as u128 * prompts as u128 / self.ids.len().max(1) as u128) as usize,
            response_tokens: responses.saturating_mul(response),
            prompts: self.lengths(),
            responses: Lengths::of([response]),
            longest: Lengths::of(lengths().map(|prompt| prompt.saturating_add(response).min(most))),
            ..EncodeReport::default()
        }
    }

    /// Returns the lengths of the prompts, tokens.
    pub fn lengths(&self) -> Lengths {
        Lengths::of(self.ids.iter().map(Vec::len))
    }
}

/// Leaves out the prompts that are too long, and says how many.
///
/// # Errors
/// When there is one and the settings make it an error.
fn short_enough(
    encode: &EncodeOptions,
    records: Vec<Record>,
    ids: Vec<Vec<u32>>,
) -> Outcome<(Vec<Record>, Vec<Vec<u32>>)> {
    let excess = |ids: &Vec<u32>| -> Option<String> {
        let longer = |most: &usize| ids.len() > *most;
        let of_prompt = encode.max_prompt_length.filter(longer);
        let of_prompt = of_prompt.map(|most| format!("more than {most} tokens (encode.max_prompt_length)"));
        // A response has a token at least.
        let whole = encode.max_length.filter(|most| ids.len() >= *most);
        of_prompt.or(whole.map(|most| format!("no room for a response within {most} tokens (encode.max_length)")))
    };
    let all = records.len();
    let mut left_out: Vec<(String, usize)> = Vec::new();
    let mut kept = (Vec::with_capacity(all), Vec::with_capacity(all));
    for (record, ids) in records.into_iter().zip(ids) {
        let Some(reason) = excess(&ids) else {
            kept.0.push(record);
            kept.1.push(ids);
            continue;
        };
        if encode.long_rows == LongRows::Error {
            return Err(Failure::run(format!("{}: the prompt has {} tokens: {reason}", record.source, ids.len()))
                .hint("shorten it, or leave such prompts out (encode.long_rows = \"drop\")"));
        }
        match left_out.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => left_out.push((reason, 1)),
        }
    }
    for (reason, count) in left_out {
        log::info!("{count} of {all} prompts have {reason} and are left out");
    }
    Ok(kept)
}

/// Warns of settings of responses in files, which say nothing about responses that are sampled. Rows of `[sft_data]` follow them.
fn warn_of_no_effect(config: &AlignConfig) {
    if config.sft_data.is_some() {
        return;
    }
    let encode = &config.encode;
    for (name, is_set) in [
        ("response_end", encode.response_end == ResponseEnd::Template),
        ("boundary", encode.boundary == Boundary::Rendered),
    ] {
        if is_set {
            log::warn!(
                "encode.{name} has no effect in rounds: the policy samples from the end of the prompt to its stop token"
            );
        }
    }
}

/// Returns the rows of a round of `all` rows: the next `count` of one shuffled pass over them after another.
pub fn next_of(all: usize, seed: u64, round: u64, count: usize) -> Vec<usize> {
    next_of_passes(all, &|pass| Order::new(seed).epoch(pass, all), round, count)
}

/// The same for passes of this length, which `pass` makes.
fn next_of_passes(length: usize, pass: &dyn Fn(u64) -> Vec<usize>, round: u64, count: usize) -> Vec<usize> {
    let first = round.saturating_mul(count as u64);
    let mut known: Option<(u64, Vec<usize>)> = None;
    let row = |place: u64| {
        let (number, within) = (place / length as u64, (place % length as u64) as usize);
        if known.as_ref().is_none_or(|(known, _)| *known != number) {
            known = Some((number, pass(number)));
        }
        known.as_ref().map_or(0, |(_, order)| order[within])
    };
    (first..first.saturating_add(count as u64)).map(row).collect()
}

#[cfg(test)]
mod tests {
    use setpoint_data::{DataSource, DatasetConfig, Prompt, Source};

    use super::*;

    #[test]
    fn prompts_that_are_too_long_are_left_out_or_an_error() {
        let record = |row: usize| {
            let source = Source::line(Path::new("prompts.jsonl"), row, row + 1);
            Record { source, ..Record::new(Prompt::Text("?".to_owned()), Vec::new()) }
        };
        let lengths = [3, 9, 5, 6];
        let read = |encode: EncodeOptions| {
            let ids = lengths.map(|length| vec![7; length]).to_vec();
            short_enough(&encode, (0..4).map(record).collect(), ids)
        };
        let kept = |max_prompt_length, max_length, long_rows| {
            let encode = EncodeOptions { max_prompt_length, max_length, long_rows, ..EncodeOptions::default() };
            read(encode).map(|(records, ids)| {
                assert_eq!(records.len(), ids.len());
                records.iter().map(|record| record.source.row).collect::<Vec<_>>()
            })
        };
        assert_eq!(kept(None, None, LongRows::Error).unwrap(), [0, 1, 2, 3]);
        assert_eq!(kept(Some(5), None, LongRows::Drop).unwrap(), [0, 2]);
        // A prompt of as many tokens as prompt and response may have leaves no room.
        assert_eq!(kept(None, Some(6), LongRows::Drop).unwrap(), [0, 2]);
        assert_eq!(kept(None, Some(7), LongRows::CutPrompt).unwrap(), [0, 2, 3]);
        for (most, all, said) in [
            (Some(5), None, "more than 5 tokens (encode.max_prompt_length)"),
            (None, Some(9), "no room for a response within 9 tokens (encode.max_length)"),
        ] {
            let failure = kept(most, all, LongRows::Error).unwrap_err().to_string();
            assert!(
                failure.contains("prompts.jsonl:2: the prompt has 9 tokens: ") && failure.contains(said),
                "{failure}"
            );
        }
    }

    #[test]
    fn rounds_go_through_the_data_pass_by_pass() {
        let prompts = Prompts { records: Vec::new(), ids: vec![vec![1]; 5], mix: None, t0: None, samples: None };
        let rounds: Vec<usize> = (0..5).flat_map(|round| prompts.of_round(9, round, 3)).collect();
        let passes: Vec<usize> = (0..3).flat_map(|epoch| Order::new(9).epoch(epoch, 5)).collect();
        assert_eq!(rounds, passes);
        for pass in rounds.chunks(5) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn rounds_have_of_each_data_set_as_much_as_its_weight_says() {
        let source = |path: &str, weight| DataSource { weight: Some(weight), ..DataSource::new(path) };
        let data = DatasetConfig { sources: vec![source("a", 1.0), source("b", 3.0)], ..DatasetConfig::new("") };
        // Of 6 and 3 prompts a pass has 1 and 3.
        let mix = Some(Mix::of(&data, &[0, 0, 0, 0, 0, 0, 1, 1, 1]).unwrap());
        let prompts = Prompts { records: Vec::new(), ids: vec![vec![1]; 9], mix, t0: None, samples: None };
        let rounds: Vec<usize> = (0..12).flat_map(|round| prompts.of_round(9, round, 2)).collect();
        for pass in rounds.chunks(4) {
            let mut second: Vec<usize> = pass.iter().copied().filter(|&prompt| prompt >= 6).collect();
            second.sort_unstable();
            assert_eq!(second, [6, 7, 8]);
        }
        let mut first: Vec<usize> = rounds.into_iter().filter(|&prompt| prompt < 6).collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3, 4, 5], "six passes see each once");
    }
}
