//! The kernels that a step launches on a GPU, and the memory that it takes. `benches/gpu/budget.rs` prints both for a larger model.

use burn::tensor::Device;
use setpoint_ops::count_launches;
use setpoint_train::{AdamW, AdamWConfig, GradientSink, HeadOptions, backward, token_logps_with};
use setpoint_transformer::{CausalLm, ModelConfig, Recompute};

use crate::golden::golden_path;
use crate::graphics;

/// A model between steps, on a GPU.
struct Trained {
    model: Option<CausalLm>,
    optimizer: AdamW,
    head: HeadOptions,
    texts: Vec<Vec<u32>>,
}

impl Trained {
    fn new(config: &ModelConfig, head: HeadOptions, lengths: &[usize]) -> Self {
        let mut model = CausalLm::init(config, 3, &graphics().expect("a device of wgpu"));
        model.model.recompute = Recompute::Block;
        let texts = lengths.iter().map(|&length| (0..length as u32).map(|i| 7 * i % 500).collect()).collect();
        Self { model: Some(model), optimizer: AdamW::new(AdamWConfig::default()), head, texts }
    }

    fn step(&mut self) {
        let model = self.model.take().expect("a model between steps");
        let all = vec![true; self.texts.iter().map(Vec::len).max().unwrap_or(0)];
        let rows: Vec<(&[u32], &[bool])> =
            self.texts.iter().map(|text| (text.as_slice(), &all[..text.len()])).collect();
        let found = token_logps_with(&model, &rows, &self.head).unwrap();
        let mut sink = GradientSink::new();
        backward(&model, "model", -found.sums.sum_dim(0), found.tape, &mut sink);
        assert!(sink.norm().is_finite());
        self.model = Some(self.optimizer.step(model, sink, 1e-3, 1.0).unwrap());
    }
}

/// Counts the launches of a step on texts of these lengths, with everything compiled and allocated by the step before it.
fn launches(lengths: &[usize]) -> usize {
    let config = ModelConfig::from_dir(&golden_path("../../models/tiny/llama")).unwrap();
    let mut trained = Trained::new(&config, HeadOptions::default(), lengths);
    trained.step();
    let plain: Device = graphics().expect("a device of wgpu").without_autodiff();
    let counts = count_launches(&plain, || trained.step());
    let total: usize = counts.values().sum();
    assert!(total > 100, "{counts:?}");
    total
}

#[test]
fn longer_texts_launch_no_more_kernels() {
    // Sums of few numbers take other kernels of Burn's than longer ones.
    let of_short = launches(&[32; 4]);
    assert_eq!([of_short; 2], [launches(&[48; 4]), launches(&[96; 4])]);
}

/// One kernel attends over all texts of a batch.
#[test]
fn more_texts_launch_no_more_kernels() {
    let of_four = launches(&[32; 4]);
    assert_eq!([of_four; 2], [launches(&[32; 9]), launches(&[128])]);
}

/// Query heads of the model whose memory is measured.
const HEADS: usize = 8;

/// Positions whose logits exist at a time there.
const CHUNK: usize = 64;

/// The variable that asks a process of this test for the memory of all cases: a file for the answer.
const ASKED: &str = "SETPOINT_TEST_BYTES";

/// Numbers of tokens, and vocabularies.
const CASES: [(usize, usize); 4] = [(1024, 512), (2048, 512), (512, 8192), (2048, 8192)];

/// Returns the bytes that a device has reserved after a step on one text, from an empty memory.
fn reserved((tokens, vocabulary): (usize, usize)) -> u64 {
    let text = format!(
        r#"{{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": {HEADS}, "num_key_value_heads": 2,
            "intermediate_size": 96, "vocab_size": {vocabulary}, "tie_word_embeddings": true, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096}}"#
    );
    let config = ModelConfig::from_json(&text).unwrap();
    let head = HeadOptions { chunk: Some(CHUNK), ..HeadOptions::default() };
    let device = graphics().expect("a device of wgpu").without_autodiff();
    let mut trained = Trained::new(&config, head, &[tokens]);
    trained.step();
    device.sync().unwrap();
    let bytes = device.memory_pool_usage().expect("the memory of a GPU").bytes_reserved;
    drop(trained);
    device.memory_cleanup();
    device.sync().unwrap();
    bytes
}

/// In a process of its own, because all tests of a process share a device's memory.
#[test]
#[ignore = "takes minutes on a software driver"]
fn memory_grows_with_neither_the_square_of_the_tokens_nor_their_product_with_the_vocabulary() {
    if let Some(file) = std::env::var_os(ASKED) {
        std::fs::write(file, CASES.map(|case| reserved(case).to_string()).join(" ")).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bytes");
    let name = "budget::memory_grows_with_neither_the_square_of_the_tokens_nor_their_product_with_the_vocabulary";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", "--ignored", name]).env(ASKED, &file).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let answer = std::fs::read_to_string(file).unwrap();
    let bytes: Vec<u64> = answer.split(' ').map(|bytes| bytes.parse().unwrap()).collect();
    let [short, long, wide_short, wide_long] = bytes[..] else { panic!("{answer}") };
    // What one matrix of scores, or all logits, would grow by; a part of it is allowed for all that grows with the tokens.
    let scores = (4 * HEADS * (2048 * 2048 - 1024 * 1024)) as u64;
    let logits = (4 * (2048 - 512) * 8192) as u64;
    let found = format!("{short} and {long} bytes; {wide_short} and {wide_long}");
    assert!(long.saturating_sub(short) < scores / 2, "{found}, a matrix of scores {scores}");
    assert!(wide_long.saturating_sub(wide_short) < logits / 2, "{found}, logits {logits}");
}
