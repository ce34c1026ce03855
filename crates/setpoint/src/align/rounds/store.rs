//! The responses of rounds in the run folder.
//!
//! ```text
//! rollouts/origin                     a hash of all that the responses follow from
//! rollouts/round-0003/chunk-0002.jsonl   a part of a round that is not whole yet
//! rollouts/round-0003.jsonl           the responses of a whole round: rows as `setpoint align` reads them, with further columns
//! rollouts/round-0003.json            the checksum of that file, written last; or what is kept of a round whose responses were removed
//! rollouts/round-0003.watch.json      the mean reward of the second source, if there is one
//! ```
//!
//! Every file is written under another name, synced and renamed, so a file that exists is whole.

mod row;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use setpoint_align::online::{OnlineState, RoundSigns};
use setpoint_files::words;
use setpoint_train::{RunDir, file_digest};

pub use self::row::{Distance, RolloutRow};
use super::watch::SecondReward;
use crate::failure::{Failure, Outcome};

/// The folder in a run.
pub const FOLDER: &str = "rollouts";
/// The file that says what the responses follow from.
const ORIGIN: &str = "origin";

/// A whole round.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRound {
    /// The prompts.
    pub rows: Vec<RolloutRow>,
    /// `log π_ref` of other prompts' responses to each prompt, nats, for methods that compare with them.
    pub mismatched: Vec<Vec<f64>>,
}

/// The file that is written when a round is whole.
#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    bytes: u64,
    crc32c: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mismatched: Vec<Vec<f64>>,
    /// The part that is kept if the responses were removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remains: Option<Remains>,
}

/// The numbers of a round that later rounds follow from. They stay when its responses are removed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Remains {
    /// The numbers that the guards look at.
    pub signs: RoundSigns,
    /// The numbers that a method carries to the next round.
    pub next: Option<OnlineState>,
}

/// The rounds of a run.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the rounds of a run. Those that follow from something else are removed: a run without a checkpoint begins with what it finds now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(run: &RunDir, origin: &str) -> Outcome<Self> {
        let folder = run.join(FOLDER);
        let path = folder.join(ORIGIN);
        let is_own = setpoint_files::read_text(&path).is_ok_and(|found| found.trim_end() == origin);
        if !is_own {
            if folder.exists() {
                log::info!("{}: its responses follow from other inputs and are sampled again", folder.display());
            }
            setpoint_files::remove_tree(&folder)?;
            setpoint_files::create_dir(&folder)?;
            write_origin(&path, origin)?;
        }
        Ok(Self { folder })
    }

    /// Returns whether the run in a folder has the responses of a round, with their rewards.
    pub fn has_round(run: &Path, round: u64) -> bool {
        Self { folder: run.join(FOLDER) }.path(round).is_file()
    }

    /// Gives the rounds of a run that an earlier build noted as those of `earlier` the present `origin`: that build hashed settings as well
    /// which may change when a run goes on.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn adopt(run: &RunDir, earlier: &str, origin: &str) -> Outcome {
        let path = run.join(FOLDER).join(ORIGIN);
        match setpoint_files::read_text(&path) {
            Ok(found) if found.trim_end() == earlier => write_origin(&path, origin),
            _ => Ok(()),
        }
    }

    /// Returns the place of further files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the file with the responses of a round.
    pub fn path(&self, round: u64) -> PathBuf {
        self.folder.join(format!("round-{round:04}.jsonl"))
    }

    fn seal_path(&self, round: u64) -> PathBuf {
        self.folder.join(format!("round-{round:04}.json"))
    }

    fn watch_path(&self, round: u64) -> PathBuf {
        self.folder.join(format!("round-{round:04}.watch.json"))
    }

    /// Returns the mean reward of the second source in a round; nothing if it was not written or is damaged.
    pub fn watched(&self, round: u64) -> Option<Option<SecondReward>> {
        let text = setpoint_files::read_text(&self.watch_path(round)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes the mean reward of the second source in a round.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_watched(&self, round: u64, watched: Option<SecondReward>) -> Outcome {
        let text = serde_json::to_string(&watched)? + "\n";
        setpoint_files::write::<Failure>(&self.watch_path(round), |out| Ok(out.put(text.as_bytes())?))
    }

    fn parts(&self, round: u64) -> PathBuf {
        self.folder.join(format!("round-{round:04}"))
    }

    fn part(&self, round: u64, chunk: usize) -> PathBuf {
        self.parts(round).join(format!("chunk-{chunk:04}.jsonl"))
    }

    /// Returns the file with the answers of a server that belong to parts which are not whole yet. It goes with the parts.
    pub fn server_cache(&self, round: u64) -> PathBuf {
        self.parts(round).join("server_cache.jsonl")
    }

    /// Returns a part of a round that an earlier process left. One that cannot be read is made again.
    pub fn chunk(&self, round: u64, chunk: usize) -> Option<Vec<RolloutRow>> {
        let path = self.part(round, chunk);
        if !path.is_file() {
            return None;
        }
        read_rows(&path).map_err(|failure| log::warn!("{}; it is made again", failure.sentence())).ok()
    }

    /// Writes a part of a round.
    ///
    /// # Errors
    /// When the disk refuses, or a number is not finite.
    pub fn write_chunk(&self, round: u64, chunk: usize, rows: &[RolloutRow]) -> Outcome {
        write_rows(&self.part(round, chunk), rows)
    }

    /// Removes a part of a round, which is then made again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_chunk(&self, round: u64, chunk: usize) -> Outcome {
        Ok(setpoint_files::remove_tree(&self.part(round, chunk))?)
    }

    /// Writes a whole round, and removes its parts.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_round(&self, round: u64, stored: &StoredRound) -> Outcome {
        let path = self.path(round);
        write_rows(&path, &stored.rows)?;
        let (bytes, crc32c) = file_digest(&path)?;
        self.write_seal(round, &Seal { bytes, crc32c, mismatched: stored.mismatched.clone(), remains: None })?;
        Ok(setpoint_files::remove_tree(&self.parts(round))?)
    }

    fn write_seal(&self, round: u64, seal: &Seal) -> Outcome {
        let text = serde_json::to_string(seal)? + "\n";
        setpoint_files::write::<Failure>(&self.seal_path(round), |out| Ok(out.put(text.as_bytes())?))
    }

    fn seal(&self, round: u64) -> Outcome<Option<Seal>> {
        let path = self.seal_path(round);
        if !path.is_file() {
            return Ok(None);
        }
        parse(&path, &setpoint_files::read_text_up_to(&path, setpoint_files::LARGE)?).map(Some)
    }

    /// Removes the responses of a round, and keeps what later rounds follow from. A process that is killed meanwhile leaves a round that is
    /// removed when it is looked at next.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_round(&self, round: u64, remains: Remains) -> Outcome {
        let seal = Seal { bytes: 0, crc32c: String::new(), mismatched: Vec::new(), remains: Some(remains) };
        self.write_seal(round, &seal)?;
        Ok(setpoint_files::remove_tree(&self.path(round))?)
    }

    /// Returns what was kept of a round whose responses were removed.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn remains(&self, round: u64) -> Outcome<Option<Remains>> {
        let Some(remains) = self.seal(round)?.and_then(|seal| seal.remains) else { return Ok(None) };
        setpoint_files::remove_tree(&self.path(round))?;
        Ok(Some(remains))
    }

    /// Returns a whole round; `None` if it is not whole, or its responses were removed.
    ///
    /// # Errors
    /// When its file is gone, cannot be read or was changed.
    pub fn round(&self, round: u64) -> Outcome<Option<StoredRound>> {
        let path = self.path(round);
        let Some(seal) = self.seal(round)?.filter(|seal| seal.remains.is_none()) else { return Ok(None) };
        let remedy = "restore the file, or start another run: steps of this one were computed from its responses";
        if file_digest(&path).map_err(|error| Failure::from(error).hint(remedy))? != (seal.bytes, seal.crc32c) {
            return Err(Failure::run(format!("{} is not as the run left it", path.display())).hint(remedy));
        }
        // A process that died after it had sealed the round has left its parts.
        setpoint_files::remove_tree(&self.parts(round))?;
        Ok(Some(StoredRound { rows: read_rows(&path)?, mismatched: seal.mismatched }))
    }
}

fn write_origin(path: &Path, origin: &str) -> Outcome {
    setpoint_files::write::<Failure>(path, |out| Ok(out.put(format!("{origin}\n").as_bytes())?))
}

fn write_rows(path: &Path, rows: &[RolloutRow]) -> Outcome {
    setpoint_files::write::<Failure>(path, |out| {
        for row in rows {
            let tokens = row.token_logps.iter().chain(&row.ref_token_logps).chain(&row.sampling_token_logps).flatten();
            if let Some(wrong) = row.values.iter().flatten().find(|value| !value.is_finite()) {
                return Err(Failure::run(format!(
                    "{}: a value of a response to the prompt of row {} of the data is {wrong}",
                    path.display(),
                    row.row
                )));
            }
            let sums = row.logps.iter().chain(&row.ref_logps).chain(&row.sampling_logps);
            let mut numbers = sums.chain(tokens).chain([&row.ref_prompt_logp]);
            if let Some(wrong) = numbers.find(|number| !number.is_finite()) {
                return Err(Failure::run(format!(
                    "{}: a log-probability of a response to the prompt of row {} of the data is {wrong}",
                    path.display(),
                    row.row
                )));
            }
            let mut line = serde_json::to_vec(row)?;
            line.push(b'\n');
            out.put(&line)?;
        }
        Ok(())
    })
}

fn read_rows(path: &Path) -> Outcome<Vec<RolloutRow>> {
    let text = setpoint_files::read_text_up_to(path, setpoint_files::LARGE)?;
    let rows: Vec<RolloutRow> = text.lines().map(|line| parse(path, line)).collect::<Outcome<_>>()?;
    match rows.iter().position(|row| !row.is_whole()) {
        Some(at) => Err(Failure::run(format!(
            "{}:{} is damaged: it has not as many numbers as responses",
            path.display(),
            at + 1
        ))),
        None => Ok(rows),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Outcome<T> {
    serde_json::from_str(text).map_err(|e| Failure::run(format!("{} is damaged: {}", path.display(), words::json(&e))))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    fn row(row: usize) -> RolloutRow {
        RolloutRow {
            prompt: "a question".into(),
            responses: vec!["yes".into(), "no".into()],
            rewards: vec![Some(1.0 / 3.0), None],
            source_rewards: [("rule".to_owned(), vec![Some(0.1 + 0.2), None])].into(),
            row,
            tokens: vec![vec![4, 5], vec![6]],
            stopped: vec![true, false],
            logps: vec![-0.1 - 0.2, f64::MIN_POSITIVE],
            sampling_logps: vec![-0.3, 0.0],
            sampling_distances: vec![Distance { tokens: 2, sum: 0.1 + 0.2, max: 0.2 }, Distance::default()],
            sampling_token_logps: vec![vec![-0.1, -0.2], vec![0.0]],
            ref_logps: Vec::new(),
            ref_prompt_logp: 0.0,
            token_logps: vec![vec![-0.1, -0.2], vec![-1.0 / 7.0]],
            ref_token_logps: Vec::new(),
            values: vec![vec![0.1, 0.2, -1.0 / 3.0], vec![2.0]],
            template: Map::from_iter([("tools".to_owned(), Value::from("[]"))]),
        }
    }

    #[test]
    fn a_round_comes_back_to_the_bit_and_only_as_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let store = Store::open(&run, "a").unwrap();
        let whole = StoredRound { rows: vec![row(3), row(1)], mismatched: vec![vec![-1.0 / 7.0], vec![]] };
        store.write_chunk(0, 1, &whole.rows).unwrap();
        assert_eq!(store.chunk(0, 1).as_ref(), Some(&whole.rows));
        assert_eq!(store.chunk(0, 0), None);
        store.write_chunk(0, 3, &whole.rows).unwrap();
        store.remove_chunk(0, 3).unwrap();
        assert_eq!((store.chunk(0, 3), store.chunk(0, 1).is_some()), (None, true), "one part alone is gone");
        assert_eq!(store.round(0).unwrap(), None, "not whole yet");
        store.write_round(0, &whole).unwrap();
        assert_eq!(store.round(0).unwrap().as_ref(), Some(&whole));
        assert_eq!(store.chunk(0, 1), None, "the parts are gone");

        // Parts that a process left which died just after the round was whole go when it is read.
        store.write_chunk(0, 2, &whole.rows).unwrap();
        assert!(store.round(0).unwrap().is_some() && !store.parts(0).exists());

        // Another process of the same run finds it, one of other inputs does not.
        assert_eq!(Store::open(&run, "a").unwrap().round(0).unwrap().as_ref(), Some(&whole));
        let path = store.path(0);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("yes", "yea")).unwrap();
        let failure = store.round(0).unwrap_err().to_string();
        assert!(
            failure.contains("round-0000.jsonl is not as the run left it") && failure.contains("restore"),
            "{failure}"
        );
        assert_eq!(Store::open(&run, "b").unwrap().round(0).unwrap(), None);
    }

    #[test]
    fn rounds_that_an_earlier_build_noted_in_another_way_stay() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        Store::adopt(&run, "earlier", "now").unwrap();
        let whole = StoredRound { rows: vec![row(3)], mismatched: Vec::new() };
        Store::open(&run, "earlier").unwrap().write_round(0, &whole).unwrap();
        // Those of other inputs do not become its own.
        Store::adopt(&run, "other", "now").unwrap();
        assert_eq!(setpoint_files::read_text(&run.join("rollouts/origin")).unwrap(), "earlier\n");
        Store::adopt(&run, "earlier", "now").unwrap();
        assert_eq!(Store::open(&run, "now").unwrap().round(0).unwrap().as_ref(), Some(&whole));
        assert_eq!(Store::open(&run, "earlier").unwrap().round(0).unwrap(), None);
    }

    #[test]
    fn the_reward_of_the_second_source_is_kept_and_made_again_if_its_file_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let store = Store::open(&run, "a").unwrap();
        let watched = Some(SecondReward { reward: -1.0 / 3.0 });
        assert_eq!(store.watched(4), None);
        store.write_watched(4, watched).unwrap();
        store.write_watched(5, None).unwrap();
        assert_eq!((store.watched(4), store.watched(5)), (Some(watched), Some(None)));
        std::fs::write(store.watch_path(4), "{\"reward\":").unwrap();
        assert_eq!(store.watched(4), None);
    }

    #[test]
    fn a_round_whose_responses_were_removed_leaves_its_numbers_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let store = Store::open(&run, "a").unwrap();
        let whole = StoredRound { rows: vec![row(3)], mismatched: vec![vec![0.5]] };
        store.write_round(1, &whole).unwrap();
        assert_eq!(store.remains(1).unwrap(), None);
        let signs = RoundSigns { round: 1, kl: Some(1.0 / 3.0), ..RoundSigns::default() };
        let remains = Remains { signs, next: Some(OnlineState { kl_coef: 0.1 + 0.2, rewards: None }) };
        store.remove_round(1, remains).unwrap();
        assert_eq!((store.round(1).unwrap(), store.remains(1).unwrap()), (None, Some(remains)));
        assert!(!store.path(1).exists());
        // Killed between the two files.
        std::fs::write(store.path(1), "{}\n").unwrap();
        assert_eq!(store.remains(1).unwrap(), Some(remains));
        assert!(!store.path(1).exists());
        assert_eq!(store.remains(2).unwrap(), None);
    }

    #[test]
    fn a_part_that_is_damaged_is_made_again_and_a_wrong_number_is_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let store = Store::open(&run, "a").unwrap();
        store.write_chunk(2, 0, &[row(0)]).unwrap();
        let path = store.part(2, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        let few = |whole: &str, damaged: &str| {
            assert!(text.contains(whole), "{text}");
            text.replace(whole, damaged)
        };
        for damaged in [
            &text[..text.len() / 2],
            &few("\"stopped\":[true,false]", "\"stopped\":[true]"),
            &few("\"sampling_token_logps\":[[-0.1,-0.2],[0.0]]", "\"sampling_token_logps\":[[-0.1],[0.0]]"),
            // Neither a value for each token nor one more.
            &few("[2.0]]", "[2.0,2.0,2.0]]"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(store.chunk(2, 0), None, "{damaged}");
        }
        let wrong = RolloutRow { logps: vec![f64::NAN, 0.0], ..row(5) };
        let failure = store.write_chunk(2, 1, &[wrong]).unwrap_err().to_string();
        assert!(failure.contains("row 5 of the data is NaN"), "{failure}");
        let wrong = RolloutRow { values: vec![vec![f64::INFINITY, 0.0], vec![0.0]], ..row(6) };
        let failure = store.write_chunk(2, 1, &[wrong]).unwrap_err().to_string();
        assert!(failure.contains("a value of a response to the prompt of row 6 of the data is inf"), "{failure}");
    }
}
