//! What the audit keeps of each row: its numbers, side by side with those of the other rows, and neither names nor tokens.

use std::collections::HashMap;
use std::ops::Range;

use super::{AuditPrompt, ScoredResponse};
use crate::error::Error;
use crate::log_z0::LogZ0;
use crate::prompt_log_z::PromptLogZ;
use crate::prompt_rewards::{PromptRewards, Role, chosen_rewards};

/// The rows of a data set, as the audit needs them. A row takes 24 bytes of memory, and a response 29.
#[derive(Debug, Default)]
pub struct AuditData {
    prompts: Vec<u64>,
    /// The caller's number of each row.
    numbers: Vec<usize>,
    /// Where the responses of each row end.
    ends: Vec<usize>,
    /// The level of each row, as long as every row has its own.
    levels: Vec<PromptLogZ>,
    rewards: Vec<f64>,
    labels: Vec<Option<Role>>,
    ids: Vec<u64>,
    ref_logps: Vec<f64>,
    tokens: Vec<u32>,
}

impl AuditData {
    /// Adds a row.
    ///
    /// # Errors
    /// The errors of [`PromptRewards::validate`], [`Error::Lengths`] for ids, log-probs or tokens of another number, [`Error::RefLogp`] for one
    /// that is no log-probability.
    pub fn push(&mut self, row: &AuditPrompt) -> Result<(), Error> {
        row.rewards.validate()?;
        let (expected, number) = (row.rewards.rewards.len(), row.rewards.row);
        let lengths = |what, found| {
            if found == expected { Ok(()) } else { Err(Error::Lengths { row: number, what, expected, found }) }
        };
        lengths("response ids", row.ids.len())?;
        lengths("reference log-probabilities", row.ref_logps.len())?;
        lengths("numbers of tokens", row.tokens.len())?;
        // A log-softmax of a certain token may round to a little above 0.
        let good = |logp: &f64| logp.is_finite() && *logp <= 1e-3;
        if let Some(response) = row.ref_logps.iter().position(|logp| !good(logp)) {
            return Err(Error::RefLogp { row: number, response, found: row.ref_logps[response] });
        }
        match row.log_z {
            Some(level) if self.levels.len() == self.len() => self.levels.push(level),
            _ => self.levels.clear(),
        }
        self.prompts.push(row.prompt);
        self.numbers.push(number);
        self.rewards.extend(&row.rewards.rewards);
        self.labels.extend(&row.rewards.labels);
        // Rows without labels have none for each response.
        self.labels.resize(self.rewards.len(), None);
        self.ids.extend(&row.ids);
        self.ref_logps.extend(&row.ref_logps);
        self.tokens.extend(row.tokens.iter().map(|&tokens| tokens as u32));
        self.ends.push(self.rewards.len());
        Ok(())
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the rewards of all rows.
    pub(super) fn all_rewards(&self) -> &[f64] {
        &self.rewards
    }

    /// Returns whether any response has a label.
    pub(super) fn is_labelled(&self) -> bool {
        self.labels.iter().any(Option::is_some)
    }

    /// Returns the levels of all rows; `None` unless every row has its own.
    pub(super) fn levels(&self) -> Option<&[PromptLogZ]> {
        (!self.is_empty() && self.levels.len() == self.len()).then_some(self.levels.as_slice())
    }

    fn responses(&self, row: usize) -> Range<usize> {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[row]
    }

    /// Returns the rewards and labels of each row.
    pub(super) fn prompt_rewards(&self) -> impl Iterator<Item = PromptRewards> + Clone + '_ {
        (0..self.len()).map(|row| {
            let own = self.responses(row);
            let rewards = PromptRewards::new(self.numbers[row], self.rewards[own.clone()].to_vec());
            rewards.with_labels(self.labels[own].to_vec())
        })
    }

    /// Returns the level of each row, if it has its own, and its numbers of tokens.
    pub(super) fn level_and_tokens(&self, row: usize) -> (Option<PromptLogZ>, &[u32]) {
        (self.levels().map(|levels| levels[row]), &self.tokens[self.responses(row)])
    }

    /// Resolves a level from the rewards.
    pub(super) fn level_at(&self, beta: f64, log_z0: LogZ0) -> Result<f64, Error> {
        match log_z0 {
            LogZ0::Mean => log_z0.resolve(beta, &self.rewards),
            LogZ0::KeepChosen { .. } | LogZ0::Auto { .. } => {
                let chosen = self.prompt_rewards().flat_map(|prompt| chosen_rewards(&[prompt]));
                log_z0.resolve(beta, &chosen.collect::<Vec<f64>>())
            }
            LogZ0::Nats(_) | LogZ0::BreakEvenReward(_) | LogZ0::PerPrompt => log_z0.resolve(beta, &[]),
        }
    }
}

/// The distinct responses of one prompt, over all rows that have it.
pub(super) struct PromptGroup {
    /// The place of the first row with this prompt.
    pub(super) place: usize,
    /// The caller's number of it.
    pub(super) row: usize,
    /// The level of that row, if it has its own.
    pub(super) log_z: Option<PromptLogZ>,
    pub(super) responses: Vec<ScoredResponse>,
    /// Number of tokens of each response.
    pub(super) tokens: Vec<usize>,
    pub(super) duplicates: usize,
    pub(super) conflicts: usize,
}

/// Rows grouped by prompt in order of first appearance. A group is made when it is looked at.
#[derive(Debug)]
pub(super) struct Groups<'d> {
    data: &'d AuditData,
    /// All rows, those of a group together and in their order.
    rows: Vec<u32>,
    /// Where each group begins among them.
    starts: Vec<u32>,
}

impl<'d> Groups<'d> {
    /// Groups the rows of a data set.
    pub(super) fn of(data: &'d AuditData) -> Self {
        let mut rows: Vec<u32> = (0..data.len() as u32).collect();
        rows.sort_unstable_by_key(|&row| (data.prompts[row as usize], row));
        // The first row of each row's group, by row.
        let mut firsts = vec![0; rows.len()];
        let mut groups = 0;
        for group in rows.chunk_by(|&a, &b| data.prompts[a as usize] == data.prompts[b as usize]) {
            group.iter().for_each(|&row| firsts[row as usize] = group[0]);
            groups += 1;
        }
        rows.sort_unstable_by_key(|&row| (firsts[row as usize], row));
        let begins = |place: &u32| firsts[rows[*place as usize] as usize] == rows[*place as usize];
        let mut starts = Vec::with_capacity(groups);
        starts.extend((0..rows.len() as u32).filter(begins));
        Self { data, rows, starts }
    }

    /// Returns the number of groups.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Returns all groups in order of first appearance.
    pub(super) fn iter(&self) -> impl Iterator<Item = PromptGroup> + '_ {
        (0..self.len()).map(|group| self.get(group))
    }

    /// Returns a group.
    pub(super) fn get(&self, group: usize) -> PromptGroup {
        let end = self.starts.get(group + 1).map_or(self.rows.len(), |&end| end as usize);
        self.merged(&self.rows[self.starts[group] as usize..end])
    }

    /// Merges the repeated responses of a group. One that occurs with several rewards gets their mean: that is where its least squares pull
    /// it.
    fn merged(&self, rows: &[u32]) -> PromptGroup {
        let data = self.data;
        let first = rows[0] as usize;
        let mut seen: Vec<(usize, Vec<f64>)> = Vec::new();
        let mut known = HashMap::new();
        for place in rows.iter().flat_map(|&row| data.responses(row as usize)) {
            let number = *known.entry(data.ids[place]).or_insert(seen.len());
            match seen.get_mut(number) {
                Some((_, rewards)) => rewards.push(data.rewards[place]),
                None => seen.push((place, vec![data.rewards[place]])),
            }
        }
        PromptGroup {
            place: first,
            row: data.numbers[first],
            log_z: data.levels().map(|levels| levels[first]),
            tokens: seen.iter().map(|(place, _)| data.tokens[*place] as usize).collect(),
            duplicates: seen.iter().map(|(_, rewards)| rewards.len() - 1).sum(),
            conflicts: seen.iter().filter(|(_, rewards)| rewards.iter().any(|&r| r != rewards[0])).count(),
            responses: seen
                .iter()
                .map(|(place, rewards)| ScoredResponse {
                    ref_logp: data.ref_logps[*place],
                    reward: rewards.iter().sum::<f64>() / rewards.len() as f64,
                })
                .collect(),
        }
    }
}
