//! Trains a Bradley–Terry reward model on preference pairs, and lets it score responses that it has not seen.
//!
//! ```sh
//! cargo run --package setpoint-reward --example reward_model
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use burn::tensor::Device;
use setpoint_reward::{HeadInit, Preference, PreferenceTask, RewardModel, score_rows};
use setpoint_train::{DeviceGroup, MicroBatch, NoHooks, RunDir, TrainConfig, evaluate, fit};
use setpoint_transformer::{CausalLm, ModelConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = ModelConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 32,
            "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}"#,
    )?;
    // A real run begins with the weights of a language model: `CausalLm::load`.
    let base = CausalLm::init(&config, 0, &Device::flex().autodiff());
    let (model, _) = RewardModel::from_causal_lm(base, &config, HeadInit::Zeros);

    // Token 7 makes a response better than 8; token 2 ends it.
    let pair = |i: u32| {
        let (prompt, filler) = ([1, 10 + i % 16], 10 + i * 5 % 16);
        Preference::new(&prompt, &[filler, 7, 2], &[8, filler, 2], 0.0, format!("pair {i}"))
    };
    let center = 0.01;
    let task = |pairs: std::ops::Range<u32>| {
        PreferenceTask::new(pairs.map(pair).collect::<Vec<_>>(), center, config.rope.switch())
    };
    let (train, held_out) = (task(0..48)?, task(100..116)?);

    let folder = tempfile::tempdir()?;
    let run = RunDir::create(folder.path().join("run"))?;
    let mut micro_batch = MicroBatch::Tokens(256);
    let settings =
        TrainConfig { epochs: 4.0, batch_size: 16, micro_batch, learning_rate: 3e-3, ..TrainConfig::default() };
    let trained = fit(&train, model, &settings, &run, &mut NoHooks)?.model;

    let device = DeviceGroup::single(Device::flex());
    for (name, value) in evaluate(&held_out, &device, &trained, &mut micro_batch, 1.0, &|| false)?.metrics {
        println!("{name:>16} {value:.3}");
    }
    let rows = [vec![1, 12, 20, 7, 2], vec![1, 12, 20, 21, 2], vec![1, 12, 20, 8, 2]];
    for (row, reward) in rows.iter().zip(score_rows(&device, &trained, &rows, 1024, &mut |_| ())?) {
        println!("{row:?} has the reward {reward:.3}");
    }
    Ok(())
}
