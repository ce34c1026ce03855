//! Products of few rows, as in generation: weights in 4-bit codes next to those of f32, and maps with a low-rank update next to those without.

use burn::tensor::{Device, FloatDType, Tensor};
use setpoint_ops::{LowRank, Nf4, Nf4Double, Nf4Host, Nf4Layout, linear, linear_lora, linear_lora_nf4, linear_nf4};
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::shapes::Shape;
use crate::{keep, medians, random};

/// Rows that go through the maps together.
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The rank of the updates.
const RANK: usize = 16;

/// A map of every layer, so that its weights come from where they do in a model: from memory, if they are too many for the caches.
struct Map {
    dense: Tensor<2>,
    codes: Nf4,
    update: LowRank,
}

impl Map {
    fn new(shape: [usize; 2], seed: usize, device: &Device) -> Self {
        let [outputs, inputs] = shape;
        let update = LowRank { a: random([RANK, inputs], device), b: random([outputs, RANK], device), scale: 2.0 };
        Self { dense: random(shape, device), codes: codes(shape, seed, device), update }
    }
}

/// Any codes, with double quantisation.
fn codes(shape: [usize; 2], seed: usize, device: &Device) -> Nf4 {
    let (count, block, group) = (shape[0] * shape[1], 64, 256);
    let bytes = |count: usize| (0..count).map(|i| (((i + seed) * 40_503) >> 7) as u8).collect::<Vec<u8>>();
    let blocks = count.div_ceil(block);
    let (scale_codes, scale_values) = (bytes(blocks), (0..256).map(|i| i as f32 / 256.0).collect::<Vec<f32>>());
    let host = Nf4Host {
        codes: &bytes(count.div_ceil(2)),
        values: &std::array::from_fn(|i| i as f32 / 7.5 - 1.0),
        scale_codes: Some((&scale_codes, &scale_values)),
        scales: &vec![1.0; blocks.div_ceil(group)],
    };
    let double = Some(Nf4Double { group, offset: 0.01 });
    Nf4::new(host, Nf4Layout { shape, block, double, rounding: FloatDType::F32 }, device)
}

/// Measures the first map of the feed-forward network in every layer, in microseconds a map.
pub fn table(shape: &Shape, device: &Device) -> String {
    let maps: Vec<Map> = (0..shape.layers).map(|i| Map::new([shape.intermediate, shape.hidden], i, device)).collect();
    let mut table = Builder::default();
    table.push_record([
        "rows",
        "f32, µs",
        "NF4, µs",
        "ratio",
        "f32 with update, µs",
        "ratio",
        "NF4 with update, µs",
        "ratio",
    ]);
    for rows in ROWS {
        let x = random([rows, shape.hidden], device);
        let each = |product: &dyn Fn(&Map) -> Tensor<2>| maps.iter().for_each(|map| keep(product(map)));
        let times = medians(
            device,
            [
                &|| each(&|map| linear(x.clone(), map.dense.clone(), None)),
                &|| each(&|map| linear_nf4(x.clone(), &map.codes, None)),
                &|| each(&|map| linear_lora(x.clone(), map.dense.clone(), None, map.update.clone())),
                &|| each(&|map| linear_lora_nf4(x.clone(), &map.codes, None, map.update.clone())),
            ],
        );
        let [dense, codes, dense_updated, codes_updated] =
            times.map(|time| time.as_secs_f64() * 1e6 / maps.len() as f64);
        let cell = |time: f64, to: f64| [format!("{time:.1}"), format!("{:.2}", time / to)];
        let pairs = [cell(codes, dense), cell(dense_updated, dense), cell(codes_updated, codes)];
        table.push_record([rows.to_string(), format!("{dense:.1}")].into_iter().chain(pairs.into_iter().flatten()));
    }
    table.build().with(Style::markdown()).to_string()
}
