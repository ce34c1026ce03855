//! The memory of a training run, part by part.

use burn::tensor::FloatDType;
use serde::Serialize;
use setpoint_data::EncodeReport;
use setpoint_train::{MicroBatch, MomentsFormat, TrainConfig, kept_logits};
use setpoint_transformer::lora::AdapterSize;
use setpoint_transformer::{HeadNorms, ModelConfig, NormPlacement, Recompute};

/// Bytes of the program, its tokenizer and its threads.
const PROGRAM: f64 = 64e6;

/// Bytes that the allocator takes for each byte that is asked for: gaps remain between tensors of unequal sizes.
const ALLOCATOR: f64 = 1.05;

/// The numbers that a loss makes of the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Log-probabilities of tokens, through a head of the vocabulary's size.
    Tokens,
    /// A number, through a head of one row.
    Reward,
}

/// Bytes that full training keeps for each parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterBytes {
    /// The weight.
    pub weight: f64,
    /// Its gradient, summed in f32.
    pub gradient: f64,
    /// AdamW's two moments in f32, and an f32 copy of a weight that is not.
    pub optimizer: f64,
}

impl ParameterBytes {
    /// Returns the bytes for weights of a number format.
    pub fn of(dtype: FloatDType) -> Self {
        match dtype {
            FloatDType::F32 => Self { weight: 4.0, gradient: 4.0, optimizer: 8.0 },
            _ => Self { weight: 2.0, gradient: 4.0, optimizer: 12.0 },
        }
    }

    /// Returns their sum.
    pub fn total(self) -> f64 {
        self.weight + self.gradient + self.optimizer
    }
}

/// Memory of a training run on each of its devices.
///
/// # Units
/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// The parameters.
    pub weights: f64,
    /// Their gradients, summed in f32.
    pub gradients: f64,
    /// The optimizer's two moments, and an f32 copy of weights that are not. Devices divide them, unless the settings say otherwise.
    pub optimizer: f64,
    /// Values that the forward pass keeps for the backward pass of one micro-batch.
    pub activations: f64,
    /// Logits, and hidden states on their way through the head.
    pub head: f64,
    /// The program itself, and a copy of the largest parameter on its way to a file.
    pub other: f64,
    /// The part of the gradients that exists before the activations go: that of the head's weights.
    #[serde(skip)]
    pub(super) head_gradient: f64,
    /// Tokens of a full micro-batch.
    pub tokens: f64,
    /// The way in which the backward pass gets its activations: kept, or computed again block by block.
    #[serde(skip)]
    pub recompute: Recompute,
}

impl MemoryPlan {
    /// Computes the memory of a run on the data that `report` describes, with weights in `dtype`, on each of `devices`.
    pub fn of(
        model: &ModelConfig,
        report: &EncodeReport,
        train: &TrainConfig,
        output: Output,
        dtype: FloatDType,
        adapter: Option<AdapterSize>,
        devices: usize,
    ) -> Self {
        // Whether blocks are computed again is decided for f32, so that a run goes on elsewhere as it began.
        let f32_plan = Self::in_f32(model, report, train, output, adapter, devices);
        let plan = match dtype {
            FloatDType::F32 => f32_plan,
            _ => {
                // Hidden states have two bytes a number. Logits stay in f32, and so do the factors of an adapter.
                let (parameters, bytes) = (model.num_parameters() as f64, ParameterBytes::of(dtype));
                let f32_bytes = ParameterBytes::of(FloatDType::F32);
                let (factors, others) = match adapter {
                    None => (0.0, parameters),
                    Some(size) => (size.factors as f64, size.saved as f64),
                };
                Self {
                    weights: bytes.weight * parameters + f32_bytes.weight * factors,
                    optimizer: bytes.optimizer * others + f32_bytes.optimizer * factors,
                    activations: f32_plan.activations / 2.0,
                    ..f32_plan
                }
            }
        };
        // Embeddings keep their moments in f32.
        let embeddings = (model.vocab_size * model.hidden_size) as f64;
        let coded = match adapter {
            None => model.num_parameters() as f64 - embeddings,
            Some(size) => size.trained() as f64,
        };
        let saved = MomentsFormat::F32.bytes() - train.optimizer.state.bytes();
        let optimizer = plan.optimizer - saved * coded;
        if !train.optimizer.shard {
            return Self { optimizer, ..plan };
        }
        // The state of a parameter has one owner.
        let largest = if adapter.is_none() { ParameterBytes::of(dtype).optimizer * embeddings } else { 0.0 };
        Self { optimizer: (optimizer / devices as f64).max(largest).min(optimizer), ..plan }
    }

    fn in_f32(
        model: &ModelConfig,
        report: &EncodeReport,
        train: &TrainConfig,
        output: Output,
        adapter: Option<AdapterSize>,
        devices: usize,
    ) -> Self {
        let bytes = ParameterBytes::of(FloatDType::F32);
        let count = model.num_parameters() as f64;
        let parameters = bytes.weight * count;
        let trained = adapter.map_or(count, |size| size.trained() as f64);
        let [tokens, tokens_of_one] = [devices, 1].map(|devices| micro_batch_tokens(report, train, devices));
        let layers = model.num_hidden_layers as f64;
        let (mut block, input) = per_token(model);
        if let Some(size) = adapter {
            // The inner values of the updates, the inputs without what is dropped, and the products that magnitudes scale.
            block += 4.0 * (size.ranks + size.dropped + size.magnitudes) as f64 / layers;
        }
        let graph = |tokens: f64| tokens * layers * block;
        let table = 4.0 * (model.vocab_size * model.hidden_size) as f64;
        let tables = if model.tie_word_embeddings { table } else { 2.0 * table };
        let (vocabulary, head_table) = match output {
            Output::Tokens => (model.vocab_size, table),
            Output::Reward => (0, 0.0),
        };
        // Of a forward and a backward pass through the blocks and the head.
        // With a frozen base the backward pass has half of its products.
        let passes = if adapter.is_some() { 2.0 } else { 3.0 };
        let again = (parameters - tables) / (passes * (parameters - tables + head_table));
        let factors = bytes.weight * adapter.map_or(0.0, |size| size.factors as f64);
        let state = parameters + factors + (bytes.gradient + bytes.optimizer) * trained;
        // Neither does the number of devices decide.
        let recompute = train.recompute(graph(tokens_of_one), state, again);
        let activations = match recompute {
            Recompute::None => graph(tokens),
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
            bytes.gradient * count
        };
        let gradients = if adapter.is_some() { bytes.gradient * trained } else { gradients };
        let head_gradient = if adapter.is_some() { 0.0 } else { head_table.min(gradients) };
        Self {
            weights: parameters + factors,
            gradients,
            optimizer: bytes.optimizer * trained,
            activations,
            head,
            other,
            head_gradient,
            tokens,
            recompute,
        }
    }

    /// Returns the most memory in use at once: gradients of the blocks come as activations go.
    pub fn peak(&self) -> f64 {
        let before_the_blocks = self.activations + self.head + self.head_gradient;
        let asked = self.weights + self.optimizer + before_the_blocks.max(self.gradients) + self.other;
        // Where blocks are computed again what is free goes back to the system.
        if self.recompute == Recompute::Block { asked } else { ALLOCATOR * asked }
    }
}

/// Returns the number of tokens that go through one forward and backward pass at most, on each of some devices.
fn micro_batch_tokens(report: &EncodeReport, train: &TrainConfig, devices: usize) -> f64 {
    let rows = report.kept.max(1) as f64;
    let mean = (report.prompt_tokens + report.response_tokens) as f64 / rows;
    let examples = ((train.batch_size as f64).min(rows) / devices as f64).ceil();
    // Batches of a few rows differ in length.
    let batch = 1.25 * mean * examples;
    let tokens = match train.micro_batch {
        MicroBatch::Tokens(tokens) => batch.min(tokens as f64),
        MicroBatch::Examples(count) => batch * (count as f64 / examples).min(1.0),
    };
    tokens.max(report.longest.max as f64)
}

/// Returns the bytes that a block keeps of each token with the graph, and those of its input alone.
fn per_token(model: &ModelConfig) -> (f64, f64) {
    let (d, f) = (model.hidden_size as f64, model.intermediate_size as f64);
    let q = (model.num_attention_heads * model.head_dim) as f64;
    let kv = (model.num_key_value_heads * model.head_dim) as f64;
    // The inputs of both norms and what comes out of them; queries, keys, values and what attention makes of them; gate, up and their
    // product.
    let mut block = 4.0 * d + 2.0 * q + 2.0 * kv + 3.0 * f;
    // Norms on both sides have twice as many inputs, and those of heads two more.
    if model.design.norms == NormPlacement::Both {
        block += 2.0 * d;
    }
    if model.design.head_norms != HeadNorms::Absent {
        block += q + kv;
    }
    (4.0 * block, 4.0 * d)
}

#[cfg(test)]
mod tests {
    use setpoint_train::AdamWConfig;

    use super::super::devices;
    use super::*;

    #[test]
    fn only_the_head_of_a_language_model_makes_its_blocks_cheap_to_compute_again() {
        // Blocks of some 2 · 8² + 2 · 8² + 3 · 8 · 16 parameters beside a table of 1000 · 8.
        let model: ModelConfig = ModelConfig::from_json(
            r#"{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
                "vocab_size": 1000, "tie_word_embeddings": true, "rms_norm_eps": 1e-5, "max_position_embeddings": 64}"#,
        )
        .unwrap();
        let of = |output, dtype| {
            MemoryPlan::of(&model, &EncodeReport::default(), &TrainConfig::default(), output, dtype, None, 1)
        };
        let (tokens, reward) = (of(Output::Tokens, FloatDType::F32), of(Output::Reward, FloatDType::F32));
        assert_eq!((tokens.recompute, reward.recompute), (Recompute::Block, Recompute::None));
        assert!(reward.head < tokens.head);

        // bf16: 2 bytes of weights, 4 of gradients, 8 of moments and 4 of a master copy a parameter; f32: 4, 4 and 8.
        let half = of(Output::Tokens, FloatDType::BF16);
        let parameters = model.num_parameters() as f64;
        let bytes = |plan: &MemoryPlan| [plan.weights, plan.gradients, plan.optimizer].map(|part| part / parameters);
        assert_eq!((bytes(&tokens), bytes(&half)), ([4.0, 4.0, 8.0], [2.0, 4.0, 12.0]));
        assert_eq!((half.activations, half.head), (tokens.activations / 2.0, tokens.head));
        assert_eq!(half.recompute, tokens.recompute, "a run goes on elsewhere as it began");

        // 8-bit moments: 2 bytes and a scale for each block of 256, but for the table.
        let train = TrainConfig {
            optimizer: AdamWConfig { state: MomentsFormat::EightBit, ..AdamWConfig::default() },
            ..TrainConfig::default()
        };
        let coded = MemoryPlan::of(&model, &EncodeReport::default(), &train, Output::Tokens, FloatDType::F32, None, 1);
        assert_eq!(coded.optimizer, 8.0 * 8000.0 + (2.0 + 2.0 / 64.0) * (parameters - 8000.0));
    }

    #[test]
    fn an_8b_model_trains_on_sixteen_gpus_of_80_gb() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/Llama-3-8B/config.json");
        let model = ModelConfig::from_file(std::path::Path::new(file)).unwrap();
        let parameters = model.num_parameters() as f64;
        // Rows of about 450 tokens in batches of 64.
        let mut report =
            EncodeReport { kept: 64, prompt_tokens: 64 * 200, response_tokens: 64 * 250, ..Default::default() };
        report.longest.max = 1024;
        let of = |optimizer: AdamWConfig, devices: usize| {
            let micro_batch = MicroBatch::Tokens(2048);
            let train = TrainConfig { batch_size: 64, micro_batch, optimizer, ..TrainConfig::default() };
            MemoryPlan::of(&model, &report, &train, Output::Tokens, FloatDType::BF16, None, devices)
        };
        let shard = AdamWConfig::default();
        assert_eq!(of(shard, 1), of(AdamWConfig { shard: false, ..shard }, 1));
        for devices in [2, 8] {
            assert_eq!(of(shard, devices).optimizer, 12.0 * parameters / devices as f64);
            let whole = of(AdamWConfig { shard: false, ..shard }, devices);
            assert_eq!((whole.optimizer, whole.weights), (12.0 * parameters, 2.0 * parameters));
        }
        // The embeddings have one owner.
        assert_eq!(of(shard, 16).optimizer, 12.0 * 128_256.0 * 4096.0);
        let fits = |optimizer: AdamWConfig| devices::COUNTS.map(|count| of(optimizer, count).peak() < 80e9);
        assert_eq!(fits(shard), [false, false, true, true]);
        assert_eq!(fits(AdamWConfig { in_backward: true, ..shard }), [false, true, true, true]);
        assert_eq!(fits(AdamWConfig { shard: false, ..shard }), [false; 4]);
    }
}
