//! `setpoint plan`, and what a training run needs before it begins: memory, steps and arithmetic.

use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;
use setpoint_data::EncodeReport;
use setpoint_train::{MicroBatch, TrainConfig, kept_logits};
use setpoint_transformer::{ModelConfig, Recompute};

use crate::failure::Outcome;
use crate::progress;

/// Bytes of the program, its tokenizer and its threads.
const PROGRAM: f64 = 64e6;

/// What the allocator takes for each byte that is asked for: between tensors of unequal sizes there are places that none fits.
const ALLOCATOR: f64 = 1.05;

/// What a loss makes of the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Log-probabilities of tokens, through a head of the vocabulary's size.
    Tokens,
    /// A number, through a head of one row.
    Reward,
}

/// Memory of a training run in f32.
///
/// # Units
/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// The parameters.
    pub weights: f64,
    /// Their gradients.
    pub gradients: f64,
    /// The optimizer's two moments.
    pub optimizer: f64,
    /// What the forward pass keeps for the backward pass of one micro-batch.
    pub activations: f64,
    /// Logits, and hidden states on their way through the head.
    pub head: f64,
    /// The program itself, and a copy of the largest parameter on its way to a file.
    pub other: f64,
    /// The part of the gradients that is there before the activations go: that of the head's weights.
    #[serde(skip)]
    head_gradient: f64,
    /// Tokens of a full micro-batch.
    pub tokens: f64,
    /// Whether blocks are computed again.
    #[serde(skip)]
    pub recompute: Recompute,
}

impl MemoryPlan {
    /// The plan of a run on the data that `report` describes.
    pub fn of(model: &ModelConfig, report: &EncodeReport, train: &TrainConfig, output: Output) -> Self {
        let parameters = 4.0 * model.num_parameters() as f64;
        let tokens = micro_batch_tokens(report, train);
        let layers = model.num_hidden_layers as f64;
        let (block, input) = per_token(model);
        let graph = tokens * layers * block;
        let table = 4.0 * (model.vocab_size * model.hidden_size) as f64;
        let tables = if model.tie_word_embeddings { table } else { 2.0 * table };
        let (vocabulary, head_table) = match output {
            Output::Tokens => (model.vocab_size, table),
            Output::Reward => (0, 0.0),
        };
        // Of a forward and a backward pass through the blocks and the head.
        let again = (parameters - tables) / (3.0 * (parameters - tables + head_table));
        let recompute = train.recompute(graph, 4.0 * parameters, again);
        let activations = match recompute {
            Recompute::None => graph,
            Recompute::Block => tokens * (layers * input + block),
        };
        // Where they are not kept, a chunk of logits is at most 128 MiB, or one position's.
        let chunk = (4.0 * vocabulary as f64 * tokens).min(f64::from(128u32 << 20)).max(4.0 * vocabulary as f64);
        let logits = chunk.max(kept_logits(tokens as usize, vocabulary, recompute) as f64);
        let head = logits + tokens * 2.0 * input;
        let largest = model.vocab_size.max(model.intermediate_size) as f64 * model.hidden_size as f64;
        let other = PROGRAM + 4.0 * largest;
        let gradients = if train.optimizer.in_backward {
            // A block's, and those of the embeddings, which are complete only at the end.
            (table + (parameters - tables) / layers).min(parameters)
        } else {
            parameters
        };
        Self {
            weights: parameters,
            gradients,
            optimizer: 2.0 * parameters,
            activations,
            head,
            other,
            head_gradient: head_table.min(gradients),
            tokens,
            recompute,
        }
    }

    /// The most that is there at once: gradients of the blocks come as activations go.
    pub fn peak(&self) -> f64 {
        let before_the_blocks = self.activations + self.head + self.head_gradient;
        let asked = self.weights + self.optimizer + before_the_blocks.max(self.gradients) + self.other;
        // Where blocks are computed again what is free goes back to the system.
        if self.recompute == Recompute::Block { asked } else { ALLOCATOR * asked }
    }
}

/// Tokens that go through one forward and backward pass at most.
fn micro_batch_tokens(report: &EncodeReport, train: &TrainConfig) -> f64 {
    let rows = report.kept.max(1) as f64;
    let mean = (report.prompt_tokens + report.response_tokens) as f64 / rows;
    let examples = (train.batch_size as f64).min(rows);
    // Batches of a few rows differ in length.
    let batch = 1.25 * mean * examples;
    let tokens = match train.micro_batch {
        MicroBatch::Tokens(tokens) => batch.min(tokens as f64),
        MicroBatch::Examples(count) => batch * (count as f64 / examples).min(1.0),
    };
    tokens.max(report.longest.max as f64)
}

/// Bytes that a block keeps of each token with the graph, and those of its input alone.
fn per_token(model: &ModelConfig) -> (f64, f64) {
    let (d, f) = (model.hidden_size as f64, model.intermediate_size as f64);
    let q = (model.num_attention_heads * model.head_dim) as f64;
    let kv = (model.num_key_value_heads * model.head_dim) as f64;
    // The inputs of both norms and what comes out of them; queries, keys, values and what attention makes of them; gate, up and their
    // product.
    let block = 4.0 * d + 2.0 * q + 2.0 * kv + 3.0 * f;
    (4.0 * block, 4.0 * d)
}

/// What a run would do, and what it needs for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunPlan {
    /// Examples after dropping.
    pub examples: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Examples of a step.
    pub batch_size: usize,
    /// Tokens of all prompts and responses.
    pub tokens: usize,
    /// Floating-point operations of the matrix products.
    pub operations: f64,
    /// Bytes at once.
    pub memory: MemoryPlan,
    /// The sum of them.
    pub peak: f64,
    /// What became of the rows.
    #[serde(skip)]
    data: String,
    /// What a person should know of the number of steps.
    #[serde(skip)]
    warning: Option<String>,
}

impl RunPlan {
    /// The plan of a run on the data that `report` describes.
    ///
    /// # Errors
    /// When the settings allow no step.
    pub fn of(
        model: &ModelConfig,
        report: &EncodeReport,
        train: &TrainConfig,
        examples: usize,
        output: Output,
    ) -> Outcome<Self> {
        let plan = train.plan(examples)?;
        let memory = MemoryPlan::of(model, report, train, output);
        let tokens = report.prompt_tokens + report.response_tokens;
        let factor = if memory.recompute == Recompute::Block { 8.0 } else { 6.0 };
        let epochs = plan.total_steps as f64 / plan.steps_per_epoch.max(1) as f64;
        Ok(Self {
            examples,
            steps: plan.total_steps,
            steps_per_epoch: plan.steps_per_epoch,
            batch_size: train.batch_size,
            tokens,
            operations: factor * model.num_parameters() as f64 * tokens as f64 * epochs,
            peak: memory.peak(),
            memory,
            data: report.to_string(),
            warning: train.few_steps(&plan),
        })
    }

    /// The plan where a second model of the same size trains beside the first.
    pub fn twice(mut self) -> Self {
        let memory = &mut self.memory;
        for part in [
            &mut memory.weights,
            &mut memory.gradients,
            &mut memory.head_gradient,
            &mut memory.optimizer,
            &mut memory.activations,
        ] {
            *part *= 2.0;
        }
        self.peak = memory.peak();
        self.operations *= 2.0;
        self
    }

    /// Prints it.
    pub fn say(&self) {
        let Self { memory, operations, .. } = self;
        let gib = |bytes: f64| bytes / f64::from(1u32 << 30);
        progress::say(format!("data      {}", self.data));
        progress::say(format!(
            "steps     {} ({} an epoch, {} examples in batches of {})",
            self.steps, self.steps_per_epoch, self.examples, self.batch_size
        ));
        let again = if memory.recompute == Recompute::Block { ", each block computed again" } else { "" };
        progress::say(format!(
            "memory    about {:.2} GiB at once, of {:.2} weights, {:.2} gradients, {:.2} optimizer in f32, {:.2} activations of {:.0} tokens{again}, \
             {:.2} head, {:.2} other",
            gib(self.peak),
            gib(memory.weights),
            gib(memory.gradients),
            gib(memory.optimizer),
            gib(memory.activations),
            memory.tokens,
            gib(memory.head),
            gib(memory.other),
        ));
        progress::say(format!(
            "compute   about {operations:.2e} floating-point operations: {} at 100 GFLOP/s, {} at 100 TFLOP/s",
            duration(operations / 1e11),
            duration(operations / 1e14)
        ));
        if let Some(warning) = &self.warning {
            progress::note(format!("warning: {warning}"));
        }
    }
}

/// The job of a config file, by the keys that only one job has. What is wrong with the file is said by whoever loads it.
pub fn job_of(config: &Path) -> PlannedJob {
    let table = std::fs::read_to_string(config).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let has = |key: &str| table.as_ref().is_some_and(|table| table.contains_key(key));
    match (has("align"), has("center")) {
        (true, _) => PlannedJob::Align,
        (false, true) => PlannedJob::Reward,
        (false, false) => PlannedJob::Sft,
    }
}

/// A job that trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlannedJob {
    /// Supervised fine-tuning.
    Sft,
    /// A reward model.
    Reward,
    /// Alignment.
    Align,
}

/// Prints a plan, as text or as JSON.
pub fn print(plan: &RunPlan, json: bool) -> Outcome {
    if json {
        progress::say(serde_json::to_string_pretty(plan)?);
    } else {
        plan.say();
    }
    Ok(())
}

/// Prints what a run would do: its settings and its plan.
pub fn describe<C: Serialize>(config: &C, plan: &RunPlan) -> Outcome {
    progress::say(toml::to_string(&crate::config::load::to_table(config))?);
    plan.say();
    Ok(())
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} seconds"),
        s if s < 5400.0 => format!("{:.0} minutes", s / 60.0),
        s => format!("{:.1} hours", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_head_of_a_language_model_makes_its_blocks_cheap_to_compute_again() {
        // Blocks of some 2 · 8² + 2 · 8² + 3 · 8 · 16 parameters beside a table of 1000 · 8.
        let model: ModelConfig = ModelConfig::from_json(
            r#"{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
                "vocab_size": 1000, "tie_word_embeddings": true, "rms_norm_eps": 1e-5, "max_position_embeddings": 64}"#,
        )
        .unwrap();
        let of = |output| MemoryPlan::of(&model, &EncodeReport::default(), &TrainConfig::default(), output);
        let (tokens, reward) = (of(Output::Tokens), of(Output::Reward));
        assert_eq!((tokens.recompute, reward.recompute), (Recompute::Block, Recompute::None));
        assert!(reward.head < tokens.head);
    }
}
