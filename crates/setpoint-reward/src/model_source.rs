//! Rewards from a trained model.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use setpoint_train::DeviceGroup;
use setpoint_transformer::{LoadOptions, ModelConfig};

use crate::error::Error;
use crate::model::{RewardModel, check_row, score_rows};
use crate::normalization::Normalization;
use crate::source::{RewardSource, Scored};

/// Tokens of a batch, unless set.
const BATCH_TOKENS: usize = 8192;

/// Scores prompt and response with a [`RewardModel`].
#[derive(Debug, Clone)]
pub struct ModelSource {
    model: RewardModel,
    /// The devices that score; the model is on the first.
    devices: DeviceGroup,
    name: String,
    normalization: Option<Normalization>,
    batch_tokens: usize,
    padding: Option<u32>,
}

impl ModelSource {
    /// A source that scores with `model`, which reports call `name`. Raw scores; see [`normalized`](Self::normalized).
    pub fn new(model: RewardModel, name: impl Into<String>) -> Self {
        // Nothing is trained here, so no graph is kept.
        let devices = DeviceGroup::single(model.device());
        Self {
            model: model.valid(),
            devices,
            name: name.into(),
            normalization: None,
            batch_tokens: BATCH_TOKENS,
            padding: None,
        }
    }

    /// Reads the model from a Hugging Face folder; with `normalize`, its stored mean and standard deviation are applied.
    ///
    /// # Errors
    /// The errors of [`RewardModel::load`]; [`Error::NoNormalization`] where one is asked for and the model stores none.
    pub fn load(dir: &Path, options: &LoadOptions, normalize: bool, device: &Device) -> Result<Self, Error> {
        let (model, config) = RewardModel::load(dir, options, device)?;
        let source = Self::new(model, dir.display().to_string());
        if normalize { source.normalized_by(&config, dir) } else { Ok(source) }
    }

    /// Applies the mean and standard deviation that `config`, of the model in `dir`, stores.
    ///
    /// # Errors
    /// [`Error::NoNormalization`] if it stores none, [`Error::Normalization`] if what it stores is none.
    pub fn normalized_by(self, config: &ModelConfig, dir: &Path) -> Result<Self, Error> {
        match Normalization::read(config)? {
            Some(normalization) => Ok(self.normalized(normalization)),
            None => Err(Error::NoNormalization { place: dir.join("config.json").display().to_string() }),
        }
    }

    /// Applies `(score − mean) / std` to every score.
    pub fn normalized(mut self, normalization: Normalization) -> Self {
        self.normalization = Some(normalization);
        self
    }

    /// Tokens of a batch; 8192 unless set.
    pub fn with_batch_tokens(mut self, batch_tokens: usize) -> Self {
        self.batch_tokens = batch_tokens;
        self
    }

    /// Reads the score at the last token that is not `padding`, as transformers does whatever the row's length: for models whose
    /// `pad_token_id` is a token that responses end with. Unless set, it is read at the last token.
    pub fn before_padding(mut self, padding: Option<u32>) -> Self {
        self.padding = padding;
        self
    }

    /// Scores on all devices of a group; the model is on the first.
    pub fn on(mut self, devices: &DeviceGroup) -> Self {
        self.devices = devices.clone();
        self
    }
}

impl RewardSource for ModelSource {
    fn describe(&self) -> String {
        match self.normalization {
            None => format!("model {}", self.name),
            Some(Normalization { mean, std }) => format!("model {} (mean {mean}, std {std} taken out)", self.name),
        }
    }

    fn needs_tokens(&self) -> bool {
        true
    }

    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        let vocabulary = self.model.vocabulary();
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            // Without a response the score would be the prompt's.
            if item.response_ids.is_empty() {
                return Err(Error::MissingTokens { row: item.row, response: item.response_index });
            }
            let mut row = [item.prompt_ids, item.response_ids].concat();
            while row.len() > 1 && row.last().copied() == self.padding {
                row.pop();
            }
            check_row(&row, vocabulary, || format!("row {}, response {}", item.row, item.response_index))?;
            rows.push(row);
        }
        let mut scores = score_rows(&self.devices, &self.model, &rows, self.batch_tokens, progress)?;
        if let Some(normalization) = self.normalization {
            scores.iter_mut().for_each(|score| *score = normalization.apply(*score));
        }
        Ok(scores)
    }
}
