//! The prompts that the policy answers, and which of them belong to a round.

use std::path::Path;

use serde_json::{Map, Value};
use setpoint_align::{LogZ0, ReferenceSample};
use setpoint_data::{
    EncodeReport, Example, ExampleStore, Lengths, Record, TextEncoder, Uses, load_records, pointwise_row,
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
    /// Reads and encodes the prompts of the data. Prompts that are longer than `encode.max_prompt_length` are left out.
    ///
    /// # Errors
    /// When the data cannot be read, a prompt cannot be encoded, or there are fewer prompts than the settings name for a round.
    pub fn read(session: &Session, config: &AlignConfig, encoder: &TextEncoder) -> Outcome<Self> {
        let (records, read) = load_records(&setup::looking_at(&config.data, Uses::PROMPT))?;
        setup::note_left_out("prompts", &read);
        let (seen, ids) = setup::prompts(&records, &config.data, encoder, "prompts", session)?;
        // A text stays a text, which the next job reads as this one did. The system turn of the settings it would not know.
        let records = if config.data.system.is_some() { seen } else { records };
        let all = records.len();
        let fits = |ids: &Vec<u32>| config.encode.max_prompt_length.is_none_or(|most| ids.len() <= most);
        let (records, ids): (Vec<Record>, Vec<Vec<u32>>) =
            records.into_iter().zip(ids).filter(|(_, ids)| fits(ids)).unzip();
        if ids.len() < all {
            let most = config.encode.max_prompt_length.unwrap_or_default();
            log::info!(
                "{} of {all} prompts have more than {most} tokens (encode.max_prompt_length) and are left out",
                all - ids.len()
            );
        }
        if ids.is_empty() {
            return Err(Failure::run(format!("{}: no prompt is left to sample responses to", config.data.name()))
                .hint("shorten the prompts, or raise encode.max_prompt_length"));
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
    use setpoint_data::{DataSource, DatasetConfig};

    use super::*;

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
