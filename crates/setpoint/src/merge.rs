//! `setpoint merge`: a model with the updates of an adapter added to its weights.

use std::path::{Path, PathBuf};

use burn::tensor::{FloatDType, Int, Tensor, TensorData, activation};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use setpoint_data::{ModelNotes, TextEncoder};
use setpoint_reward::RewardModel;
use setpoint_transformer::lora::merged;
use setpoint_transformer::{
    Architecture, CausalLm, GenerationConfig, LoadOptions, ModelConfig, Packing, SaveOptions, pack,
};

use crate::card;
use crate::config::output::{Target, require_target};
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::fetching::fetch_weights_of;
use crate::hub;
use crate::model_folder::{ModelFolder, is_adapter, refuse_pickle};
use crate::saving::{Saving, save_policy};
use crate::session::{Existing, Session};
use crate::setup;

/// Rows that both models compute, and the tokens of each.
const ROWS: usize = 8;
const TOKENS: usize = 32;

/// The greatest difference of the log-probability of a token, or of a score, as a root mean square in nats, between a model with an adapter
/// and the merged one. Rounding weights to bf16 costs a hundredth of that.
const MOST: f64 = 0.5;

/// The greatest difference of scores as a share of their root mean square, if that allows more: large scores are rounded by more.
const MOST_OF_SCORES: f64 = 1.0 / 32.0;

/// The settings of a merge.
#[derive(Debug, Clone)]
pub struct MergeSettings {
    /// The folder of the adapter.
    pub model: PathBuf,
    /// The folder of its base, if it is not the one that the adapter names.
    pub base: Option<PathBuf>,
    /// The folder that is written.
    pub output: PathBuf,
    /// The number format of the merged weights; by default that of the base.
    pub dtype: Option<FloatDType>,
    /// The treatment of a model that exists there. [`Existing::Continue`] is no choice here: it counts as [`Existing::Refuse`].
    pub existing: Existing,
}

/// The result of a merge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Merged {
    /// The distance of the merged model from the one with its adapter, as a root mean square over tokens: of their log-probabilities in
    /// nats, or of the score of a reward model.
    pub difference: f64,
    /// True if it is a reward model.
    pub is_reward: bool,
}

/// Adds the updates of an adapter to the weights of its base, in f32 and rounded once, and writes the result as a Hugging Face folder.
///
/// The written model is read again and compared with the adapter on its base.
///
/// # Errors
/// [`Failure::Usage`] for the paths; [`Failure::Run`] for files that cannot be read or written, for an adapter that does not fit its base,
/// and when the merged model computes something else.
pub fn merge(session: &Session, settings: &MergeSettings) -> Outcome<Merged> {
    let MergeSettings { model, base, output, dtype, existing } = settings;
    let dir = &hub::folder_of(model)?;
    if !is_adapter(dir) {
        let message = format!("`{}` holds no adapter (adapter_config.json)", model.display());
        return Err(Failure::usage("--model", message));
    }
    require_target(output, Target::Folder, "--output")?;
    let folder = match base {
        Some(base) if is_adapter(&hub::folder_of(base)?) => {
            let message = format!("`{}` is an adapter itself: merge that one into its base first", base.display());
            return Err(Failure::usage("--base", message));
        }
        Some(base) => ModelFolder::open_on(dir, base)?,
        None => ModelFolder::open(dir)?,
    };
    // Also under another name, or through a link.
    let is_output = |path: &Path| path.canonicalize().ok().is_some_and(|path| output.canonicalize().ok() == Some(path));
    if let Some(source) = [dir.as_path(), folder.base()].into_iter().find(|path| is_output(path)) {
        let message = format!("`{}` is read for the merge: choose another folder to write to", source.display());
        return Err(Failure::usage("--output", message));
    }
    if *existing != Existing::Overwrite && output.join("config.json").exists() {
        return Err(Failure::run(format!("{} holds a model already", output.display()))
            .hint("give --overwrite to replace it, or another --output"));
    }
    refuse_pickle(folder.base())?;
    // An adapter that PEFT wrote has neither a tokenizer nor settings of sampling of its own.
    let holding = |file: &str| if dir.join(file).is_file() { dir.clone() } else { folder.base().to_owned() };
    let from = holding("generation_config.json");
    let section = ModelSection {
        path: Some(from.clone()),
        tokenizer: Some(holding("tokenizer.json")),
        ..ModelSection::default()
    };
    let encoder = setup::encoder(&section)?;
    let config = folder.config()?;
    encoder.check_vocabulary(config.vocab_size)?;
    for folder in [dir.as_path(), folder.base()] {
        fetch_weights_of(session, folder, false)?;
    }
    // Weights that change their format are added in f32.
    let changes = dtype.is_some() && *dtype != config.dtype;
    let options = LoadOptions { dtype: changes.then_some(FloatDType::F32), ..LoadOptions::default() };
    let device = session.device();
    let rows = rows(config.vocab_size);
    let (merged, most) = if config.architecture == Architecture::SequenceClassification {
        let (model, config) = folder.load_reward_model(&options, device)?;
        let scores = |model: &RewardModel| -> Outcome<Vec<f64>> {
            let scores: Vec<f32> =
                model.scores(&rows)?.into_data().try_into_vec().map_err(|e| Failure::run(e.to_string()))?;
            Ok(scores.into_iter().map(f64::from).collect())
        };
        let (expected, sum) = (scores(&model)?, merged(model));
        require_finite(rms(&expected, &scores(&sum)?))?;
        save_reward(sum, &config, &encoder, dir, output, *dtype)?;
        let (again, _) = RewardModel::load(output, &options, device)?;
        let size = rms(&expected, &vec![0.0; expected.len()]);
        let difference = rms(&expected, &scores(&again)?);
        (Merged { difference, is_reward: true }, MOST.max(MOST_OF_SCORES * size))
    } else {
        let model = folder.load_policy(&options, device)?;
        let generation = GenerationConfig::for_model(&from, &config)?;
        let stop = encoder.template_stop().filter(|stop| generation.stop_token_ids.contains(stop));
        let saving =
            Saving { config: &config, encoder: &encoder, from: &section, stop, adaptation: None, dtype: *dtype };
        let (expected, sum) = (logps(&model, &rows)?, merged(model));
        require_finite(rms(&expected, &logps(&sum, &rows)?))?;
        save_policy(&sum, &saving, output)?;
        let (again, _) = CausalLm::load(output, &options, device)?;
        (Merged { difference: rms(&expected, &logps(&again, &rows)?), is_reward: false }, MOST)
    };
    check(&merged, most, output)?;
    if let Err(failure) = card::write_merged(dir, folder.base(), merged.is_reward, output) {
        log::warn!("{} gets no model card: {}", output.display(), failure.sentence());
    }
    Ok(merged)
}

/// Fails if a merged model, or the adapter on its base, computes no numbers: before anything is written.
fn require_finite(difference: f64) -> Outcome {
    if difference.is_finite() {
        return Ok(());
    }
    Err(Failure::run("the merged model would compute numbers that are not finite: nothing was written").hint(
        "look at what the adapter and its base generate: the numbers of one of them may be too large, or no numbers; or merge into a wider \
         format, as with --dtype f32",
    ))
}

/// Fails if a written model differs from the adapter on its base by more than `most`.
fn check(merged: &Merged, most: f64, output: &Path) -> Outcome {
    let Merged { difference, is_reward } = *merged;
    if difference <= most {
        return Ok(());
    }
    let unit = if is_reward { "a score" } else { "nats a token" };
    Err(Failure::run(format!(
        "the merged model in {} differs from the adapter on its base by {difference:.3} {unit}: do not use it",
        output.display(),
    ))
    .hint("merge into a wider format, as with --dtype f32"))
}

fn save_reward(
    model: RewardModel,
    config: &ModelConfig,
    encoder: &TextEncoder,
    from: &Path,
    output: &Path,
    dtype: Option<FloatDType>,
) -> Outcome {
    model.save(config, output, &SaveOptions { dtype, ..SaveOptions::default() })?;
    encoder.save(output)?;
    let mut notes = ModelNotes::read(output)?;
    if let Some(end) = ModelNotes::read(from)?.get("response_end") {
        notes.set("response_end", end.clone());
    }
    Ok(notes.write()?)
}

/// Returns rows of tokens, always the same for a vocabulary.
fn rows(vocabulary: usize) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut token = || ((u64::from(rng.next_u32()) * vocabulary as u64) >> 32) as u32;
    (0..ROWS).map(|_| (0..TOKENS).map(|_| token()).collect()).collect()
}

/// Returns the log-probability of each token but the first of each row, in nats.
fn logps(model: &CausalLm, rows: &[Vec<u32>]) -> Outcome<Vec<f64>> {
    let mut all = Vec::new();
    for row in rows {
        let hidden =
            model.decoder().forward(pack(&[row], &model.decoder().device()), &Packing::rows([row.len()]), None);
        // [t, v] -> [t - 1, v]
        let logits = model.logits(hidden).narrow(0, 0, row.len() - 1).cast(FloatDType::F32);
        let next: Vec<i32> = row[1..].iter().map(|&id| id as i32).collect();
        let next = Tensor::<1, Int>::from_data(TensorData::new(next, [row.len() - 1]), &logits.device());
        let logps = activation::log_softmax(logits, 1).gather(1, next.unsqueeze_dim(1));
        let logps: Vec<f32> = logps.into_data().try_into_vec().map_err(|error| Failure::run(error.to_string()))?;
        all.extend(logps.into_iter().map(f64::from));
    }
    Ok(all)
}

/// Returns the root mean square of the differences.
fn rms(a: &[f64], b: &[f64]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (sum / a.len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_model_that_computes_something_else_is_refused() {
        let said = |difference: f64, is_reward: bool, most: f64| {
            let checked = check(&Merged { difference, is_reward }, most, Path::new("merged"));
            checked.err().map(|failure| failure.to_string()).unwrap_or_default()
        };
        for (difference, is_reward, most) in
            [(1e-6, false, MOST), (1e-6, true, MOST), (0.4, false, MOST), (0.9, true, 1.0)]
        {
            assert_eq!(said(difference, is_reward, most), "");
        }
        for difference in [0.6, f64::INFINITY, f64::NAN] {
            assert!(said(difference, false, MOST).contains("differs from the adapter on its base"));
            assert!(said(difference, true, MOST).contains("a score: do not use it"));
        }
        assert!(said(f64::INFINITY, false, MOST).contains("--dtype f32"));
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused_before_anything_is_written() {
        assert!(require_finite(0.7).is_ok());
        for difference in [f64::INFINITY, f64::NAN] {
            assert!(require_finite(difference).unwrap_err().to_string().contains("nothing was written"));
        }
    }
}
