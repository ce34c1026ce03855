//! The rewards of sampled responses, by any source that can score them.

use std::path::PathBuf;

use setpoint_data::{Record, ResponseEnd, TextEncoder};
use setpoint_reward::{RewardSource, Scored};

use super::super::settings::AlignConfig;
use super::prompts::Prompts;
use super::settings::{Keep, RewardSection};
use crate::annotate;
use crate::failure::{Failure, Outcome};
use crate::identity::Origin;
use crate::session::Session;
use crate::setup::{self, Reading};
use crate::sources::{self, Entry, Opening};

/// The share of a round's responses that may have no reward.
const MOST_UNSCORED: f64 = 0.1;

/// A sampled response.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The place of its prompt in the data.
    pub row: usize,
    /// Its number among the prompt's responses.
    pub index: usize,
    /// Its tokens.
    pub ids: &'a [u32],
    /// Its text.
    pub text: &'a str,
}

/// The source of the rewards.
pub struct Judge<'a> {
    session: &'a Session,
    settings: &'a RewardSection,
    /// The name of the source: its section.
    name: &'static str,
    keep: Keep,
    /// Tokenizer and template of the reward model, if they are not the policy's.
    foreign: Option<TextEncoder>,
    /// Where a reward model reads the score.
    reading: Option<Reading>,
    /// The prompts with the columns that the source may look at.
    records: Vec<Record>,
    /// The prompts as the reward model's template sees them.
    seen: Vec<Record>,
    /// The file that a judge's answers are kept next to.
    output: PathBuf,
    /// Open from the first response on.
    source: Option<Box<dyn RewardSource>>,
}

impl<'a> Judge<'a> {
    /// Reads everything but weights.
    ///
    /// # Errors
    /// When a tokenizer, the shape of a model or the columns of the data cannot be read.
    pub fn new(
        session: &'a Session,
        config: &'a AlignConfig,
        settings: &'a RewardSection,
        keep: Keep,
        encoder: &TextEncoder,
        prompts: &Prompts,
        output: PathBuf,
    ) -> Outcome<Self> {
        let mut records = prompts.records.clone();
        let (mut foreign, mut reading, mut seen) = (None, None, Vec::new());
        if settings.model.path.is_some() {
            let own = setup::encoder(&settings.model)?;
            setup::model_config(&settings.model, &own)?;
            reading = Some(Reading::of(&settings.model, &own, ResponseEnd::Auto)?);
            if !own.agrees_with(encoder) {
                seen = setup::seen(&records, &config.data, &own);
                foreign = Some(own);
            }
        } else {
            // A rule may compare with any column, an answer that the format knows as a response for example.
            let fields = annotate::fields::of_rows(&config.data, &records)?;
            records.iter_mut().zip(fields).for_each(|(record, fields)| record.extra = fields);
        }
        let name = with_chosen(settings, |(name, _)| Ok(name))?;
        Ok(Self { session, settings, name, keep, foreign, reading, records, seen, output, source: None })
    }

    /// Adds everything that decides the rewards besides the settings, which are those of `section`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn identify(settings: &RewardSection, section: &str, origin: &mut Origin) -> Outcome {
        with_chosen(settings, |(_, chosen)| {
            for (what, digest) in chosen.inputs()? {
                origin.reward(section, what, digest);
            }
            Ok(())
        })
    }

    /// Returns the name of the source: its section.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the penalty for a response without a stop token.
    pub fn missing_stop_penalty(&self) -> f64 {
        self.settings.missing_stop_penalty
    }

    /// Opens the source, unless it is open.
    fn open(&mut self) -> Outcome<&dyn RewardSource> {
        let source = match self.source.take() {
            Some(source) => source,
            None => {
                let opening = Opening {
                    session: self.session,
                    batch_tokens: self.settings.batch_tokens,
                    padding: self.reading.as_ref().and_then(|reading| reading.padding),
                    output: Some(&self.output),
                };
                with_chosen(self.settings, |(_, chosen)| chosen.open(&opening))?
            }
        };
        Ok(&**self.source.insert(source))
    }

    /// Returns the rewards of some responses; none where the source has none and may leave it out. `encoder` is the policy's.
    ///
    /// # Errors
    /// When the source cannot be opened or fails.
    pub fn rewards(
        &mut self,
        answers: &[Answer<'_>],
        encoder: &TextEncoder,
        prompts: &Prompts,
    ) -> Outcome<Vec<Option<f64>>> {
        let ids =
            answers.iter().map(|answer| self.read_by_source(answer, encoder, prompts)).collect::<Outcome<Vec<_>>>()?;
        self.open()?;
        let texts: Vec<String> =
            answers.iter().map(|answer| annotate::prompt_text(&self.records[answer.row].prompt)).collect();
        let items: Vec<Scored<'_>> = answers
            .iter()
            .zip(&texts)
            .zip(&ids)
            .map(|((answer, prompt), (prompt_ids, response_ids))| Scored {
                row: self.records[answer.row].source.row,
                response_index: answer.index,
                prompt,
                response: answer.text,
                prompt_ids,
                response_ids,
                recorded: None,
                fields: Some(&self.records[answer.row].extra),
            })
            .collect();
        let Some(source) = &self.source else { return Err(Failure::run("no source of rewards")) };
        let rewards = source.score_available(&items, &mut |_| ());
        rewards.and_then(|rewards| source.check().map(|()| rewards)).map_err(|error| {
            let remedy = source.remedy();
            let rows = answers.iter().map(|answer| &self.records[answer.row].source);
            let failure = sources::failure(self.session, error, rows);
            match remedy {
                Some(remedy) => failure.hint(remedy),
                None => failure,
            }
        })
    }

    /// Returns a prompt and a response as the source reads them. With the policy's tokenizer a reward model reads the very tokens that were
    /// sampled, a missing stop token included.
    fn read_by_source(
        &self,
        answer: &Answer<'_>,
        encoder: &TextEncoder,
        prompts: &Prompts,
    ) -> Outcome<(Vec<u32>, Vec<u32>)> {
        match (&self.foreign, &self.reading) {
            (Some(own), Some(reading)) => setup::answer_ids(own, &self.seen[answer.row], answer.text, reading),
            (_, reading) => {
                let mut ids = answer.ids.to_vec();
                reading.iter().for_each(|reading| reading.complete(encoder, &mut ids));
                Ok((prompts.ids[answer.row].clone(), ids))
            }
        }
    }

    /// Learns that a round has all of its rewards. With [`Keep::Reload`] the source is closed.
    ///
    /// # Errors
    /// When too many of the `all` responses have no reward.
    pub fn end_round(&mut self, round: u64, unscored: usize, all: usize) -> Outcome {
        if self.keep == Keep::Reload {
            self.source = None;
        }
        if unscored as f64 > MOST_UNSCORED * all as f64 {
            return Err(Failure::run(format!(
                "{unscored} of the {all} responses of round {round} have no reward; at most a tenth may have none"
            )));
        }
        Ok(())
    }
}

/// Calls a function with the source that the settings choose.
fn with_chosen<R>(settings: &RewardSection, use_it: impl FnOnce(Entry<'_>) -> Outcome<R>) -> Outcome<R> {
    let model = settings.reward_model();
    let entries = settings.sources.entries();
    let chosen = sources::chosen(("model", &model), &entries);
    use_it(chosen.ok_or_else(|| Failure::usage("reward", "no source of rewards"))?)
}
