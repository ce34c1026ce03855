//! The reward model: a decoder with one number on top.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use setpoint_train::{DeviceGroup, MicroBatch, distribute};
use setpoint_transformer::checkpoint::{self, LoadOptions, SaveOptions};
use setpoint_transformer::lora::{AdapterFolder, AdapterTask, HasDecoder, is_adapter_parameter};
use setpoint_transformer::{Architecture, CausalLm, Decoder, Linear, ModelConfig, RopeSwitch, Tape, init_weights};

use crate::error::Error;
use crate::normalization::Normalization;
use crate::rows::{Packed, groups};

/// A transformer that gives a token sequence a score.
///
/// The layout is that of Hugging Face's `LlamaForSequenceClassification` and `Qwen2ForSequenceClassification` with one label:
/// `model.*` and `score.weight` `[1, d]`, no bias.
///
/// The score is read from the **last token of the row, found by its length**. transformers looks for the last token that is not
/// `pad_token_id`, so where a response ends with that token (commonly `pad = eos`) it pools elsewhere; give the saved model a
/// `pad_token_id` that no response ends with if it is to score there as here.
#[derive(Module, Debug)]
pub struct RewardModel {
    /// The transformer.
    pub model: Decoder,
    /// The head, `[1, d]`.
    pub score: Linear,
}

/// The start of a new head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeadInit {
    /// Every response scores 0 before training.
    Zeros,
    /// Draws from N(0, std²) on the host.
    Normal {
        /// Standard deviation; [`HeadInit::small`] has the usual one.
        std: f64,
        /// Seed of the draw.
        seed: u64,
    },
}

impl HeadInit {
    /// Variance 1/(d + 1) for a model of width `d` (Stiennon et al. 2020, "Learning to summarize from human feedback"):
    /// scores in the order of 1 before training, whatever the width.
    pub fn small(config: &ModelConfig, seed: u64) -> Self {
        Self::Normal { std: (1.0 / (config.hidden_size as f64 + 1.0)).sqrt(), seed }
    }
}

impl RewardModel {
    /// A model of the given shape with norms of one and zeros elsewhere, to load weights into.
    pub fn zeros(config: &ModelConfig, device: &Device) -> Self {
        checkpoint::with_stable_ids(Self {
            model: Decoder::zeros(config, device),
            score: Linear::zeros(config.hidden_size, 1, false, device),
        })
    }

    /// A reward model on the decoder of a language model, whose own head is dropped; with the config it is saved with.
    ///
    /// The new head has the decoder's dtype and device.
    pub fn from_causal_lm(lm: CausalLm, config: &ModelConfig, head: HeadInit) -> (Self, ModelConfig) {
        let mut config = config.clone();
        config.architecture = Architecture::SequenceClassification;
        config.num_labels = 1;
        Normalization::write(None, &mut config);

        let embedding = &lm.model.embed_tokens.weight;
        let (device, dtype) = (embedding.lazy_device(), FloatDType::from(embedding.dtype()));
        let zeros = Linear::zeros(config.hidden_size, 1, false, &device);
        let mut score = match head {
            HeadInit::Zeros => zeros,
            HeadInit::Normal { std, seed } => init_weights(zeros, std, seed),
        };
        // Drawn in f32, kept in the number format of the others. A cast with a graph would leave no leaf to train.
        let value = score.weight.val().inner().cast(dtype);
        let value = if device.is_autodiff() { value.autodiff() } else { value };
        score.weight.set(value);
        (checkpoint::with_stable_ids(Self { model: lm.model, score }), config)
    }

    /// Reads a Hugging Face folder with a `*ForSequenceClassification` model of one label.
    ///
    /// On a device with autodiff the parameters require gradients.
    ///
    /// # Errors
    /// [`Error::NotARewardModel`] and [`Error::Labels`] for another model, [`Error::Normalization`] for a stored normalisation that
    /// is none, [`Error::Model`] for files that cannot be read.
    pub fn load(dir: &Path, options: &LoadOptions, device: &Device) -> Result<(Self, ModelConfig), Error> {
        let path = dir.join("config.json");
        let mut config = ModelConfig::from_file(&path)?;
        if config.architecture != Architecture::SequenceClassification {
            return Err(Error::NotARewardModel { path });
        }
        if config.num_labels != 1 {
            return Err(Error::Labels { path, found: config.num_labels });
        }
        Normalization::read(&config)?;
        let model = checkpoint::load_model(Self::zeros(&config, device), dir, options)?;
        config.dtype = Some(model.model.embed_tokens.weight.dtype().into());
        Ok((model, config))
    }

    /// Reads an adapter and its base: a sequence classifier, or a language model whose head gives way to the one that the adapter stores.
    ///
    /// # Errors
    /// The errors of [`load`](Self::load) and of [`AdapterFolder::load`]; [`Error::NotARewardModel`] for an adapter of a language model.
    pub fn load_adapter(
        adapter: &AdapterFolder,
        base: &Path,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Self, ModelConfig), Error> {
        if adapter.task == Some(AdapterTask::CausalLm) {
            return Err(Error::NotARewardModel { path: adapter.dir.clone() });
        }
        let (model, config) = if ModelConfig::from_dir(base)?.architecture == Architecture::SequenceClassification {
            Self::load(base, options, device)?
        } else {
            if !is_adapter_parameter(&adapter.config, "score.weight") {
                let message = "the base has no score head, and the adapter stores none (`score` in modules_to_save)";
                return Err(setpoint_transformer::Error::Adapter { message: message.to_owned() }.into());
            }
            let (lm, config) = CausalLm::load(base, options, device)?;
            Self::from_causal_lm(lm, &config, HeadInit::Zeros)
        };
        Ok((adapter.load(model)?, config))
    }

    /// Writes a Hugging Face folder that [`load`](Self::load) and transformers read.
    ///
    /// # Errors
    /// [`Error::Model`].
    pub fn save(&self, config: &ModelConfig, dir: &Path, options: &SaveOptions) -> Result<(), Error> {
        let mut config = config.clone();
        config.architecture = Architecture::SequenceClassification;
        config.num_labels = 1;
        Ok(checkpoint::save_model(self, &config, dir, options)?)
    }

    /// The device of the parameters, with autodiff where they have it.
    pub fn device(&self) -> Device {
        self.model.device()
    }

    /// Number of tokens that the model has embeddings for.
    pub fn vocabulary(&self) -> usize {
        self.model.embed_tokens.weight.lazy_shape()[0]
    }

    /// Scores rows of tokens in one forward pass, with its graph on a device with autodiff.
    ///
    /// The head is applied in f32, whatever the dtype of the model.
    ///
    /// # Shapes
    /// `n` rows of any lengths `-> [n]`, f32
    ///
    /// # Errors
    /// [`Error::Empty`] and [`Error::Token`] for a row that cannot be scored.
    ///
    /// # Panics
    /// If there are no rows.
    pub fn scores<R: AsRef<[u32]>>(&self, rows: &[R]) -> Result<Tensor<1>, Error> {
        let Packed { ids, packing, last, .. } = self.packed(rows)?;
        Ok(self.read(self.model.forward(ids, &packing, Some(&last))))
    }

    /// [`scores`](Self::scores) for an engine: the decoder's part of the backward pass is left to the tape, if there is one.
    ///
    /// # Errors
    /// As [`scores`](Self::scores).
    ///
    /// # Panics
    /// As [`scores`](Self::scores).
    pub fn scores_taped<R: AsRef<[u32]>>(&self, rows: &[R]) -> Result<(Tensor<1>, Option<Tape>), Error> {
        let Packed { ids, packing, last, .. } = self.packed(rows)?;
        let (hidden, tape) = self.model.forward_taped(ids, &packing, Some(&last));
        Ok((self.read(hidden), tape))
    }

    /// Computes the number that the head gives each token of some rows, from position `from[i]` of row `i` on: the values of a value
    /// network. The decoder's part of the backward pass is left to the tape, if there is one.
    ///
    /// # Shapes
    /// `n` rows of lengths `l` `-> [Σ (l_i − from_i)]`, f32, row after row
    ///
    /// # Errors
    /// As [`scores`](Self::scores).
    ///
    /// # Panics
    /// If there are no rows, or not a position inside of it for each row.
    pub fn values_taped<R: AsRef<[u32]>>(
        &self,
        rows: &[R],
        from: &[usize],
    ) -> Result<(Tensor<1>, Option<Tape>), Error> {
        assert_eq!(rows.len(), from.len(), "a position per row");
        let Packed { ids, packing, rows: places, .. } = self.packed(rows)?;
        let mut read = Vec::new();
        for ((row, &from), places) in rows.iter().zip(from).zip(&places) {
            assert!(from < row.as_ref().len(), "a position inside of its row");
            read.extend((from..row.as_ref().len()).map(|position| places.place(position)));
        }
        // Rows that begin alike are read at the same places.
        let mut wanted = read.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let (hidden, tape) = self.model.forward_taped(ids, &packing, Some(&wanted));
        let values = self.read(hidden); // [wanted]
        let index: Vec<i32> = read.iter().map(|place| wanted.partition_point(|other| other < place) as i32).collect();
        let device = values.device().without_autodiff();
        let index = Tensor::<1, Int>::from_data(index.as_slice(), &device);
        Ok((values.select(0, index), tape)) // [wanted] -> [values]
    }

    /// Checks and packs rows.
    fn packed<R: AsRef<[u32]>>(&self, rows: &[R]) -> Result<Packed, Error> {
        Ok(Packed::new(&self.checked(rows)?, self.model.rope_switch(), &self.device()))
    }

    /// Returns the rows as slices if every one can be scored.
    fn checked<'r, R: AsRef<[u32]>>(&self, rows: &'r [R]) -> Result<Vec<&'r [u32]>, Error> {
        let rows: Vec<&[u32]> = rows.iter().map(AsRef::as_ref).collect();
        for (i, row) in rows.iter().enumerate() {
            check_row(row, self.vocabulary(), || format!("sequence {i}"))?;
        }
        Ok(rows)
    }

    /// Applies the head: `[n, d] -> [n]`.
    fn read(&self, hidden: Tensor<2>) -> Tensor<1> {
        let weight = self.score.weight.val().cast(FloatDType::F32).transpose(); // [1, d] -> [d, 1]
        hidden.cast(FloatDType::F32).matmul(weight).squeeze_dim(1) // [n, d]·[d, 1] -> [n, 1] -> [n]
    }
}

impl HasDecoder for RewardModel {
    fn decoder(&self) -> &Decoder {
        &self.model
    }

    fn decoder_mut(&mut self) -> &mut Decoder {
        &mut self.model
    }
}

/// Scores any number of rows without a graph, in batches of at most `batch_tokens` tokens (a longer row goes alone). The devices share the
/// work; the model is on the first of them. `progress` hears the number of rows done.
///
/// A common beginning of rows, such as the prompt of several responses, is computed once. A row's score does not depend on the other
/// rows, but for the rounding of f32 sums.
///
/// # Errors
/// [`Error::Empty`] and [`Error::Token`] for a row that cannot be scored, before any is; [`Error::Device`].
pub fn score_rows<R: AsRef<[u32]>>(
    devices: &DeviceGroup,
    model: &RewardModel,
    rows: &[R],
    batch_tokens: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f64>, Error> {
    let model = model.valid();
    let rows = model.checked(rows)?;
    let batches = batches(&rows, batch_tokens, model.model.rope_switch());
    let mut scores = vec![0.0; rows.len()];
    let mut done = 0;
    let score = |model: &RewardModel, members: &Vec<usize>| {
        let batch: Vec<&[u32]> = members.iter().map(|&i| rows[i]).collect();
        to_host(model.scores(&batch)?)
    };
    distribute(devices, &model, &batches, score, &mut |members, found| {
        for (&i, score) in members.iter().zip(found) {
            scores[i] = f64::from(score);
        }
        done += members.len();
        progress(done);
        Ok(())
    })?;
    Ok(scores)
}

/// Computes [`RewardModel::values_taped`] of any number of rows without a graph, in batches of at most `batch_tokens` tokens. The devices
/// share the work; the model is on the first of them. Returns the values of each row.
///
/// # Errors
/// As [`score_rows`].
///
/// # Panics
/// If there is not a position inside of it for each row.
pub fn value_rows<R: AsRef<[u32]>>(
    devices: &DeviceGroup,
    model: &RewardModel,
    rows: &[R],
    from: &[usize],
    batch_tokens: usize,
) -> Result<Vec<Vec<f64>>, Error> {
    assert_eq!(rows.len(), from.len(), "a position per row");
    let model = model.valid();
    let rows = model.checked(rows)?;
    let batches = batches(&rows, batch_tokens, model.model.rope_switch());
    let mut values = vec![Vec::new(); rows.len()];
    let read = |model: &RewardModel, members: &Vec<usize>| {
        let batch: Vec<&[u32]> = members.iter().map(|&i| rows[i]).collect();
        let from: Vec<usize> = members.iter().map(|&i| from[i]).collect();
        to_host(model.values_taped(&batch, &from)?.0)
    };
    distribute(devices, &model, &batches, read, &mut |members: &Vec<usize>, found: Vec<f32>| {
        let mut found = found.into_iter().map(f64::from);
        for &i in members {
            values[i] = found.by_ref().take(rows[i].len() - from[i]).collect();
        }
        Ok(())
    })?;
    Ok(values)
}

/// Divides rows into batches of at most so many tokens; those that begin alike are in the same one.
fn batches(rows: &[&[u32]], batch_tokens: usize, switch: RopeSwitch) -> Vec<Vec<usize>> {
    let groups = groups(rows, batch_tokens, switch);
    let all: Vec<usize> = (0..groups.len()).collect();
    // The largest first, so that a batch too large for the memory fails at once.
    MicroBatch::Tokens(batch_tokens)
        .split(&all, |group| groups[group].cost)
        .into_iter()
        .map(|batch| batch.iter().flat_map(|&group| groups[group].rows.iter().copied()).collect())
        .collect()
}

/// Fails where a row has no tokens, or tokens that the model does not know.
pub(crate) fn check_row(row: &[u32], vocabulary: usize, place: impl Fn() -> String) -> Result<(), Error> {
    if row.is_empty() {
        return Err(Error::Empty { place: place() });
    }
    match row.iter().find(|id| **id as usize >= vocabulary) {
        Some(&id) => Err(Error::Token { place: place(), id, vocabulary }),
        None => Ok(()),
    }
}

/// An f32 tensor on the host.
///
/// # Shapes
/// `[n]`
pub(crate) fn to_host(tensor: Tensor<1>) -> Result<Vec<f32>, Error> {
    let failed = |message: String| Error::Device { message };
    let data = tensor.try_into_data().map_err(|error| failed(error.to_string()))?;
    data.try_to_vec().map_err(|error| failed(format!("{error:?}")))
}

#[cfg(test)]
#[path = "../../setpoint-transformer/tests/oracle.rs"]
mod oracle;

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "parity_tests.rs"]
mod parity_tests;
