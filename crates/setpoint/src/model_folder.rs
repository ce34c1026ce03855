//! The folder of a model: a checkpoint, or an adapter in PEFT's layout with the checkpoint that it was trained on.

use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::json;
use setpoint_data::{HubModel, ModelNotes, hex};
use setpoint_reward::{Normalization, RewardModel};
use setpoint_transformer::lora::{AdapterFolder, AdapterTask};
use setpoint_transformer::{Architecture, CausalLm, LoadOptions, ModelConfig};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Outcome};
use crate::hub;

/// The note in an adapter's folder that identifies its base.
const BASE: &str = "base_hash";
/// The note of a reward adapter's padding token.
const PADDING: &str = "pad_token_id";
/// The note of a reward adapter's mean and deviation.
const SCALE: &str = "setpoint_reward";

/// The folder of a model.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// The folder as it was named.
    dir: PathBuf,
    /// The checkpoint, which is the folder itself if there is no adapter.
    base: PathBuf,
    adapter: Option<AdapterFolder>,
}

impl ModelFolder {
    /// Opens a folder, or a model on the hub, whose weights are downloaded when they are read. If it holds an adapter,
    /// `base_model_name_or_path` in its settings leads to the checkpoint: a path from the working directory or from the adapter's folder, or
    /// an id on the hub.
    ///
    /// # Errors
    /// When the adapter's settings cannot be read or honoured, or its base is neither on this machine nor on the hub.
    pub fn open(dir: &Path) -> Outcome<Self> {
        let dir = &hub::folder_of(dir)?;
        if !is_adapter(dir) {
            return Ok(Self { dir: dir.to_owned(), base: dir.to_owned(), adapter: None });
        }
        let adapter = AdapterFolder::open(dir)?;
        let base = base_of(&adapter)?;
        Ok(Self { dir: dir.to_owned(), base, adapter: Some(adapter) })
    }

    /// Opens an adapter on a base of the caller's choice.
    ///
    /// # Errors
    /// When the folder holds no adapter, or one whose settings cannot be read or honoured.
    pub(crate) fn open_on(dir: &Path, base: &Path) -> Outcome<Self> {
        let (dir, base) = (hub::folder_of(dir)?, hub::folder_of(base)?);
        let adapter = Some(AdapterFolder::open(&dir)?);
        Ok(Self { dir, base, adapter })
    }

    /// Returns the folder of the checkpoint.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Returns the adapter, if there is one.
    pub fn adapter(&self) -> Option<&AdapterFolder> {
        self.adapter.as_ref()
    }

    /// Returns the shape of the whole model.
    ///
    /// # Errors
    /// When config.json, or what the adapter stores instead, cannot be read.
    pub fn config(&self) -> Outcome<ModelConfig> {
        let mut config = ModelConfig::from_dir(&self.base)?;
        let Some(adapter) = &self.adapter else { return Ok(config) };
        if let Some(vocabulary) = adapter.vocab_size()? {
            config.vocab_size = vocabulary;
        }
        if is_reward(adapter) {
            config.architecture = Architecture::SequenceClassification;
            config.num_labels = 1;
            let notes = ModelNotes::read(&self.dir)?;
            if let Some(scale) = notes.get(SCALE) {
                config.set_extra(SCALE, scale.clone());
            }
            let padding = notes.get(PADDING).and_then(|id| id.as_u64()).and_then(|id| u32::try_from(id).ok());
            config.pad_token_id = padding.or(config.pad_token_id);
        }
        Ok(config)
    }

    /// Loads a language model, with its adapter if there is one.
    ///
    /// # Errors
    /// When files cannot be read, or the adapter was made for another base.
    pub(crate) fn load_policy(&self, options: &LoadOptions, device: &Device) -> Outcome<CausalLm> {
        self.complete(options)?;
        let (model, _) = CausalLm::load(&self.base, options, device)?;
        let Some(adapter) = &self.adapter else { return Ok(model) };
        self.check_base(adapter)?;
        Ok(adapter.load(model)?)
    }

    /// Loads a reward model, with its adapter if there is one, and its shape.
    ///
    /// # Errors
    /// The errors of [`load_policy`](Self::load_policy), and when it is no reward model.
    pub(crate) fn load_reward_model(
        &self,
        options: &LoadOptions,
        device: &Device,
    ) -> Outcome<(RewardModel, ModelConfig)> {
        self.complete(options)?;
        let Some(adapter) = &self.adapter else { return Ok(RewardModel::load(&self.base, options, device)?) };
        self.check_base(adapter)?;
        let (model, loaded) = RewardModel::load_adapter(adapter, &self.base, options, device)?;
        let mut config = self.config()?;
        config.dtype = loaded.dtype;
        Normalization::read(&config)?;
        Ok((model, config))
    }

    /// Downloads the weights, if the model is one of the hub and they are missing.
    fn complete(&self, options: &LoadOptions) -> Outcome {
        [&self.base, &self.dir].into_iter().try_for_each(|dir| hub::complete(dir, options.allow_pickle, &mut |_, _| {}))
    }

    /// Compares the base with the one that the adapter was trained on, if that is known, and says so.
    fn check_base(&self, adapter: &AdapterFolder) -> Outcome {
        let (shown, base) = (self.dir.display(), self.base.display());
        match noted_base(&self.dir)? {
            None => log::info!("adapter {shown} on {base}: shapes are compared, the hash of its base is not known"),
            Some(known) if known == checkpoint_hash(&self.base)? => {
                log::info!("adapter {shown} on {base}: it is the base that the adapter was trained on");
            }
            Some(_) => {
                return Err(on_other_base(&self.dir, &self.base)
                    .hint("name the folder of its own base in `base_model_name_or_path` of its adapter_config.json"));
            }
        }
        if let Some(rate) = adapter.config.dropout {
            log::debug!("{shown}: lora_dropout {rate} is for training and is not applied");
        }
        Ok(())
    }
}

/// Returns whether a folder holds an adapter rather than a checkpoint.
pub(crate) fn is_adapter(dir: &Path) -> bool {
    AdapterFolder::is_at(dir) && !dir.join("config.json").is_file()
}

/// Fails if a folder has its weights as a Python pickle alone, for the commands without a setting `allow_pickle`.
///
/// # Errors
/// [`Failure::Run`] that names the file.
pub(crate) fn refuse_pickle(dir: &Path) -> Outcome {
    let has = |name: &str| dir.join(name).exists();
    let pickle = ["pytorch_model.bin", "pytorch_model.bin.index.json"].into_iter().find(|name| has(name));
    match pickle.filter(|_| !has("model.safetensors") && !has("model.safetensors.index.json")) {
        Some(name) => Err(Failure::run(format!(
            "{}: {name} is a Python pickle, and this command reads safetensors alone",
            dir.display()
        ))
        .hint("save the model again with `save_pretrained` of transformers, which writes safetensors")),
        None => Ok(()),
    }
}

/// Returns whether an adapter makes its base a reward model.
pub fn is_reward(adapter: &AdapterFolder) -> bool {
    let stores_head = || adapter.config.modules_to_save.iter().any(|name| name == "score");
    adapter.task == Some(AdapterTask::SequenceClassification) || (adapter.task.is_none() && stores_head())
}

/// Returns the folder that holds a file of a model: its own, or that of its base if only that one has the file.
pub(crate) fn holding(dir: &Path, file: &str) -> PathBuf {
    if is_adapter(dir)
        && !dir.join(file).is_file()
        && let Ok(folder) = ModelFolder::open(dir)
    {
        return folder.base;
    }
    dir.to_owned()
}

/// Returns the hash of the base that an adapter was trained on, if its folder notes one.
fn noted_base(dir: &Path) -> Outcome<Option<String>> {
    Ok(ModelNotes::read(dir)?.get(BASE).and_then(|hash| hash.as_str()).map(str::to_owned))
}

/// Returns the failure of an adapter on a base that is not its own.
fn on_other_base(dir: &Path, base: &Path) -> Failure {
    let (shown, base) = (dir.display(), base.display());
    Failure::run(format!(
        "{shown}: this adapter was trained on another base than `{base}`: its weights or its config.json differ"
    ))
}

/// Notes in an adapter's folder which base it belongs to.
///
/// # Errors
/// When the base cannot be read or the notes cannot be written.
pub(crate) fn note_base(dir: &Path, base: &Path) -> Outcome {
    note(dir, BASE, json!(checkpoint_hash(base)?))
}

/// Notes in a reward adapter's folder what a reward model's config.json holds: its scale and its padding token.
///
/// # Errors
/// When the notes cannot be written.
pub(crate) fn note_reward(dir: &Path, config: &ModelConfig) -> Outcome {
    if let Some(scale) = config.extra(SCALE) {
        note(dir, SCALE, scale.clone())?;
    }
    if let Some(padding) = config.pad_token_id {
        note(dir, PADDING, json!(padding))?;
    }
    Ok(())
}

fn note(dir: &Path, key: &str, value: serde_json::Value) -> Outcome {
    let mut notes = ModelNotes::read(dir)?;
    notes.set(key, value);
    Ok(notes.write()?)
}

/// Finds the checkpoint that an adapter was trained on.
fn base_of(adapter: &AdapterFolder) -> Outcome<PathBuf> {
    let (shown, key) = (adapter.dir.display(), "base_model_name_or_path");
    let Some(name) = &adapter.base else {
        return Err(Failure::run(format!(
            "{shown}: adapter_config.json does not say which model it adapts: `{key}` is empty"
        ))
        .hint(format!("set `{key}` to the folder of the model that it was trained on")));
    };
    let places = [PathBuf::from(name), adapter.dir.join(name)];
    if let Some(found) = places.iter().find(|place| place.join("config.json").is_file()) {
        return Ok(found.clone());
    }
    if places.iter().any(|place| is_adapter(place)) {
        return Err(Failure::run(format!("{shown} adapts `{name}`, which is an adapter itself"))
            .hint("merge that one into its base first: setpoint merge"));
    }
    let hint =
        format!("put it there, or set `{key}` in its adapter_config.json to the folder or the hub id of its base");
    let failed = |more: &str| {
        let message =
            format!("{shown}: the model that it adapts, `{name}`, is not a model folder on this machine{more}");
        Failure::run(message).hint(hint.clone())
    };
    // As with any model: an id is none below a folder.
    let owner = name.split('/').next().unwrap_or_default();
    let is_local = Path::new(owner).exists() || adapter.dir.join(owner).exists();
    match HubModel::parse(name).filter(|_| !is_local) {
        Some(model) => {
            let revision = adapter.revision.clone().unwrap_or(model.revision);
            hub::fetched(&HubModel { revision, ..model })
                .map_err(|found| failed(&format!(", and {}", found.sentence())))
        }
        None => Err(failed("")),
    }
}

/// Hashes everything that decides what a model computes: config.json and the bytes of its weights, and with an adapter its settings and
/// factors as well.
///
/// # Errors
/// When files cannot be read.
pub fn model_hash(dir: &Path) -> Outcome<String> {
    let dir = &hub::folder_of(dir)?;
    if !is_adapter(dir) {
        return checkpoint_hash(dir);
    }
    let folder = ModelFolder::open(dir)?;
    with_adapter(&checkpoint_hash(&folder.base)?, dir)
}

/// Hashes an adapter on a base of the caller's choice: the [`model_hash`] of the adapter, if that is the base that it names.
///
/// # Errors
/// When files cannot be read, or the adapter was trained on another base.
pub(crate) fn hash_on(dir: &Path, base: &Path) -> Outcome<String> {
    let (dir, base) = (&hub::folder_of(dir)?, &hub::folder_of(base)?);
    let own = checkpoint_hash(base)?;
    match noted_base(dir)? {
        Some(noted) if noted != own => {
            Err(on_other_base(dir, base).hint("give the model that it was trained on (--model)"))
        }
        _ => with_adapter(&own, dir),
    }
}

/// Adds the settings and factors of an adapter to the hash of its base.
fn with_adapter(base: &str, dir: &Path) -> Outcome<String> {
    hub::complete(dir, false, &mut |_, _| {})?;
    let mut hash = Sha256::new();
    hash.update(base);
    add_files(&mut hash, dir, &|file| has_weights(file) || file.ends_with("adapter_config.json"))?;
    Ok(hex(&hash.finalize()))
}

/// Hashes the config.json and the weights in a folder.
fn checkpoint_hash(dir: &Path) -> Outcome<String> {
    hub::complete(dir, false, &mut |_, _| {})?;
    let mut hash = Sha256::new();
    // Pickles are only read if there are no safetensors.
    let mut entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_pickled = !entries.any(|entry| has_weights(&entry.path()));
    let wanted = |file: &Path| has_weights(file) || file.ends_with("config.json") || (is_pickled && is_pickle(file));
    add_files(&mut hash, dir, &wanted)?;
    Ok(hex(&hash.finalize()))
}

/// Returns whether a file is `pytorch_model.bin` or one of its shards.
fn is_pickle(file: &Path) -> bool {
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.starts_with("pytorch_model") && name.ends_with(".bin")
}

fn has_weights(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "safetensors")
}

/// Adds the names and contents of the files in a folder that are `wanted`.
fn add_files(hash: &mut Sha256, dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Outcome {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|e| Failure::run(format!("cannot list {}: {e}", dir.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| wanted(file))
        .collect();
    files.sort();
    for file in files {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        hash.update(name.as_bytes());
        let failed = |e: std::io::Error| Failure::run(format!("cannot read {}: {e}", file.display()));
        let mut reader = setpoint_files::open(&file)?;
        std::io::copy(&mut reader, &mut HashWriter(hash)).map_err(failed)?;
    }
    Ok(())
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
