//! How long the responses of rounds stay in the run folder.

use std::collections::BTreeMap;
use std::path::Path;

use setpoint_train::RunDir;

use super::settings::RolloutSection;
use super::store::{Remains, Store};
use crate::failure::Outcome;

/// Removes the responses of rounds that neither the settings nor a checkpoint needs.
pub struct Pruner<'a> {
    run: &'a RunDir,
    /// The number of last rounds that stay; `None` for all.
    keep: Option<u64>,
    steps_per_round: u64,
    /// The remains of the rounds whose responses are there.
    remains: BTreeMap<u64, Remains>,
}

impl<'a> Pruner<'a> {
    /// Creates the pruner of a run with `steps_per_round` steps in a round, one at least.
    pub fn new(run: &'a RunDir, rollout: &RolloutSection, steps_per_round: u64) -> Self {
        Self { run, keep: rollout.keep_rounds, steps_per_round, remains: BTreeMap::new() }
    }

    /// Notes what has to be kept of a round when its responses go.
    pub fn note(&mut self, round: u64, remains: Remains) {
        // The first round decides what holds for all.
        if self.keep.is_some() && round > 0 {
            self.remains.insert(round, remains);
        }
    }

    /// Removes what is not needed any more while `round` is trained on. That it fails is worth a warning alone.
    pub fn prune(&mut self, store: &Store, round: u64) {
        if let Err(failure) = self.try_prune(store, round) {
            log::warn!("responses of earlier rounds stay (rollout.keep_rounds): {}", failure.sentence());
        }
    }

    fn try_prune(&mut self, store: &Store, round: u64) -> Outcome {
        let Some(keep) = self.keep else { return Ok(()) };
        // Without a checkpoint the run would begin again with its first round.
        let Some(oldest) = self.oldest_step()? else { return Ok(()) };
        let end = (round + 1).saturating_sub(keep).min(oldest / self.steps_per_round);
        while let Some((&old, &remains)) = self.remains.first_key_value()
            && old < end
        {
            store.remove_round(old, remains)?;
            self.remains.remove(&old);
        }
        Ok(())
    }

    /// Returns the step of the oldest checkpoint.
    fn oldest_step(&self) -> Outcome<Option<u64>> {
        let step = |path: &Path| path.file_name()?.to_str()?.rsplit_once('-')?.1.parse::<u64>().ok();
        // One that cannot be told might be the first.
        Ok(self.run.checkpoints()?.iter().map(|path| step(path).unwrap_or(0)).min())
    }
}

#[cfg(test)]
mod tests {
    use setpoint_align::online::RoundSigns;

    use super::super::store::StoredRound;
    use super::*;

    #[test]
    fn rounds_go_when_no_checkpoint_and_no_setting_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let store = Store::open(&run, "a").unwrap();
        let rollout = RolloutSection { keep_rounds: Some(2), ..RolloutSection::default() };
        let mut pruner = Pruner::new(&run, &rollout, 9);
        for round in 0..6 {
            store.write_round(round, &StoredRound { rows: Vec::new(), mismatched: Vec::new() }).unwrap();
            pruner.note(round, Remains { signs: RoundSigns { round, ..RoundSigns::default() }, next: None });
        }
        let left = || (0..6).filter(|&round| store.round(round).unwrap().is_some()).collect::<Vec<u64>>();
        pruner.prune(&store, 5);
        assert_eq!(left(), [0, 1, 2, 3, 4, 5], "there is no checkpoint");
        for (step, expected) in [(9, vec![0, 1, 2, 3, 4, 5]), (26, vec![0, 2, 3, 4, 5]), (54, vec![0, 4, 5])] {
            std::fs::remove_dir_all(run.join(RunDir::CHECKPOINTS)).ok();
            std::fs::create_dir_all(run.join(RunDir::CHECKPOINTS).join(format!("step-{step:08}"))).unwrap();
            // A newer one does not need more.
            std::fs::create_dir_all(run.join(RunDir::CHECKPOINTS).join("step-00000054")).unwrap();
            pruner.prune(&store, 5);
            assert_eq!(left(), expected, "checkpoint of step {step}");
        }
        assert_eq!(store.remains(3).unwrap().map(|remains| remains.signs.round), Some(3));
        // All stay by default.
        let mut pruner = Pruner::new(&run, &RolloutSection::default(), 9);
        pruner.note(4, Remains { signs: RoundSigns::default(), next: None });
        pruner.prune(&store, 5);
        assert_eq!(left(), [0, 4, 5]);
    }
}
