//! Checkpoints: written beside their place, renamed when complete, checked before use.

use std::path::{Path, PathBuf};

use burn::module::Module;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_files::{create_dir, remove_tree, rename, sync_dir, words};

use crate::state_file::{self, OptimizerState};
use crate::storage::{self, Digest};
use crate::{AdamW, AdamWConfig, Change, Error, Identity, parameters};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// The manifest. It is written last, so a folder that has one is complete.
pub(crate) const STATE: &str = "state.json";
const PREFIX: &str = "step-";
const VERSION: u64 = 1;

/// `state.json`: the run's state, and what the other files must be like.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u64,
    step: u64,
    /// Settings and data the run was started with.
    identity: serde_json::Map<String, Value>,
    state: Value,
    files: Vec<FileEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileEntry {
    name: String,
    bytes: u64,
    crc32c: String,
}

impl FileEntry {
    /// Fails where the file is not the one that was written.
    fn check(&self, file: &Path) -> Result<(), Error> {
        let digest = Digest::of_file(file)?;
        if digest.bytes != self.bytes {
            return Err(Error::corrupt(file, format!("expected {} bytes, found {}", self.bytes, digest.bytes)));
        }
        let found = format!("{:08x}", digest.crc32c);
        if found != self.crc32c {
            return Err(Error::corrupt(file, format!("expected checksum {}, found {found}", self.crc32c)));
        }
        Ok(())
    }
}

/// The manifest with its own checksum.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Of the compact JSON of `manifest`.
    crc32c: String,
    manifest: Value,
}

/// A checkpoint that was found to be intact.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) path: PathBuf,
    manifest: Manifest,
}

/// Writes a checkpoint and returns its folder.
///
/// The folder appears under its name only when everything in it is on the disk. A checkpoint of the
/// same step is replaced. Without an optimizer, nothing can go on from it.
pub(crate) fn save<M: Module>(
    dir: &Path,
    step: u64,
    model: &M,
    optimizer: Option<&dyn OptimizerState>,
    identity: serde_json::Map<String, Value>,
    state: &impl Serialize,
) -> Result<PathBuf, Error> {
    create_dir(dir)?;
    let name = format!("{PREFIX}{step:08}");
    let unfinished = dir.join(format!("{}{name}", storage::UNFINISHED));
    let place = dir.join(&name);
    remove_tree(&unfinished)?;
    create_dir(&unfinished)?;
    let written = write(&unfinished, step, model, optimizer, identity, state).and_then(|()| {
        if place.exists() {
            storage::remove_dir(&place)?;
        }
        rename(&unfinished, &place)?;
        Ok(sync_dir(dir)?)
    });
    if let Err(error) = written {
        // A full disk is why writing fails most often: give the space back. Should that fail as
        // well, the next start does it.
        let _ = remove_tree(&unfinished);
        return Err(error);
    }
    Ok(place)
}

fn write<M: Module>(
    dir: &Path,
    step: u64,
    model: &M,
    optimizer: Option<&dyn OptimizerState>,
    identity: serde_json::Map<String, Value>,
    state: &impl Serialize,
) -> Result<(), Error> {
    let entry = |name: &str, digest: Digest| FileEntry {
        name: name.to_string(),
        bytes: digest.bytes,
        crc32c: format!("{:08x}", digest.crc32c),
    };
    let mut files = vec![entry(MODEL, parameters::save(model, &dir.join(MODEL))?)];
    if let Some(optimizer) = optimizer {
        files.push(entry(OPTIMIZER, state_file::save(optimizer, &dir.join(OPTIMIZER))?));
    }
    let path = dir.join(STATE);
    let state = to_value(&path, state)?;
    write_manifest(&path, &Manifest { version: VERSION, step, identity, state, files })
}

/// Replaces the state of a step's checkpoint at once. Its tensors stay as they are.
pub(crate) fn restate(dir: &Path, step: u64, state: &impl Serialize) -> Result<(), Error> {
    let path = path_of(dir, step).join(STATE);
    let manifest = read_manifest(&path)?;
    write_manifest(&path, &Manifest { state: to_value(&path, state)?, ..manifest })
}

fn to_value(path: &Path, value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::corrupt(path, error.to_string()))
}

fn write_manifest(path: &Path, manifest: &Manifest) -> Result<(), Error> {
    let manifest = to_value(path, manifest)?;
    let sealed = Sealed { crc32c: checksum(&manifest), manifest };
    let text = serde_json::to_string_pretty(&sealed).map_err(|error| Error::corrupt(path, error.to_string()))?;
    storage::write_file(path, text.as_bytes())
}

/// Reads a manifest and checks it against its own checksum.
fn read_manifest(path: &Path) -> Result<Manifest, Error> {
    let text = setpoint_files::read(path)?;
    let json = |error: serde_json::Error| Error::corrupt(path, words::json(&error));
    let sealed: Sealed = serde_json::from_slice(&text).map_err(json)?;
    let found = checksum(&sealed.manifest);
    if found != sealed.crc32c {
        return Err(Error::corrupt(path, format!("expected checksum {}, found {found}", sealed.crc32c)));
    }
    let manifest: Manifest = serde_json::from_value(sealed.manifest).map_err(json)?;
    if manifest.version != VERSION {
        return Err(Error::corrupt(path, format!("expected format version {VERSION}, found {}", manifest.version)));
    }
    Ok(manifest)
}

fn checksum(manifest: &Value) -> String {
    format!("{:08x}", crc32c::crc32c(manifest.to_string().as_bytes()))
}

/// Step and folder of each checkpoint, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse::<u64>().ok();
    let mut found: Vec<_> = storage::list(dir)?.into_iter().filter_map(|path| Some((step(&path)?, path))).collect();
    found.sort();
    Ok(found)
}

/// Folder of the checkpoint of a step.
pub(crate) fn path_of(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{step:08}"))
}

/// The newest intact checkpoint, `None` where there is none at all.
///
/// Damaged ones that are newer are moved aside and reported to `warn`.
///
/// # Errors
/// When checkpoints exist and all of them are damaged: starting over would throw a run away.
pub(crate) fn newest(dir: &Path, mut warn: impl FnMut(&str)) -> Result<Option<Checkpoint>, Error> {
    let mut reasons = vec![];
    let mut damaged: Vec<PathBuf> = vec![];
    for (_, path) in list(dir)?.into_iter().rev() {
        match Checkpoint::open(&path) {
            Ok(checkpoint) => {
                for path in &damaged {
                    set_aside(path)?;
                }
                if !reasons.is_empty() {
                    warn(&format!("{}; going on from {}", reasons.join("; "), checkpoint.path.display()));
                }
                return Ok(Some(checkpoint));
            }
            Err(error) => {
                reasons.push(error.to_string());
                damaged.push(path);
            }
        }
    }
    if reasons.is_empty() {
        return Ok(None);
    }
    Err(Error::NoUsableCheckpoint { path: dir.to_path_buf(), reasons })
}

/// The step of the newest checkpoint whose manifest is intact, and the settings and inputs that differ from those it was made with.
pub(crate) fn compare_newest(dir: &Path, identity: &Identity) -> Result<Option<(u64, Vec<Change>)>, Error> {
    let checkpoints = list(dir)?;
    let newest = checkpoints.iter().rev().find_map(|(_, path)| Checkpoint::read(path).ok());
    Ok(newest.map(|found| (found.manifest.step, identity.early_changes(&found.manifest.identity))))
}

/// Renames a damaged checkpoint, so that it can be looked at and is not taken for a good one.
fn set_aside(path: &Path) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("damaged-{name}"));
    remove_tree(&aside)?;
    Ok(rename(path, &aside)?)
}

/// Removes all but the last `keep_last` checkpoints and those of the steps in `keep`. Returns how many were removed.
pub(crate) fn prune(dir: &Path, keep_last: usize, keep: &[u64]) -> Result<usize, Error> {
    let mut found = list(dir)?;
    found.truncate(found.len().saturating_sub(keep_last));
    found.retain(|(step, _)| !keep.contains(step));
    found.iter().try_for_each(|(_, path)| storage::remove_dir(path))?;
    Ok(found.len())
}

impl Checkpoint {
    /// Reads the manifest and checks every file against it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let checkpoint = Self::read(path)?;
        for entry in &checkpoint.manifest.files {
            entry.check(&path.join(&entry.name))?;
        }
        Ok(checkpoint)
    }

    /// Reads the manifest alone.
    fn read(path: &Path) -> Result<Self, Error> {
        let manifest = read_manifest(&path.join(STATE))?;
        Ok(Self { path: path.to_path_buf(), manifest })
    }

    /// Refuses a run that is not the one that was saved. `now`: the identity of this process, as a checkpoint would hold it.
    pub(crate) fn check_identity(
        &self,
        identity: &Identity,
        now: &serde_json::Map<String, Value>,
    ) -> Result<(), Error> {
        let changes = identity.changes(&self.manifest.identity, now);
        if changes.is_empty() {
            return Ok(());
        }
        let differences = changes.iter().map(ToString::to_string).collect();
        Err(Error::Changed { path: self.path.clone(), differences })
    }

    /// The run's state.
    pub(crate) fn state<S: DeserializeOwned>(&self) -> Result<S, Error> {
        serde_json::from_value(self.manifest.state.clone())
            .map_err(|error| Error::corrupt(&self.path.join(STATE), error.to_string()))
    }

    /// Gives the model the saved parameters.
    pub(crate) fn load_model<M: Module>(&self, model: M) -> Result<M, Error> {
        parameters::load(model, &self.path.join(MODEL))
    }

    /// Returns whether it holds the optimizer.
    pub(crate) fn has_optimizer(&self) -> bool {
        self.manifest.files.iter().any(|file| file.name == OPTIMIZER)
    }

    /// The optimizer as it was, as far as it moves the parameters that `moves` is true for.
    ///
    /// # Errors
    /// When the checkpoint was saved without it.
    pub(crate) fn load_optimizer<M: Module>(
        &self,
        config: AdamWConfig,
        model: &M,
        moves: impl Fn(&str) -> bool,
    ) -> Result<AdamW, Error> {
        if !self.has_optimizer() {
            return Err(Error::NoOptimizer { path: self.path.clone() });
        }
        AdamW::load(config, model, &self.path.join(OPTIMIZER), moves)
    }
}
