//! What a step asks of a GPU: kernels and memory, as texts grow longer and more.
//!
//! ```sh
//! cargo run --features wgpu --example budget -- [small|mid|wide-vocab]
//! ```
//!
//! The device is the GPU that wgpu finds, or a software driver: the counts are the same on all of them, the times mean nothing. Bytes between
//! host and device are counted by a test, `traffic` in `tests/it`.

#![allow(clippy::print_stdout, reason = "it prints a table")]

#[allow(dead_code, reason = "shared with benches/kernels")]
#[path = "../kernels/shapes.rs"]
mod shapes;

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
fn main() {
    println!("build it with --features wgpu or --features cuda");
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_else(|| "small".into());
    match shapes::ALL.iter().find(|shape| shape.name == wanted) {
        Some(shape) => counted::print(shape),
        None => println!("`{wanted}` is no shape: expected small, mid or wide-vocab"),
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod counted {
    use std::collections::BTreeMap;

    use burn::tensor::Device;
    use setpoint_ops::count_launches;
    use setpoint_train::{AdamW, AdamWConfig, GradientSink, TokenLogps, backward, token_logps};
    use setpoint_transformer::{CausalLm, ModelConfig, Recompute};

    use super::shapes::Shape;

    type Launches = BTreeMap<&'static str, usize>;

    /// The launches of the parts of a step, and the memory that the device has reserved after it.
    struct Step {
        forward: Launches,
        backward: Launches,
        optimizer: Launches,
        reserved: Option<u64>,
    }

    fn device() -> Device {
        #[cfg(feature = "cuda")]
        return Device::cuda(0);
        #[cfg(not(feature = "cuda"))]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
    }

    fn config(shape: &Shape) -> ModelConfig {
        let text = format!(
            r#"{{"model_type": "llama", "hidden_size": {}, "num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {},
                "intermediate_size": {}, "vocab_size": {}, "tie_word_embeddings": true, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096}}"#,
            shape.hidden, shape.layers, shape.heads.query, shape.heads.kv, shape.intermediate, shape.vocab
        );
        ModelConfig::from_json(&text).expect("the configuration of a benchmark")
    }

    /// Takes two steps on texts of these lengths and counts the second, for which all is compiled and allocated.
    fn step(shape: &Shape, lengths: &[usize]) -> Step {
        let device = device();
        let mut model = CausalLm::init(&config(shape), 1, &device.clone().autodiff());
        model.model.recompute = Recompute::Block;
        let mut optimizer = AdamW::new(AdamWConfig::default());
        let text = |&length: &usize| -> Vec<u32> { (0..length as u32).map(|i| 31 * i % shape.vocab as u32).collect() };
        let texts: Vec<Vec<u32>> = lengths.iter().map(text).collect();
        let all = vec![true; lengths.iter().copied().max().unwrap_or(0)];
        let rows: Vec<(&[u32], &[bool])> = texts.iter().map(|text| (text.as_slice(), &all[..text.len()])).collect();
        let mut counted = None;
        for _ in 0..2 {
            let mut found: Option<TokenLogps> = None;
            let forward =
                count_launches(&device, || found = Some(token_logps(&model, &rows).expect("log-probabilities")));
            let found = found.expect("log-probabilities");
            let mut sink = GradientSink::new();
            let loss = -found.sums.sum_dim(0);
            let of_backward = count_launches(&device, || backward(&model, "model", loss, found.tape, &mut sink));
            let mut moved = None;
            let optimizer = count_launches(&device, || {
                let norm = sink.norm();
                assert!(norm.is_finite(), "a gradient norm of {norm}");
                moved = Some(optimizer.step(model, sink, 1e-4, 1.0).expect("a step"));
            });
            model = moved.expect("a model");
            let reserved = device.memory_pool_usage().map(|usage| usage.bytes_reserved);
            counted = Some(Step { forward, backward: of_backward, optimizer, reserved });
        }
        device.memory_cleanup();
        counted.expect("two steps")
    }

    fn total(launches: &Launches) -> usize {
        launches.values().sum()
    }

    pub fn print(shape: &Shape) {
        println!(
            "| texts | tokens of each | launches forward | backward | optimizer | MiB reserved |\n|---|---|---|---|---|---|"
        );
        let mut all = Launches::new();
        for (texts, tokens) in [(1, 256), (2, 128), (4, 64), (8, 32), (4, 128), (4, 256)] {
            let step = step(shape, &vec![tokens; texts]);
            let reserved = step.reserved.map_or_else(|| "unknown".into(), |bytes| (bytes >> 20).to_string());
            let [forward, backward, optimizer] = [&step.forward, &step.backward, &step.optimizer].map(total);
            println!("| {texts} | {tokens} | {forward} | {backward} | {optimizer} | {reserved} |");
            all = step.forward;
            for (kernel, count) in step.backward.into_iter().chain(step.optimizer) {
                *all.entry(kernel).or_default() += count;
            }
        }
        let mut kernels: Vec<_> = all.into_iter().collect();
        kernels.sort_by_key(|(kernel, count)| (std::cmp::Reverse(*count), *kernel));
        println!("\nThe most frequent kernels of the last row:\n\n| kernel | launches |\n|---|---|");
        for (kernel, count) in kernels.into_iter().take(15) {
            println!("| `{kernel}` | {count} |");
        }
    }
}
