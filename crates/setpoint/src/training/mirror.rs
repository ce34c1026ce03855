//! The mirror of a run, `train.mirror`: what is checked before the run, and how a run whose folder is gone comes back from it.

use std::path::{Path, PathBuf};

use setpoint_train::RunDir;
use toml::{Table, Value};

use super::record::{CONFIG, RECORD};
use crate::failure::{Failure, Outcome};

/// The setting.
pub(crate) const MIRROR: &str = "train.mirror";

/// Fails if the mirror of a run cannot be its mirror: within its folder, or with another run in it.
///
/// # Errors
/// [`Failure::Usage`] that names the setting.
pub fn check(folder: &Path, settings: &Table, resume: bool) -> Outcome {
    let Some(mirror) = setting(settings) else { return Ok(()) };
    let shown = mirror.display();
    let wrong = |message: String| Err(Failure::usage(MIRROR, message));
    let (run, place) = (whole(folder), whole(&mirror));
    if run == place {
        if resume {
            // The folder of the run is gone, and the run goes on here.
            return Ok(());
        }
        return wrong(format!("`{shown}` is the run folder itself: name a folder on another disk or machine"));
    }
    if place.starts_with(&run) {
        return wrong(format!("`{shown}` is in the run folder: name a folder on another disk or machine"));
    }
    if !RunDir::is_mirror(&mirror) {
        return Ok(());
    }
    if !resume {
        return wrong(format!("`{shown}` holds a run: go on with it by --resume, or name another folder"));
    }
    match [folder, mirror.as_path()].map(|dir| setpoint_files::read(&dir.join(RECORD)).ok()) {
        [Some(own), Some(other)] if own != other => {
            wrong(format!("`{shown}` holds another run than {}: name another folder", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a run folder that is gone again from the mirror that the settings name, and says so. A folder with a run stays as it is.
///
/// # Errors
/// When the mirror cannot be read or the folder cannot be written.
pub fn restore(folder: &Path, settings: &Table) -> Outcome {
    let Some(mirror) = setting(settings) else { return Ok(()) };
    // The settings come last: a folder without them was restored in part at most.
    if folder.join(CONFIG).is_file() || whole(folder) == whole(&mirror) {
        return Ok(());
    }
    if !RunDir::is_mirror(&mirror) || !mirror.join(CONFIG).is_file() {
        return Ok(());
    }
    log::info!("{} is gone: it is restored from its mirror {}", folder.display(), mirror.display());
    Ok(RunDir::restore(folder, &mirror, CONFIG)?)
}

/// Returns the mirror that a table of settings names.
fn setting(settings: &Table) -> Option<PathBuf> {
    let (section, name) = MIRROR.split_once('.')?;
    settings.get(section)?.get(name).and_then(Value::as_str).map(PathBuf::from)
}

/// Returns a path from the root, with links followed as far as it exists.
fn whole(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        if let Ok(found) = above.canonicalize() {
            return path.strip_prefix(above).map_or(found.clone(), |rest| found.join(rest));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings(mirror: &Path) -> Table {
        format!("[train]\nmirror = {:?}", mirror.display().to_string()).parse().unwrap()
    }

    #[test]
    fn a_mirror_is_no_part_of_its_run_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let [run, mirror] = ["run", "mirror"].map(|name| dir.path().join(name));
        let said =
            |mirror: &Path, resume| check(&run, &settings(mirror), resume).err().map(|failure| failure.to_string());
        assert_eq!(said(&mirror, false), None);
        assert!(said(&run, false).is_some_and(|text| text.contains("is the run folder itself")));
        assert!(said(&run.join("a/b"), false).is_some_and(|text| text.contains("is in the run folder")));
        for (place, record) in [(&run, "mine"), (&mirror, "mine")] {
            fs::create_dir_all(place.join("checkpoints/step-00000001")).unwrap();
            fs::write(place.join(RECORD), record).unwrap();
        }
        assert!(said(&mirror, false).is_some_and(|text| text.contains("holds a run: go on with it by --resume")));
        assert_eq!(said(&mirror, true), None);
        assert_eq!(said(&run, true), None);
        fs::write(mirror.join(RECORD), "another").unwrap();
        assert!(said(&mirror, true).is_some_and(|text| text.contains("holds another run than")));
    }

    #[test]
    fn only_a_folder_without_a_run_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let [run, mirror] = ["run", "mirror"].map(|name| dir.path().join(name));
        let settings = settings(&mirror);
        restore(&run, &settings).unwrap();
        assert!(!run.exists(), "there is no mirror yet");
        fs::create_dir_all(mirror.join("checkpoints/step-00000001")).unwrap();
        fs::write(mirror.join("checkpoints/step-00000001/state.json"), "{}").unwrap();
        fs::write(mirror.join(CONFIG), "seed = 1").unwrap();
        restore(&run, &settings).unwrap();
        assert_eq!(fs::read_to_string(run.join(CONFIG)).unwrap(), "seed = 1");
        assert!(run.join("checkpoints/step-00000001/state.json").is_file());
        fs::write(run.join(CONFIG), "seed = 2").unwrap();
        restore(&run, &settings).unwrap();
        assert_eq!(fs::read_to_string(run.join(CONFIG)).unwrap(), "seed = 2");
    }
}
