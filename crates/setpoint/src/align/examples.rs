//! From examples as tokens to prompts as a method needs them: with rewards, in pairs or as rows.

use std::sync::Arc;

use setpoint_align::{
    About, Error, FittedTransform, PairRule, Preferences, PromptObjective, PromptRewards, ReferenceSample, Role,
    RowObjective,
};
use setpoint_data::{Example, ExampleStore, content_hash_of_store};
use setpoint_train::{OnDemand, Order, Sequence};

use super::data::PreparedSet;
use super::desirable::good_and_bad;
use super::prepare::named;
use crate::failure::{Failure, Outcome};
use crate::reference_samples::{self, SampleStore};
use crate::setup;
use crate::tasks::stages::{BestPrompt, PairedPrompt, Prompt, RewardedPrompt, RowPrompt};

/// Examples as tokens; cheap to clone.
#[derive(Clone)]
pub struct ReadSet {
    /// Their place, for messages.
    pub path: String,
    /// The rows.
    pub rows: Arc<ExampleStore>,
    /// True if it is trained on.
    pub training: bool,
    /// The prompts' tokens that are not scored; `None` if no prompt is.
    pub t0: Option<usize>,
    /// Samples of the reference model for each row, if the method reads them.
    pub samples: Option<Arc<SampleStore>>,
}

impl ReadSet {
    /// Returns the prompt of a row as the data has it.
    fn prompt(&self, row: usize) -> Outcome<Prompt> {
        Ok(self.prompt_of(&self.rows.get(row)?))
    }

    fn prompt_of(&self, example: &Example) -> Prompt {
        Prompt {
            name: example.source.to_string(),
            set: example.source.set,
            sequences: setup::sequences(example, self.t0),
            labels: setup::labels(example),
            rewards: example.responses.iter().map(|response| response.reward).collect(),
        }
    }

    /// Returns all prompts, one at a time.
    fn prompts(&self) -> impl Iterator<Item = Outcome<Prompt>> + '_ {
        (0..self.rows.len()).map(|row| self.prompt(row))
    }

    /// Returns the samples of the reference model for a row; none if the method reads none.
    fn samples(&self, row: usize) -> Outcome<Vec<ReferenceSample>> {
        self.samples.as_ref().map_or_else(|| Ok(Vec::new()), |samples| samples.get(row))
    }

    /// Returns the set with its prompts prepared: each row is what `make` makes of it, now to be checked, and again when it is needed. `None`
    /// leaves it out.
    fn prepared<P: 'static>(
        self,
        make: impl Fn(usize) -> Outcome<Option<P>> + Send + Sync + 'static,
    ) -> Outcome<PreparedSet<P>> {
        let mut kept: Vec<u32> = Vec::new();
        for row in 0..self.rows.len() {
            if make(row)?.is_some() {
                kept.push(row as u32);
            }
        }
        let count = kept.len();
        let again = move |number: usize| {
            let found =
                make(kept[number] as usize).map_err(|failure| setpoint_train::Error::task(failure.to_string()))?;
            found.ok_or_else(|| setpoint_train::Error::task("a row is not as it was"))
        };
        let prompts = OnDemand::new(count, again);
        Ok(PreparedSet { prompts, mismatched: None, hash: content_hash_of_store(&self.rows)?, rows: self.rows })
    }
}

/// Transforms the rewards of all responses. The transform is fitted on the first set, the training data.
pub fn rewarded(
    set: ReadSet,
    objective: &dyn PromptObjective,
    about: &About,
    fitted: &mut Option<FittedTransform>,
) -> Outcome<PreparedSet<RewardedPrompt>> {
    let raw = |row: usize, prompt: &Prompt, set: &ReadSet, about: &About| -> Outcome<PromptRewards> {
        Ok(PromptRewards::new(row, rewards_of(set, prompt, about)?).with_labels(prompt.labels.clone()))
    };
    let transform = match fitted {
        Some(transform) => transform,
        None => {
            let mut all = Vec::new();
            for (row, prompt) in set.prompts().enumerate() {
                let prompt = prompt?;
                let raw = raw(row, &prompt, &set, about)?;
                raw.validate().map_err(|error| named(error, |_| Some(prompt.name)))?;
                all.extend(raw.rewards);
            }
            let (rule, scale) = objective.reward_transform();
            fitted.insert(rule.fit_rewards(all, scale)?)
        }
    };
    let (of, about, transform) = (set.clone(), *about, Arc::new(transform.clone()));
    set.prepared(move |row| {
        let prompt = of.prompt(row)?;
        let raw = raw(row, &prompt, &of, &about)?;
        let samples = of.samples(row)?;
        let found = transform
            .apply(&raw)
            .and_then(|applied| Ok((applied.rewards, transformed(&transform, &raw, samples)?)))
            .map_err(|error| named(error, |_| Some(prompt.name.clone())));
        let (rewards, samples) = found?;
        Ok(Some(RewardedPrompt { samples, ..RewardedPrompt::new(prompt, rewards) }))
    })
}

/// Transforms the rewards of a prompt's reference samples as those of its responses.
fn transformed(
    transform: &FittedTransform,
    raw: &PromptRewards,
    samples: Vec<ReferenceSample>,
) -> Result<Vec<ReferenceSample>, Error> {
    let rewards: Vec<f64> = samples.iter().map(|sample| sample.reward).collect();
    let rewards = transform.apply_to(raw, &rewards)?;
    Ok(samples.into_iter().zip(rewards).map(|(sample, reward)| ReferenceSample { reward, ..sample }).collect())
}

/// Takes the best response of each prompt; prompts of which nothing tells it are left out.
pub fn best(set: ReadSet) -> Outcome<PreparedSet<BestPrompt>> {
    let (of, path, before) = (set.clone(), set.path.clone(), set.rows.len());
    let found = set.prepared(move |row| Ok(BestPrompt::new(of.prompt(row)?)))?;
    if found.prompts.is_empty() {
        return Err(Failure::run(format!("{path}: nothing tells the best response of any of its {before} rows"))
            .hint("give rewards (`setpoint annotate`), or labels as in `chosen` and `rejected` columns"));
    }
    if found.prompts.len() < before {
        log::info!("{} of {before} rows have no best response and are left out", before - found.prompts.len());
    }
    Ok(found)
}

/// Forms the pairs of each prompt; prompts without one are left out.
pub fn paired(set: ReadSet, rule: PairRule, about: &About, seed: u64) -> Outcome<PreparedSet<PairedPrompt>> {
    let (of, path, before, own) = (set.clone(), set.path.clone(), set.rows.len(), *about);
    let found = set.prepared(move |row| {
        let example = of.rows.get(row)?;
        let prompt = of.prompt_of(&example);
        let rewards = if own.rewards { Some(rewards_of(&of, &prompt, &own)?) } else { prompt.all_rewards() };
        // Drawn from seed and row alone, so the pair is the same in every epoch and however the data is cut.
        let draw = |among: usize| Order::new(seed).epoch(example.row as u64, among).first().copied().unwrap_or(0);
        let pairs = Preferences::new(&prompt.labels, rewards.as_deref()).pairs(rule, draw);
        Ok((!pairs.is_empty()).then(|| PairedPrompt { prompt, pairs, rewards: rewards.into_iter().collect() }))
    })?;
    if found.prompts.is_empty() {
        return Err(Failure::run(format!(
            "{path}: none of its {before} rows has a chosen and a rejected response, or two different rewards"
        ))
        .hint(format!(
            "`{}` trains on pairs: give `chosen` and `rejected` columns, or rewards to form pairs from",
            about.name
        )));
    }
    if found.prompts.len() < before {
        log::info!("{} of {before} rows have no pair and are left out", before - found.prompts.len());
    }
    Ok(found)
}

/// Decides which responses are desirable, if the objective's rows are good or bad, and converts their rewards.
pub fn rows(set: ReadSet, objective: &Arc<dyn RowObjective>, about: &About) -> Outcome<PreparedSet<RowPrompt>> {
    let (of, objective, own) = (set.clone(), objective.clone(), *about);
    let (desirable, compares) = (objective.desirable(), objective.baseline().is_some());
    let mut found = set.clone().prepared(move |row| {
        let prompt = of.prompt(row)?;
        let rewards = if own.rewards { Some(rewards_of(&of, &prompt, &own)?) } else { prompt.all_rewards() };
        let preferences = Preferences::new(&prompt.labels, rewards.as_deref());
        let roles = desirable.map_or_else(|| preferences.roles(), |rule| preferences.desirable(rule));
        let rewards = match rewards {
            Some(rewards) if own.rewards => {
                let samples: Vec<f64> = of.samples(row)?.iter().map(|sample| sample.reward).collect();
                Some(objective.rewards(&rewards, &samples).map_err(|lack| lacking(&of, &prompt, lack))?)
            }
            rewards => rewards,
        };
        // Without a role, there is nothing to compare.
        let is_row = !compares || roles.iter().any(Option::is_some);
        Ok(is_row.then_some(RowPrompt { prompt, roles, rewards }))
    })?;
    if compares {
        found.mismatched = Some(mismatch(&found.prompts, set.rows.len(), &set.path, about.name)?);
    }
    if let (true, Some(rule)) = (set.training, desirable) {
        good_and_bad(&found.prompts, &set.rows, &set.path, rule, about.name)?;
    }
    Ok(found)
}

/// Says that the rewards of a prompt are not enough.
fn lacking(set: &ReadSet, prompt: &Prompt, lack: &str) -> Failure {
    Failure::run(format!("{}: {lack}", prompt.name)).hint(format!(
        "give every prompt several responses of the reference model: setpoint generate --set generate.samples=6; or draw samples of it \
         with `{}` and add --set align.reference_samples=true",
        reference_samples::command(&set.path, None)
    ))
}

/// Takes each rewarded response for a row.
pub fn rows_with_value(set: ReadSet, about: &About) -> Outcome<PreparedSet<RowPrompt>> {
    let (of, own) = (set.clone(), *about);
    set.prepared(move |row| {
        let prompt = of.prompt(row)?;
        let rewards = rewards_of(&of, &prompt, &own)?;
        let roles = Preferences::new(&prompt.labels, Some(&rewards)).roles();
        Ok(Some(RowPrompt { prompt, roles, rewards: Some(rewards) }))
    })
}

/// Returns the rewards of a prompt's responses.
///
/// # Errors
/// When a response has none.
fn rewards_of(set: &ReadSet, prompt: &Prompt, about: &About) -> Outcome<Vec<f64>> {
    match prompt.all_rewards() {
        Some(rewards) => Ok(rewards),
        None => Err(unrewarded(set, prompt, about)?),
    }
}

/// Says that a response has no reward, and what else its file can be used for.
fn unrewarded(set: &ReadSet, prompt: &Prompt, about: &About) -> Outcome<Failure> {
    let (mut roles, mut is_pair) = ([false; 2], false);
    for other in set.prompts() {
        let labels = other?.labels;
        let own = [Role::Chosen, Role::Rejected].map(|role| labels.contains(&Some(role)));
        roles = [roles[0] || own[0], roles[1] || own[1]];
        is_pair |= own == [true; 2];
    }
    let other = match () {
        () if is_pair => "; pairs without rewards are enough for other methods, as in --set align.method=dpo",
        () if roles == [true; 2] => "; labels without rewards are enough for --set align.method=kto",
        () => "",
    };
    Ok(Failure::run(format!(
        "{}: a response without a reward; {} needs one for every response",
        prompt.name,
        about.name.to_uppercase()
    ))
    .hint(format!("run `setpoint annotate` on the file first, or use a format with rewards{other}")))
}

/// Every prompt with the responses of the nearest other prompt before it (the first with those of the last), as many as it has itself.
/// `before`: the rows, also those without a good or a bad response, which are not among the prompts.
fn mismatch(prompts: &OnDemand<RowPrompt>, before: usize, path: &str, method: &str) -> Outcome<OnDemand<RowPrompt>> {
    let mut texts = Vec::with_capacity(prompts.len());
    for prompt in prompts.iter() {
        texts.push(setup::token_hash(prompt?.prompt.prompt_ids()));
    }
    let n = texts.len();
    if texts.iter().skip(1).all(|text| *text == texts[0]) {
        return Err(Failure::run(format!(
            "{path}: {n} of its {before} rows have a good or a bad response, and all of those the same prompt; {} needs two prompts, since \
             it compares with other prompts' responses",
            method.to_uppercase()
        ))
        .hint("give responses a label (true or false), or rewards to tell good from bad by"));
    }
    if n < before {
        log::info!(
            "{} of {before} rows have neither label nor reward, or one reward for all their responses, and are left out",
            before - n
        );
    }
    // Rows of the same prompt often stand together.
    let nearest = |i: usize| (1..n).map(|back| (i + n - back) % n).find(|&k| texts[k] != texts[i]).unwrap_or(i) as u32;
    let nearest: Vec<u32> = (0..n).map(nearest).collect();
    let others = prompts.clone();
    Ok(prompts.clone().map(move |i, RowPrompt { mut prompt, roles, rewards }| {
        let others = others.get(nearest[i] as usize)?.prompt.sequences;
        for (j, own) in prompt.sequences.iter_mut().enumerate() {
            let response = &others[j % others.len()];
            let ids = [&own.ids[..own.prompt_len], &response.ids[response.prompt_len..]].concat();
            *own = Sequence { ids, prompt_len: own.prompt_len, scored_from: own.scored_from };
        }
        Ok(RowPrompt { prompt, roles, rewards })
    }))
}
