//! Dequantisation, and products with few rows.

use burn::tensor::bf16;

use super::*;
use crate::composed;
use crate::composed::nf4::Nf4Tensors;
use crate::cube::{nf4, nf4_product};
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
            assert_eq!(nf4::problem(&codes, &layout), None);
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

/// A multiplication and an addition may be fused, which moves a number of bf16 to the next one: scales without an offset have none.
const KINDS: [(Option<Nf4Double>, FloatDType); 4] = [
    (None, FloatDType::F32),
    (None, FloatDType::BF16),
    (Some(Nf4Double { group: 256, offset: 0.3 }), FloatDType::F32),
    (Some(Nf4Double { group: 3, offset: -0.1 }), FloatDType::F32),
];

/// Outputs and inputs, the length of blocks, rows and the kind: one team of units and several, columns that the units of a cube do not share
/// evenly, rows that do not fill a cube, and several cubes of rows. Each product is one more kernel to compile.
const PRODUCTS: [([usize; 2], usize, usize, usize); 10] = [
    ([5, 64], 64, 1, 0),
    ([33, 264], 128, 2, 1),
    ([5, 64], 64, 3, 3),
    ([33, 264], 128, 8, 2),
    ([130, 200], 64, 17, 1),
    ([3, 1], 64, 1, 3),
    ([70, 333], 16, 2, 1),
    ([9, 1031], 7, 3, 0),
    ([41, 72], 20, 5, 2),
    ([1, 65], 64, 33, 3),
];

/// The cases cover every kernel that is compiled: whole runs of codes or single ones, with each number of rows in a cube and each kind of codes.
#[test]
fn products_are_tried_with_each_kernel() {
    let mut seen = std::collections::BTreeSet::new();
    for ([_, inputs], block, rows, kind) in PRODUCTS {
        let has_runs = inputs.is_multiple_of(8) && block.is_multiple_of(8);
        seen.extend([(has_runs, "rows", rows.next_power_of_two().min(16)), (has_runs, "kind", kind)]);
    }
    assert_eq!(seen.len(), 2 * (5 + KINDS.len()), "{seen:?}");
}

#[test]
fn products_with_few_rows_are_those_of_the_dequantised_matrix() {
    for (shape, block, rows, kind) in PRODUCTS {
        let (double, rounding) = KINDS[kind];
        let layout = Nf4Layout { shape, block, double, rounding };
        let (codes, numbers_of, exact) = case(layout);
        let weight = Nf4Tensors::<Cube> { codes, numbers: numbers_of, layout };
        let [outputs, inputs] = shape;
        let (x, g) = (numbers(7, rows * inputs), numbers(8, rows * outputs));
        let (wide_x, wide_g) = (wide(&x), wide(&g));
        let mut y = vec![0.0; rows * outputs];
        let mut in_x = vec![0.0; rows * inputs];
        for (row, o, k) in
            (0..rows).flat_map(|row| (0..outputs * inputs).map(move |at| (row, at / inputs, at % inputs)))
        {
            let number = exact[o * inputs + k];
            y[row * outputs + o] += wide_x[row * inputs + k] * number;
            in_x[row * inputs + k] += wide_g[row * outputs + o] * number;
        }
        let what = format!("{rows} rows, {layout:?}");
        let (x, g) = (tensor(&x, [rows, inputs]), tensor(&g, [rows, outputs]));
        let composed = composed::nf4::forward::<Cube>(x.clone(), weight.clone());
        assert_result(&what, nf4_product::forward(x.clone(), weight.clone()), composed, &y);
        let composed = composed::nf4::backward::<Cube>(weight.clone(), g.clone());
        assert_gradient(&what, nf4_product::backward(weight.clone(), g.clone()), composed, &in_x);
        assert_eq!(nf4_product::problem(&x, &weight), None);
        assert_eq!(nf4_product::has_few_rows(&x), rows <= nf4_product::FEW_ROWS);
    }
}

#[test]
fn few_rows_launch_one_kernel_and_more_make_the_matrix_first() {
    let layout = Nf4Layout { shape: [24, 64], block: 64, double: None, rounding: FloatDType::F32 };
    let (codes, numbers_of, _) = case(layout);
    let weight = Nf4Tensors::<Cube> { codes, numbers: numbers_of, layout };
    let launches = |rows: usize| {
        let (x, g) = (tensor(&numbers(1, rows * 64), [rows, 64]), tensor(&numbers(2, rows * 24), [rows, 24]));
        count_launches(&Device::wgpu(DeviceKind::DefaultDevice), || {
            drop(Cube::linear_nf4_forward(x, weight.clone()));
            drop(Cube::linear_nf4_backward(weight.clone(), g));
        })
    };
    let (few, many) = (launches(nf4_product::FEW_ROWS), launches(nf4_product::FEW_ROWS + 1));
    assert_eq!(few.values().sum::<usize>(), 2, "{few:?}");
    assert!(many.values().sum::<usize>() > 2, "{many:?}");
}
