//! The kernels that a step launches on a GPU. `benches/gpu/budget.rs` prints them for a larger model.

use burn::tensor::Device;
use setpoint_ops::count_launches;
use setpoint_train::{AdamW, AdamWConfig, GradientSink, backward, token_logps};
use setpoint_transformer::{CausalLm, ModelConfig, Recompute};

use crate::golden::golden_path;
use crate::graphics;

/// Counts the launches of a step on texts of these lengths, with everything compiled and allocated by the step before it.
fn launches(lengths: &[usize]) -> usize {
    let device = graphics().expect("a device of wgpu");
    let config = ModelConfig::from_dir(&golden_path("../../models/tiny/llama")).unwrap();
    let mut model = Some(CausalLm::init(&config, 3, &device));
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let texts: Vec<Vec<u32>> =
        lengths.iter().map(|&length| (0..length as u32).map(|i| 7 * i % 500).collect()).collect();
    let all = vec![true; 512];
    let mut step = || {
        let mut taken = model.take().expect("a model between steps");
        taken.model.recompute = Recompute::Block;
        let rows: Vec<(&[u32], &[bool])> = texts.iter().map(|text| (text.as_slice(), &all[..text.len()])).collect();
        let found = token_logps(&taken, &rows).unwrap();
        let mut sink = GradientSink::new();
        backward(&taken, "model", -found.sums.sum_dim(0), found.tape, &mut sink);
        assert!(sink.norm().is_finite());
        model = Some(optimizer.step(taken, sink, 1e-3, 1.0).unwrap());
    };
    step();
    let plain: Device = device.clone().without_autodiff();
    let counts = count_launches(&plain, step);
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
