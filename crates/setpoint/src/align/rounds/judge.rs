//! The rewards of sampled responses, by any source that can score them, or by several with weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use setpoint_align::online::combine_rewards;
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

/// The rewards of some responses.
#[derive(Debug)]
pub struct Rewards {
    /// The sum of the sources' rewards, each times its weight; none where no source has one.
    pub sums: Vec<Option<f64>>,
    /// The rewards of each source by its name, if they have weights.
    pub by_source: BTreeMap<String, Vec<Option<f64>>>,
}

/// A source of rewards among those that are added up.
struct Part {
    /// Its name: that of its section.
    name: &'static str,
    weight: f64,
    /// Open from the first response on.
    source: Option<Box<dyn RewardSource>>,
}

/// The name of a reward model among the sources.
const MODEL: &str = "model";

/// The sources of the rewards.
pub struct Judge<'a> {
    session: &'a Session,
    /// The section of the settings.
    section: &'static str,
    settings: &'a RewardSection,
    parts: Vec<Part>,
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
}

impl<'a> Judge<'a> {
    /// Reads everything but weights. The settings are those of `section`.
    ///
    /// # Errors
    /// When a tokenizer, the shape of a model or the columns of the data cannot be read.
    pub fn new(
        session: &'a Session,
        config: &'a AlignConfig,
        (section, settings): (&'static str, &'a RewardSection),
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
        }
        let mut parts = Vec::new();
        with_chosen(settings, |(name, _)| {
            let weight = settings.weights.get(name).copied().unwrap_or(1.0);
            parts.push(Part { name, weight, source: None });
            Ok(())
        })?;
        if parts.iter().any(|part| part.name != MODEL) {
            // A rule may compare with any column, an answer that the format knows as a response for example.
            let fields = annotate::fields::of_rows(&config.data, &records)?;
            records.iter_mut().zip(fields).for_each(|(record, fields)| record.extra = fields);
        }
        Ok(Self { session, section, settings, parts, keep, foreign, reading, records, seen, output })
    }

    /// Opens the sources without weights, and closes them again: a key or a file that is missing is known before any work. The settings are
    /// those of `section`.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn try_out(session: &Session, (section, settings): (&str, &RewardSection)) -> Outcome {
        let opening = Opening { session, batch_tokens: settings.batch_tokens, padding: None, output: None, section };
        with_chosen(settings, |(name, chosen)| match name {
            MODEL => Ok(()),
            _ => chosen.open(&opening).map(drop),
        })
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

    /// Returns the names of the sources: their sections.
    pub fn names(&self) -> Vec<&'static str> {
        self.parts.iter().map(|part| part.name).collect()
    }

    /// Returns the penalty for a response without a stop token.
    pub fn missing_stop_penalty(&self) -> f64 {
        self.settings.missing_stop_penalty
    }

    /// Opens the sources, unless they are open.
    fn open(&mut self) -> Outcome {
        if self.parts.iter().all(|part| part.source.is_some()) {
            return Ok(());
        }
        let opening = Opening {
            session: self.session,
            batch_tokens: self.settings.batch_tokens,
            padding: self.reading.as_ref().and_then(|reading| reading.padding),
            output: Some(&self.output),
            section: self.section,
        };
        let mut opened = Vec::with_capacity(self.parts.len());
        with_chosen(self.settings, |(_, chosen)| {
            opened.push(chosen.open(&opening)?);
            Ok(())
        })?;
        self.parts.iter_mut().zip(opened).for_each(|(part, source)| part.source = Some(source));
        Ok(())
    }

    /// Returns the rewards of some responses; none where a source has none and may leave it out. `encoder` is the policy's.
    ///
    /// # Errors
    /// When a source cannot be opened or fails.
    pub fn rewards(&mut self, answers: &[Answer<'_>], encoder: &TextEncoder, prompts: &Prompts) -> Outcome<Rewards> {
        self.open()?;
        let mut found = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            found.push(self.rewards_of(part, answers, (encoder, prompts))?);
        }
        let numbers = |rewards: &Vec<Option<f64>>| rewards.iter().map(|reward| reward.unwrap_or(f64::NAN)).collect();
        let numbers: Vec<Vec<f64>> = found.iter().map(numbers).collect();
        let weights: Vec<f64> = self.parts.iter().map(|part| part.weight).collect();
        let sums = combine_rewards(&numbers, &weights);
        let by_source = match self.settings.weights.is_empty() {
            true => BTreeMap::new(),
            false => self.parts.iter().map(|part| part.name.to_owned()).zip(found).collect(),
        };
        Ok(Rewards { sums: sums.into_iter().map(|sum| (!sum.is_nan()).then_some(sum)).collect(), by_source })
    }

    /// Returns the rewards of some responses by one source.
    fn rewards_of(
        &self,
        part: &Part,
        answers: &[Answer<'_>],
        (encoder, prompts): (&TextEncoder, &Prompts),
    ) -> Outcome<Vec<Option<f64>>> {
        let Some(source) = &part.source else { return Err(Failure::run("no source of rewards")) };
        let read = |answer: &Answer<'_>| self.read_by(part.name, answer, encoder, prompts);
        let ids = answers.iter().map(read).collect::<Outcome<Vec<_>>>()?;
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

    /// Returns a prompt and a response as the source `name` reads them. With the policy's tokenizer a reward model reads the very tokens that
    /// were sampled, a missing stop token included.
    fn read_by(
        &self,
        name: &str,
        answer: &Answer<'_>,
        encoder: &TextEncoder,
        prompts: &Prompts,
    ) -> Outcome<(Vec<u32>, Vec<u32>)> {
        let reading = self.reading.as_ref().filter(|_| name == MODEL);
        if let (Some(own), Some(reading)) = (&self.foreign, reading) {
            return setup::answer_ids(own, &self.seen[answer.row], answer.text, reading);
        }
        let mut ids = answer.ids.to_vec();
        if let Some(reading) = reading {
            reading.complete(encoder, &mut ids);
        }
        Ok((prompts.ids[answer.row].clone(), ids))
    }

    /// Learns that a round has all of its rewards. With [`Keep::Reload`] the sources are closed.
    ///
    /// # Errors
    /// When too many of the `all` responses have no reward.
    pub fn end_round(&mut self, round: u64, unscored: usize, all: usize) -> Outcome {
        if self.keep == Keep::Reload {
            self.parts.iter_mut().for_each(|part| part.source = None);
        }
        if unscored as f64 > MOST_UNSCORED * all as f64 {
            return Err(Failure::run(format!(
                "{unscored} of the {all} responses of round {round} have no reward; at most a tenth may have none"
            ))
            .hint(format!(
                "see to it that `{}` gives them one; --resume samples these parts of the round again, and asks a judge only \
                 about responses without a reward",
                self.section
            )));
        }
        Ok(())
    }
}

/// Calls a function with each source that the settings choose, a reward model first.
fn with_chosen(settings: &RewardSection, use_it: impl FnMut(Entry<'_>) -> Outcome) -> Outcome {
    let model = settings.reward_model();
    let mut entries = sources::with_model(MODEL, &model, settings.sources.entries());
    entries.retain(|(_, source)| source.is_given());
    if entries.is_empty() {
        return Err(Failure::usage("reward", "no source of rewards"));
    }
    entries.into_iter().try_for_each(use_it)
}
