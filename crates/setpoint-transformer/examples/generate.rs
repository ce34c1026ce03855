//! Reads a Hugging Face folder and continues some tokens, greedily and by sampling.
//!
//! Without a folder it makes a tiny model with random weights. Run it from the repository's root with the features of the whole workspace,
//! so that nothing is built twice: `cargo run --example generate --features ndarray,wgpu,remote --workspace -- path/to/model`.

#![allow(clippy::print_stdout, reason = "the program prints its result")]

use std::path::Path;

use burn::tensor::Device;
use setpoint_transformer::{CausalLm, Error, GenerationConfig, LoadOptions, ModelConfig, generate};

fn main() -> Result<(), Error> {
    let device = Device::flex();
    let (model, config) = match std::env::args().nth(1) {
        Some(dir) => CausalLm::load(Path::new(&dir), &LoadOptions::default(), &device)?,
        None => {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny/llama");
            let config = ModelConfig::from_dir(&dir)?;
            (CausalLm::init(&config, 42, &device), config)
        }
    };
    println!("{}: {} parameters", config.model_type, config.num_parameters());

    let prompts = [vec![1, 5, 9], vec![1, 7]];
    let greedy = GenerationConfig { max_new_tokens: 8, ..GenerationConfig::default() };
    let sampled = GenerationConfig { do_sample: true, temperature: 0.8, ..greedy.clone() };
    for settings in [greedy, sampled] {
        for row in generate(&model, &prompts, &settings, 0)? {
            println!("{:?} {:?}", row.ids, row.finish);
        }
    }
    Ok(())
}
