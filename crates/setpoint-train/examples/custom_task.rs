//! Trains a tiny language model by a loss of its own, a policy gradient: each response is made more or less likely by how much its reward
//! differs from the mean reward of its batch.
//!
//! ```sh
//! cargo run --package setpoint-train --example custom_task
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use burn::tensor::{Device, Tensor};
use setpoint_train::{
    BatchContext, Error, Forward, MicroBatch, NoHooks, PassNumbers, PromptLogps, RunDir, Sequence, Task, TrainConfig,
    Unread, fit, score_sequences, sequence_logps,
};
use setpoint_transformer::{CausalLm, ModelConfig};

/// Prompts with one rewarded response each.
struct PolicyGradient {
    sequences: Vec<Sequence>,
    rewards: Vec<f64>,
}

/// The baseline of the whole batch, which no micro-batch could compute by itself.
#[derive(Default)]
struct Baseline {
    mean_reward: f64,
}

impl Task for PolicyGradient {
    type Model = CausalLm;
    type Probe = ();
    type Survey = Baseline;

    fn len(&self) -> usize {
        self.sequences.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        self.sequences[example].ids.len()
    }

    fn survey(&self, batch: &[usize], _probes: &[()]) -> Result<Baseline, Error> {
        let total: f64 = batch.iter().map(|&example| self.rewards[example]).sum();
        Ok(Baseline { mean_reward: total / batch.len() as f64 })
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<Baseline>) -> Result<Forward, Error> {
        let sequences: Vec<&Sequence> = examples.iter().map(|&example| &self.sequences[example]).collect();
        let logps = sequence_logps(model, &sequences, PromptLogps::Skip)?;
        let advantages = examples.iter().map(|&example| (self.rewards[example] - batch.survey.mean_reward) as f32);
        let advantages = Tensor::<1>::from_data(&*advantages.collect::<Vec<f32>>(), &logps.response.device());
        let losses = -(logps.response * advantages); // [n]
        let numbers = Unread::of(losses.clone()).map(|losses| PassNumbers {
            per_example: losses.into_iter().map(|loss| loss as f32).collect(),
            ..PassNumbers::default()
        });
        let loss = losses.sum() / batch.denominator;
        Ok(Forward { loss, numbers, tape: logps.tape, second_tape: None })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = ModelConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 32,
            "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}"#,
    )?;
    let model = CausalLm::init(&config, 0, &Device::flex().autodiff());

    // Token 1 begins a prompt and 2 ends a response. Token 7 is a good answer, 8 is a bad one.
    let sequence = |i: u32| Sequence { ids: vec![1, 10 + i % 16, 7 + i % 2, 2], prompt_len: 2, scored_from: 1 };
    let task = PolicyGradient {
        sequences: (0..32).map(sequence).collect(),
        rewards: (0..32).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect(),
    };
    let mean_logp = |model: &CausalLm, first: usize| -> Result<f64, Error> {
        let side: Vec<&Sequence> = task.sequences.iter().skip(first).step_by(2).collect();
        let scored = score_sequences(model, &side, 1024, &mut |_| ())?;
        Ok(scored.iter().map(|scored| scored.response_logp).sum::<f64>() / side.len() as f64)
    };
    println!("before: good responses {:.2} nats, bad ones {:.2}", mean_logp(&model, 0)?, mean_logp(&model, 1)?);

    let folder = tempfile::tempdir()?;
    let run = RunDir::create(folder.path().join("run"))?;
    let settings = TrainConfig {
        epochs: 5.0,
        batch_size: 8,
        micro_batch: MicroBatch::Examples(4),
        learning_rate: 3e-3,
        ..TrainConfig::default()
    };
    let trained = fit(&task, model, &settings, &run, &mut NoHooks)?.model;
    println!("after:  good responses {:.2} nats, bad ones {:.2}", mean_logp(&trained, 0)?, mean_logp(&trained, 1)?);
    Ok(())
}
