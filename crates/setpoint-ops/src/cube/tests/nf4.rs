//! Dequantisation.

use burn::tensor::bf16;

use super::*;
use crate::composed;
use crate::cube::nf4;
use crate::nf4::{Nf4Double, Nf4Layout, words};

/// Codes, numbers and the dequantised numbers of a matrix.
fn case(layout: Nf4Layout) -> (CubeTensor, CubeTensor, Vec<f64>) {
    let (count, blocks) = (layout.shape[0] * layout.shape[1], layout.blocks());
    let mut rng = ChaCha8Rng::seed_from_u64(count as u64);
    let mut bytes = |count: usize| -> Vec<u8> { (0..count).map(|_| rng.next_u32() as u8).collect() };
    let (codes, scale_codes) = (bytes(count.div_ceil(2)), bytes(if layout.double.is_some() { blocks } else { 0 }));
    let all = numbers(1, layout.first_scale() + layout.scales());
    let scale = |block: usize| {
        let scale = |at: usize| all[layout.first_scale() + at];
        layout.double.map_or_else(
            || scale(block),
            |Nf4Double { group, offset }| all[16 + usize::from(scale_codes[block])] * scale(block / group) + offset,
        )
    };
    let number = |at: usize| {
        let code = codes[at / 2] >> (4 - at % 2 * 4) & 15;
        let number = all[usize::from(code)] * scale(at / layout.block);
        f64::from(if layout.rounding == FloatDType::BF16 { bf16::from_f32(number).to_f32() } else { number })
    };
    let expected = (0..count).map(number).collect();
    let codes: Vec<i32> = [words(&codes), words(&scale_codes)].concat();
    (indices(&codes), tensor(&all, [all.len()]), expected)
}

#[test]
fn numbers_are_values_times_scales() {
    let doubles = [None, Some(Nf4Double { group: 256, offset: 0.3 }), Some(Nf4Double { group: 3, offset: -0.1 })];
    for (shape, double) in [[5, 64], [13, 37], [1, 65], [130, 200], [3, 1]].into_iter().zip(doubles.iter().cycle()) {
        for rounding in [FloatDType::F32, FloatDType::BF16] {
            let layout = Nf4Layout { shape, block: 64, double: *double, rounding };
            let (codes, numbers, exact) = case(layout);
            assert!(nf4::takes(&codes, &layout));
            let found = values(nf4::numbers(codes.clone(), numbers.clone(), layout, FloatDType::F32));
            let composed = values(composed::nf4::numbers::<Cube>(codes, numbers, layout, FloatDType::F32));
            // A multiplication and an addition may be fused, which moves some numbers to the next one of bf16.
            let tolerance = if rounding == FloatDType::BF16 { 1.0 / 128.0 } else { 1e-5 };
            let moved = found.iter().zip(&exact).filter(|(found, exact)| (*found - *exact).abs() > 1e-5).count();
            assert!(moved * 100 <= exact.len(), "{moved} of {} for {layout:?}", exact.len());
            for ((found, composed), exact) in found.iter().zip(&composed).zip(&exact) {
                assert!(
                    (found - exact).abs() <= tolerance * exact.abs().max(1e-3),
                    "{layout:?}: {found} against {exact}"
                );
                assert!(
                    (composed - exact).abs() <= tolerance * exact.abs().max(1e-3),
                    "{layout:?}: composed {composed}"
                );
            }
        }
    }
}
