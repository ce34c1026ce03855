//! The divergence of one model from another at each token of some responses, summed over the vocabulary.
//!
//! The two models are in memory one after the other: of the first its last hidden states and its head are kept.

use std::borrow::Borrow;

use burn::module::{Module, Param, ParamId};
use burn::tensor::activation::log_softmax;
use burn::tensor::{FloatDType, Tensor, TensorData};
use setpoint_ops::linear;
use setpoint_transformer::{CausalLm, RopeSwitch, bound_logits};

use super::head::{CHUNK_BYTES, HeadOptions};
use super::score::{NumberedPass, Pass, Passes, ScoredSequence};
use super::sequence::Sequence;
use crate::devices::distribute;
use crate::{DeviceGroup, Error};

/// The predictions of a model at the tokens of some responses, kept when the model itself has left memory: its last hidden states, on
/// the host, and its head, on the device.
///
/// # Units
/// A token takes the bytes of one hidden state: 8 KiB for a bf16 model of width 4096.
#[derive(Clone, Debug)]
pub struct Predictions {
    /// Pass by pass, `[tokens, d]`.
    states: Vec<TensorData>,
    /// `[v, d]`
    head: Tensor<2>,
    /// The bound of the logits, if the model has one.
    logits_cap: Option<f64>,
    batch_tokens: usize,
    /// The model's, by which its passes were divided.
    switch: RopeSwitch,
}

impl Predictions {
    /// Returns whether another model predicts the same tokens: the rows of both heads are as many. Only then is there a divergence.
    pub fn fits(&self, model: &CausalLm) -> bool {
        self.head.dims()[0] == model.head_weight().dims()[0]
    }
}

/// A sequence under the second model, and how far the first is from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Log-probabilities under the second model.
    pub scored: ScoredSequence,
    /// `Σ_t Σ_v p(v | x, y_<t) · log( p(v | x, y_<t) / q(v | x, y_<t) )` over the tokens of the response, with `p` the first model and `q` the
    /// second.
    ///
    /// For responses sampled from `p` its mean is an unbiased estimate of `KL(p ‖ q)` of whole responses. It is the Rao–Blackwell estimator
    /// of Amini, Vieira and Cotterell (2025, <https://arxiv.org/abs/2504.10637>), whose variance is at most that of the log-ratio
    /// `log p(y) − log q(y)`.
    ///
    /// # Units
    /// Nats.
    pub kl: f64,
}

/// Scores sequences as [`score_batches`](crate::score_batches) does, and keeps what the model predicts at the tokens of their responses.
///
/// # Errors
/// The errors of [`score_batches`](crate::score_batches).
pub fn score_and_keep<S: Borrow<Sequence>>(
    devices: &DeviceGroup,
    model: &CausalLm,
    sequences: &[S],
    batch_tokens: usize,
    store: &mut dyn FnMut(Vec<(usize, ScoredSequence)>) -> Result<(), Error>,
) -> Result<Predictions, Error> {
    let model = model.valid();
    let passes = Passes::of(&model, sequences, batch_tokens)?;
    let mut states: Vec<Option<TensorData>> = vec![None; passes.all().len()];
    let compute = |model: &CausalLm, numbered: &NumberedPass| {
        let pass = passes.run(model, numbered);
        Ok((pass.scores(model, &HeadOptions::default()), pass.hidden.at(&pass.batch.responses).into_data()))
    };
    distribute(devices, &model, passes.all(), compute, &mut |&(number, _), (scored, kept)| {
        states[number] = Some(kept);
        store(scored)
    })?;
    // Every pass has come back.
    let states = states.into_iter().flatten().collect();
    let switch = model.decoder().rope_switch();
    Ok(Predictions { states, head: model.head_weight(), logits_cap: model.logits_cap(), batch_tokens, switch })
}

/// A model, and the head of the one that it is compared with.
#[derive(Module, Debug)]
struct WithHead {
    model: CausalLm,
    head: Param<Tensor<2>>,
}

/// Scores the sequences that `kept` is about under another model, and computes how far the first model is from it. The results are handed over
/// as [`score_batches`](crate::score_batches) hands over its own.
///
/// # Errors
/// The errors of [`score_batches`](crate::score_batches); [`Error::Forward`] for other sequences than those of `kept`, or if the vocabularies differ.
pub fn score_against<S: Borrow<Sequence>>(
    devices: &DeviceGroup,
    model: &CausalLm,
    kept: &Predictions,
    sequences: &[S],
    store: &mut dyn FnMut(Vec<(usize, Divergence)>) -> Result<(), Error>,
) -> Result<(), Error> {
    if !kept.fits(model) {
        let [first, second] = [&kept.head, &model.head_weight()].map(|head| head.dims()[0]);
        let reason = format!("two models of {first} and {second} tokens: a divergence needs the same vocabulary");
        return Err(Error::Forward { reason });
    }
    let head = Param::initialized(ParamId::new(), kept.head.clone());
    let both = WithHead { model: model.valid(), head };
    let passes = Passes::divided(&both.model, sequences, kept.batch_tokens, kept.switch)?;
    if passes.all().len() != kept.states.len() {
        return Err(other_sequences());
    }
    // The logits of both models, and as much again for what is computed from them.
    let chunk = (CHUNK_BYTES / 16 / both.head.val().dims()[0].max(1)).max(1);
    let compute = |both: &WithHead, numbered: &NumberedPass| {
        let pass = passes.run(&both.model, numbered);
        let kl = divergences(both, &pass, &kept.states[numbered.0], kept.logits_cap, chunk)?;
        let scores = pass.scores(&both.model, &HeadOptions::default()).into_iter().zip(kl);
        Ok::<_, Error>(scores.map(|((index, scored), kl)| (index, Divergence { scored, kl })).collect::<Vec<_>>())
    };
    distribute(devices, &both, passes.all(), compute, &mut |_, found| store(found))
}

fn other_sequences() -> Error {
    Error::Forward { reason: "predictions of other sequences than those that are compared".into() }
}

/// Computes the divergence of each response of a pass, with the logits of `chunk` positions at a time.
fn divergences(
    both: &WithHead,
    pass: &Pass<'_>,
    kept: &TensorData,
    logits_cap: Option<f64>,
    chunk: usize,
) -> Result<Vec<f64>, Error> {
    let positions = &pass.batch.responses;
    if kept.shape()[0] != positions.len() {
        return Err(other_sequences());
    }
    let second = pass.hidden.at(positions);
    let first = Tensor::<2>::from_data(kept.clone(), (&second.device(), kept.dtype()));
    let (first_head, second_head) = (both.head.val(), both.model.head_weight());
    let mut values: Vec<f64> = Vec::with_capacity(positions.len());
    for start in (0..positions.len()).step_by(chunk) {
        let length = chunk.min(positions.len() - start);
        // [c, d] -> f32 [c, v]
        let logps = |states: &Tensor<2>, head: &Tensor<2>, cap| {
            let logits = linear(states.clone().narrow(0, start, length), head.clone(), None);
            log_softmax(bound_logits(logits, cap).cast(FloatDType::F32), 1)
        };
        let p = logps(&first, &first_head, logits_cap);
        let q = logps(&second, &second_head, both.model.logits_cap());
        // [c, v] -> [c, 1]
        let sums = (p.clone().exp() * (p - q)).sum_dim(1);
        values.extend(sums.into_data().iter::<f64>());
    }
    let mut rest = values.into_iter();
    Ok(positions.counts.iter().map(|&count| rest.by_ref().take(count).sum()).collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use setpoint_transformer::ModelConfig;

    use super::*;

    #[test]
    fn chunks_of_every_size_give_the_same_sums() {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 11, "hidden_size": 8,
                "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
                "initializer_range": 0.4, "pad_token_id": 0, "eos_token_id": 2}"#,
        )
        .unwrap();
        let device = Device::flex();
        let [first, second] = [1, 2].map(|seed| CausalLm::init(&config, seed, &device));
        let sequence = |ids: &[u32]| Sequence { ids: ids.to_vec(), prompt_len: 2, scored_from: 2 };
        let sequences = [sequence(&[1, 3, 4, 5, 6, 2]), sequence(&[1, 3, 10]), sequence(&[1, 9, 8, 7, 2])];
        let devices = DeviceGroup::single(device);
        let kept = score_and_keep(&devices, &first, &sequences, 1000, &mut |_| Ok(())).unwrap();
        let both = WithHead { model: second, head: Param::initialized(ParamId::new(), kept.head.clone()) };
        let passes = Passes::of(&both.model, &sequences, 1000).unwrap();
        let pass = passes.run(&both.model, &passes.all()[0]);
        let of = |chunk: usize| divergences(&both, &pass, &kept.states[0], None, chunk).unwrap();
        let whole = of(100);
        assert!(whole.len() == 3 && whole.iter().all(|kl| *kl > 0.0), "{whole:?}");
        for chunk in [1, 2, 3, 7] {
            for (found, expected) in of(chunk).iter().zip(&whole) {
                assert!((found - expected).abs() < 1e-6, "{chunk}: {found} against {expected}");
            }
        }
    }
}
