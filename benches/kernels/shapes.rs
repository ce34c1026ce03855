//! The models of the benchmarks, and a batch as training packs it.

use setpoint_ops::{Heads, Packing};

/// The layers of a model.
pub struct Shape {
    pub name: &'static str,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: Heads,
    pub vocab: usize,
}

/// The shapes of `benches/peer`.
pub const ALL: [Shape; 3] = [
    Shape {
        name: "small",
        hidden: 384,
        intermediate: 1024,
        layers: 6,
        heads: Heads { query: 6, kv: 2, dim: 64, scale: 0.125, soft_cap: None, window: None },
        vocab: 32_000,
    },
    Shape {
        name: "mid",
        hidden: 576,
        intermediate: 1536,
        layers: 30,
        heads: Heads { query: 9, kv: 3, dim: 64, scale: 0.125, soft_cap: None, window: None },
        vocab: 49_152,
    },
    Shape {
        name: "wide-vocab",
        hidden: 512,
        intermediate: 1536,
        layers: 8,
        heads: Heads { query: 8, kv: 8, dim: 64, scale: 0.125, soft_cap: None, window: None },
        vocab: 151_936,
    },
];

/// Two prompts with two responses each, about as long as the median rows of UltraFeedback.
pub fn packing() -> Packing {
    let mut builder = Packing::builder();
    for (prompt, responses) in [(110, [221, 250]), (46, [190, 310])] {
        let prompt = builder.push(prompt, None);
        for response in responses {
            builder.push(response, Some(prompt));
        }
    }
    builder.build()
}
