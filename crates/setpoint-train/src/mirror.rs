//! A second folder that gets every checkpoint of a run, for machines that can be taken away at any moment.
//!
//! A mirror is a run folder itself, without what can be made again from a checkpoint: the finished model, kept models and TensorBoard's
//! files. Logs are copied before the checkpoint that counts on them, and each checkpoint appears under its name only when all of it is on
//! the disk. So the newest checkpoint of a mirror can be gone on with at any moment.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use setpoint_files::{Writer, create_dir, remove_tree, rename, sync_dir};

use crate::{Error, RunDir, checkpoint, storage};

/// Folders of a run that a mirror does without.
const LEFT_OUT: [&str; 5] = [RunDir::CHECKPOINTS, RunDir::TENSORBOARD, "model", "value", "steps"];
/// Copies of the metrics for other tools, which change while a mirror is written. A run that is restored makes them again.
const OF_A_TRACKER: [&str; 5] = ["metrics.csv", "tracker", "tracker.json", "tracker.log", "tracker.py"];
/// Files of a run that belong to a process or to a finished run.
const OF_A_PROCESS: [&str; 2] = [RunDir::LOCK, "finished.json"];
/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;
/// More folders below each other than a run has.
const DEEPEST: usize = 8;

/// The mirror of a run.
#[derive(Debug)]
pub(crate) struct Mirror {
    dir: PathBuf,
}

impl Mirror {
    /// Opens the mirror of a run that has done so many steps. Checkpoints of later steps, and what a process that died has left, go.
    pub(crate) fn open(dir: &Path, step: u64) -> Result<Self, Error> {
        let checkpoints = dir.join(RunDir::CHECKPOINTS);
        create_dir(&checkpoints)?;
        storage::remove_unfinished(dir)?;
        storage::remove_unfinished(&checkpoints)?;
        for (later, path) in checkpoint::list(&checkpoints)? {
            if later > step {
                storage::remove_dir(&path)?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Copies the logs, settings and notes of a run, and then the checkpoint of a step. Of a checkpoint that is there already, only the
    /// state is replaced.
    pub(crate) fn update(&self, run: &RunDir, step: u64, keep_last: usize, keep: &[u64]) -> Result<(), Error> {
        let checkpoints = self.dir.join(RunDir::CHECKPOINTS);
        copy_changed(run.path(), &self.dir, 0)?;
        let (from, to) = (checkpoint::path_of(&run.checkpoints_path(), step), checkpoint::path_of(&checkpoints, step));
        if to.is_dir() {
            copy_file(&from.join(checkpoint::STATE), &to.join(checkpoint::STATE))?;
        } else {
            copy_whole(&from, &to)?;
        }
        checkpoint::prune(&checkpoints, keep_last, keep).map(|_| ())
    }
}

impl RunDir {
    /// Returns whether a folder holds a run with a checkpoint, as a mirror does.
    pub fn is_mirror(dir: impl AsRef<Path>) -> bool {
        let found = checkpoint::list(&dir.as_ref().join(Self::CHECKPOINTS));
        found.is_ok_and(|checkpoints| !checkpoints.is_empty())
    }

    /// Makes a run folder of its mirror, in a place where no run is. The file `last` comes last: a folder that has it is complete.
    ///
    /// # Errors
    /// When the mirror cannot be read or the folder cannot be written.
    pub fn restore(path: impl AsRef<Path>, mirror: impl AsRef<Path>, last: &str) -> Result<(), Error> {
        let (path, mirror) = (path.as_ref(), mirror.as_ref());
        let checkpoints = path.join(Self::CHECKPOINTS);
        create_dir(&checkpoints)?;
        for (step, from) in checkpoint::list(&mirror.join(Self::CHECKPOINTS))? {
            let to = checkpoint::path_of(&checkpoints, step);
            if !to.is_dir() {
                copy_whole(&from, &to)?;
            }
        }
        let _ = fs::remove_file(path.join(last));
        copy_all(mirror, path, 0, &|name| name != last)?;
        copy_file(&mirror.join(last), &path.join(last))
    }
}

/// Copies the files of a folder that differ in length or are newer, and the folders within it.
fn copy_changed(from: &Path, to: &Path, depth: usize) -> Result<(), Error> {
    copy_all(from, to, depth, &|_| true)
}

fn copy_all(from: &Path, to: &Path, depth: usize, wanted: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    for path in storage::list(from)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let left_out = [&LEFT_OUT[..], &OF_A_TRACKER, &OF_A_PROCESS].concat();
        if depth == 0 && left_out.contains(&name) || name.starts_with('.') || !wanted(name) {
            continue;
        }
        // Whatever is left out may be gone by now.
        let found = fs::symlink_metadata(&path).map_err(Error::io("read", &path))?;
        let target = to.join(name);
        if found.is_dir() && depth < DEEPEST {
            create_dir(&target)?;
            copy_all(&path, &target, depth + 1, wanted)?;
        } else if found.is_file() && !is_same(&found, &target) {
            copy_file(&path, &target)?;
        }
    }
    Ok(())
}

/// Returns whether a copy has the length of the file and is not older.
fn is_same(file: &fs::Metadata, copy: &Path) -> bool {
    let Ok(copy) = fs::metadata(copy) else { return false };
    let times = (file.modified(), copy.modified());
    copy.len() == file.len() && matches!(times, (Ok(of_file), Ok(of_copy)) if of_copy > of_file)
}

/// Copies a file, so that a reader sees the old one or the new one.
fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    setpoint_files::replace(to, storage::UNFINISHED, |out| pour(from, out))
}

/// Copies a folder of files, which appears under its name when all of it is on the disk.
fn copy_whole(from: &Path, to: &Path) -> Result<(), Error> {
    let parent = to.parent().unwrap_or(Path::new("."));
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = parent.join(format!("{}{name}", storage::UNFINISHED));
    remove_tree(&unfinished)?;
    create_dir(&unfinished)?;
    let copied = storage::list(from)?.into_iter().try_for_each(|file| -> Result<(), Error> {
        let mut out = Writer::create(&unfinished.join(file.file_name().unwrap_or_default()))?;
        pour(&file, &mut out)?;
        Ok(out.finish()?)
    });
    let placed = copied.and_then(|()| {
        sync_dir(&unfinished)?;
        rename(&unfinished, to)?;
        Ok(sync_dir(parent)?)
    });
    if placed.is_err() {
        // The space is needed, and the error that led here matters more than one of removing it.
        let _ = remove_tree(&unfinished);
    }
    placed
}

/// Writes the content of a file.
fn pour(from: &Path, out: &mut Writer) -> Result<(), Error> {
    let mut source = setpoint_files::open(from)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = source.read(&mut buffer).map_err(Error::io("read", from))?;
        if count == 0 {
            return Ok(());
        }
        out.put(&buffer[..count])?;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::common::{Bag, Recorder, Regression, metrics_without_times};
    use crate::{Fitted, MicroBatch, TrainConfig, fit};

    fn config(mirror: Option<PathBuf>) -> TrainConfig {
        TrainConfig {
            batch_size: 4,
            micro_batch: MicroBatch::Examples(4),
            max_steps: Some(6),
            learning_rate: 0.03,
            logging_steps: 2,
            save_steps: Some(1),
            keep_last: 2,
            mirror,
            ..TrainConfig::default()
        }
    }

    fn train(path: &Path, mirror: Option<&Path>, hooks: &mut Recorder) -> Fitted<Bag> {
        let run = if path.exists() { RunDir::open(path) } else { RunDir::create(path) }.unwrap();
        if !run.join("config.toml").exists() {
            run.write_text("config.toml", "settings").unwrap();
        }
        let model = Bag::new(&Device::flex().autodiff());
        fit(&Regression::new(10), model, &config(mirror.map(Path::to_owned)), &run, hooks).unwrap()
    }

    fn steps(path: &Path) -> Vec<u64> {
        let found = checkpoint::list(&path.join(RunDir::CHECKPOINTS)).unwrap();
        found.into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn a_run_that_is_gone_goes_on_from_its_mirror_to_the_same_bits() {
        let dir = tempfile::tempdir().unwrap();
        let [whole, run, mirror, back] = ["whole", "run", "mirror", "back"].map(|name| dir.path().join(name));
        let expected = train(&whole, None, &mut Recorder::default());
        let mut stopping = Recorder { stop_after: Some(3), ..Recorder::default() };
        train(&run, Some(&mirror), &mut stopping);
        assert!(stopping.warnings.is_empty(), "{:?}", stopping.warnings);
        assert_eq!(steps(&mirror), [2, 3]);
        assert!(!mirror.join(RunDir::LOCK).exists() && !mirror.join(RunDir::TENSORBOARD).exists());
        fs::remove_dir_all(&run).unwrap();
        assert!(RunDir::is_mirror(&mirror) && !RunDir::is_mirror(&run));
        RunDir::restore(&back, &mirror, "config.toml").unwrap();
        assert_eq!(fs::read_to_string(back.join("config.toml")).unwrap(), "settings");
        let resumed = train(&back, Some(&mirror), &mut Recorder::default());
        assert_eq!(resumed.model.bits(), expected.model.bits());
        assert_eq!(metrics_without_times(&back), metrics_without_times(&whole));
        // The mirror has gone along, its last state included.
        assert_eq!(steps(&mirror), [5, 6]);
        let states = [&back, &mirror].map(|path| {
            let newest = checkpoint::path_of(&path.join(RunDir::CHECKPOINTS), 6);
            fs::read_to_string(newest.join(checkpoint::STATE)).unwrap()
        });
        assert_eq!(states[0], states[1]);
    }

    #[test]
    fn a_mirror_that_fails_is_told_and_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let expected = train(&dir.path().join("whole"), None, &mut Recorder::default());
        let file = dir.path().join("file");
        fs::write(&file, "no folder").unwrap();
        let mut hooks = Recorder::default();
        let fitted = train(&dir.path().join("run"), Some(&file.join("mirror")), &mut hooks);
        assert_eq!(fitted.model.bits(), expected.model.bits());
        assert!(!hooks.warnings.is_empty());
        for warning in &hooks.warnings {
            assert!(warning.contains("is not mirrored to") && !warning.contains('\n'), "{warning}");
        }
    }

    #[test]
    fn later_checkpoints_of_a_mirror_are_not_of_this_run() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = dir.path().join(RunDir::CHECKPOINTS);
        for name in ["step-00000002", "step-00000009", ".unfinished-step-00000003"] {
            fs::create_dir_all(checkpoints.join(name)).unwrap();
        }
        Mirror::open(dir.path(), 2).unwrap();
        assert_eq!(steps(dir.path()), [2]);
        assert_eq!(fs::read_dir(&checkpoints).unwrap().count(), 1);
    }

    #[test]
    fn copies_for_other_tools_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let [run, mirror] = ["run", "mirror"].map(|name| dir.path().join(name));
        fs::create_dir_all(run.join("tracker/mlruns")).unwrap();
        for name in ["tracker/mlruns/meta.yaml", "tracker.json", "metrics.csv", "metrics.jsonl", "config.toml"] {
            fs::write(run.join(name), "x").unwrap();
        }
        create_dir(&mirror).unwrap();
        copy_changed(&run, &mirror, 0).unwrap();
        let mut names: Vec<_> = fs::read_dir(&mirror).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["config.toml", "metrics.jsonl"]);
    }
}
