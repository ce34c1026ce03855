//! From examples as tokens to prompts as a method needs them: with rewards, in pairs or as rows.

use setpoint_align::{
    About, Error, FittedTransform, PairRule, Preferences, PromptObjective, PromptRewards, ReferenceSample, Role,
    RowObjective,
};
use setpoint_data::{Example, content_hash};
use setpoint_train::{Order, Sequence};

use super::data::PreparedSet;
use super::desirable::good_and_bad;
use super::prepare::named;
use crate::failure::{Failure, Outcome};
use crate::identity::Row;
use crate::reference_samples;
use crate::setup;
use crate::tasks::stages::{BestPrompt, PairedPrompt, Prompt, RewardedPrompt, RowPrompt};

/// Examples as tokens.
pub struct ReadSet {
    /// Their place, for messages.
    pub path: String,
    /// The rows.
    pub examples: Vec<Example>,
    /// True if it is the data that is trained on.
    pub training: bool,
    /// The prompts' tokens that are not scored; `None` if no prompt is.
    pub t0: Option<usize>,
    /// Samples of the reference model for each row, if the method reads them.
    pub samples: Option<Vec<Vec<ReferenceSample>>>,
}

impl ReadSet {
    /// Returns the prompts as the data has them.
    fn prompts(&self) -> Vec<Prompt> {
        let prompt = |example: &Example| Prompt {
            name: example.source.to_string(),
            set: example.source.set,
            sequences: setup::sequences(example, self.t0),
            labels: setup::labels(example),
            rewards: example.responses.iter().map(|response| response.reward).collect(),
        };
        self.examples.iter().map(prompt).collect()
    }

    /// Returns the set with its prompts prepared.
    fn prepared<P>(&self, prompts: Vec<P>, mismatched: Option<Vec<P>>) -> PreparedSet<P> {
        let (hash, rows) = (content_hash(&self.examples), Row::of_examples(&self.examples));
        PreparedSet { prompts, mismatched, hash, rows }
    }
}

/// Transforms the rewards of all responses. The transform is fitted on the first set, the training data.
pub fn rewarded(
    mut set: ReadSet,
    objective: &dyn PromptObjective,
    about: &About,
    fitted: &mut Option<FittedTransform>,
) -> Outcome<PreparedSet<RewardedPrompt>> {
    let prompts = set.prompts();
    let rewards = all_rewarded(&prompts, about)?;
    let raw: Vec<PromptRewards> = rewards
        .into_iter()
        .zip(&prompts)
        .enumerate()
        .map(|(row, (rewards, prompt))| PromptRewards::new(row, rewards).with_labels(prompt.labels.clone()))
        .collect();
    let transform = match fitted {
        Some(transform) => transform,
        None => {
            let (rule, scale) = objective.reward_transform();
            fitted.insert(rule.fit(&raw, scale).map_err(|error| named(error, &prompts))?)
        }
    };
    let applied: Result<Vec<PromptRewards>, Error> = raw.iter().map(|raw| transform.apply(raw)).collect();
    let applied = applied.map_err(|error| named(error, &prompts))?;
    let samples = set.samples.take().unwrap_or_default();
    let further = raw.iter().zip(samples).map(|(raw, samples)| transformed(transform, raw, samples));
    let further: Vec<Vec<ReferenceSample>> =
        further.collect::<Result<_, Error>>().map_err(|error| named(error, &prompts))?;
    let rewarded = prompts.into_iter().zip(applied);
    let mut rewarded: Vec<RewardedPrompt> =
        rewarded.map(|(prompt, applied)| RewardedPrompt::new(prompt, applied.rewards)).collect();
    rewarded.iter_mut().zip(further).for_each(|(prompt, samples)| prompt.samples = samples);
    Ok(set.prepared(rewarded, None))
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
    let prompts = set.prompts();
    let before = prompts.len();
    let found: Vec<BestPrompt> = prompts.into_iter().filter_map(BestPrompt::new).collect();
    if found.is_empty() {
        return Err(Failure::run(format!("{}: nothing tells the best response of any of its {before} rows", set.path))
            .hint("give rewards (`setpoint annotate`), or labels as in `chosen` and `rejected` columns"));
    }
    if found.len() < before {
        log::info!("{} of {before} rows have no best response and are left out", before - found.len());
    }
    Ok(set.prepared(found, None))
}

/// Forms the pairs of each prompt; prompts without one are left out.
pub fn paired(set: ReadSet, rule: PairRule, about: &About, seed: u64) -> Outcome<PreparedSet<PairedPrompt>> {
    let prompts = set.prompts();
    if about.rewards {
        all_rewarded(&prompts, about)?;
    }
    let before = prompts.len();
    let pair = |(prompt, example): (Prompt, &Example)| {
        let rewards = prompt.all_rewards();
        // Drawn from seed and row alone, so the pair is the same in every epoch and however the data is cut.
        let draw = |among: usize| Order::new(seed).epoch(example.row as u64, among).first().copied().unwrap_or(0);
        let pairs = Preferences::new(&prompt.labels, rewards.as_deref()).pairs(rule, draw);
        (!pairs.is_empty()).then(|| PairedPrompt { prompt, pairs, rewards: rewards.into_iter().collect() })
    };
    let paired: Vec<PairedPrompt> = prompts.into_iter().zip(&set.examples).filter_map(pair).collect();
    if paired.is_empty() {
        return Err(Failure::run(format!(
            "{}: none of its {before} rows has a chosen and a rejected response, or two different rewards",
            set.path
        ))
        .hint(format!(
            "`{}` trains on pairs: give `chosen` and `rejected` columns, or rewards to form pairs from",
            about.name
        )));
    }
    if paired.len() < before {
        log::info!("{} of {before} rows have no pair and are left out", before - paired.len());
    }
    Ok(set.prepared(paired, None))
}

/// Decides which responses are desirable, if the objective's rows are good or bad, and converts their rewards.
pub fn rows(set: ReadSet, objective: &dyn RowObjective, about: &About) -> Outcome<PreparedSet<RowPrompt>> {
    let prompts = set.prompts();
    if about.rewards {
        all_rewarded(&prompts, about)?;
    }
    let samples = |i: usize| -> Vec<f64> {
        let samples = set.samples.iter().filter_map(|rows| rows.get(i)).flatten();
        samples.map(|sample| sample.reward).collect()
    };
    let row = |(i, prompt): (usize, Prompt)| -> Outcome<RowPrompt> {
        let rewards = prompt.all_rewards();
        let preferences = Preferences::new(&prompt.labels, rewards.as_deref());
        let roles = objective.desirable().map_or_else(|| preferences.roles(), |rule| preferences.desirable(rule));
        let rewards = match rewards {
            Some(rewards) if about.rewards => Some(objective.rewards(&rewards, &samples(i)).map_err(|lack| {
                Failure::run(format!("{}: {lack}", prompt.name)).hint(format!(
                    "give every prompt several responses of the reference model: setpoint generate --set generate.samples=6; or draw \
                     samples of it with `{}` and add --set align.reference_samples=true",
                    reference_samples::command(&set.path, None)
                ))
            })?),
            rewards => rewards,
        };
        Ok(RowPrompt { prompt, roles, rewards })
    };
    let mut prompts = prompts.into_iter().enumerate().map(row).collect::<Outcome<Vec<RowPrompt>>>()?;
    let mismatched = match objective.baseline() {
        Some(_) => Some(mismatch(&mut prompts, &set.path, about.name)?),
        None => None,
    };
    if let (true, Some(rule)) = (set.training, objective.desirable()) {
        good_and_bad(&prompts, &set.examples, &set.path, rule, about.name)?;
    }
    Ok(set.prepared(prompts, mismatched))
}

/// Takes each rewarded response for a row.
pub fn rows_with_value(set: ReadSet, about: &About) -> Outcome<PreparedSet<RowPrompt>> {
    let prompts = set.prompts();
    let rewards = all_rewarded(&prompts, about)?;
    let row = |(prompt, rewards): (Prompt, Vec<f64>)| {
        let roles = Preferences::new(&prompt.labels, Some(&rewards)).roles();
        RowPrompt { prompt, roles, rewards: Some(rewards) }
    };
    Ok(set.prepared(prompts.into_iter().zip(rewards).map(row).collect(), None))
}

/// Returns the rewards of all responses.
///
/// # Errors
/// When a response has none.
fn all_rewarded(prompts: &[Prompt], about: &About) -> Outcome<Vec<Vec<f64>>> {
    let rewards: Result<Vec<Vec<f64>>, &Prompt> =
        prompts.iter().map(|prompt| prompt.all_rewards().ok_or(prompt)).collect();
    rewards.map_err(|prompt| {
        let has = |role| prompts.iter().any(|prompt| prompt.labels.contains(&Some(role)));
        let is_pair =
            |prompt: &Prompt| [Role::Chosen, Role::Rejected].iter().all(|role| prompt.labels.contains(&Some(*role)));
        let other = match () {
            () if prompts.iter().any(is_pair) => {
                "; pairs without rewards are enough for other methods, as in --set align.method=dpo"
            }
            () if has(Role::Chosen) && has(Role::Rejected) => {
                "; labels without rewards are enough for --set align.method=kto"
            }
            () => "",
        };
        Failure::run(format!(
            "{}: a response without a reward; {} needs one for every response",
            prompt.name,
            about.name.to_uppercase()
        ))
        .hint(format!("run `setpoint annotate` on the file first, or use a format with rewards{other}"))
    })
}

/// Every prompt with the responses of the nearest other prompt before it (the first with those of the last), as many as it has itself.
/// Prompts without a good or a bad response are dropped first.
fn mismatch(prompts: &mut Vec<RowPrompt>, path: &str, method: &str) -> Outcome<Vec<RowPrompt>> {
    let before = prompts.len();
    prompts.retain(|prompt| prompt.roles.iter().any(Option::is_some));
    let text = |i: usize| prompts[i].prompt.prompt_ids();
    if (1..prompts.len()).all(|i| text(i) == text(0)) {
        return Err(Failure::run(format!(
            "{path}: {} of its {before} rows have a good or a bad response, and all of those the same prompt; {} needs two prompts, since \
             it compares with other prompts' responses",
            prompts.len(),
            method.to_uppercase()
        ))
        .hint("give responses a label (true or false), or rewards to tell good from bad by"));
    }
    if prompts.len() < before {
        log::info!(
            "{} of {before} rows have neither label nor reward, or one reward for all their responses, and are left out",
            before - prompts.len()
        );
    }
    // Rows of the same prompt often stand together.
    let n = prompts.len();
    let other = |i: usize| {
        let before = (1..n).map(|back| (i + n - back) % n);
        let nearest = before.into_iter().find(|&k| text(k) != text(i)).unwrap_or(i);
        &prompts[nearest].prompt.sequences
    };
    let mismatched = prompts.iter().enumerate().map(|(i, RowPrompt { prompt, roles, rewards })| {
        let others = other(i);
        let sequences = prompt.sequences.iter().enumerate().map(|(j, own)| {
            let response = &others[j % others.len()];
            let ids = [&own.ids[..own.prompt_len], &response.ids[response.prompt_len..]].concat();
            Sequence { ids, prompt_len: own.prompt_len, scored_from: own.scored_from }
        });
        let prompt = Prompt {
            name: prompt.name.clone(),
            set: prompt.set,
            sequences: sequences.collect(),
            labels: prompt.labels.clone(),
            rewards: prompt.rewards.clone(),
        };
        RowPrompt { prompt, roles: roles.clone(), rewards: rewards.clone() }
    });
    Ok(mismatched.collect())
}
