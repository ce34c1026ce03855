//! AdamW, the sum of squares and the gradient of an embedding.

use super::*;
use crate::adamw::AdamWStep;
use crate::composed;
use crate::cube::{adamw, embedding};

#[test]
fn a_step() {
    let step = AdamWStep {
        decay: 0.99,
        beta1: 0.9,
        beta2: 0.999,
        scale: 0.5,
        rate: 1e-2 / 0.1,
        root: 0.001f64.sqrt(),
        eps: 1e-8,
    };
    for n in [1, 37, 4096, 20_001] {
        let [w, m, g] = [1, 2, 3].map(|seed| numbers(seed, n));
        let v: Vec<f32> = numbers(4, n).into_iter().map(|x| x * x).collect();
        let mut exact = [(); 3].map(|()| vec![]);
        for i in 0..n {
            let [w, m, v, g] = [w[i], m[i], v[i], g[i]].map(f64::from);
            let gradient = step.scale * g;
            let first = step.beta1 * m + (1.0 - step.beta1) * gradient;
            let second = step.beta2 * v + (1.0 - step.beta2) * gradient * gradient;
            exact[0].push(step.decay * w - step.rate * first / (second.sqrt() / step.root + step.eps));
            exact[1].push(first);
            exact[2].push(second);
        }
        let tensors = || [&w, &m, &v].map(|x| tensor(x, [n]));
        let found = adamw::step(tensors(), tensor(&g, [n]), step);
        let composed = composed::adamw::step::<Cube>(tensors(), tensor(&g, [n]), step);
        for ((found, composed), exact) in found.into_iter().zip(composed).zip(&exact) {
            assert_result("step", found, composed, exact);
        }
    }
}

#[test]
fn a_weight_that_someone_holds_is_not_changed() {
    let step = AdamWStep { decay: 0.5, beta1: 0.9, beta2: 0.9, scale: 1.0, rate: 0.1, root: 1.0, eps: 1e-8 };
    let held = tensor(&numbers(1, 64), [64]);
    let before = values(held.clone());
    let one = || tensor(&[1.0; 64], [64]);
    let [after, ..] = adamw::step([held.clone(), one(), one()], one(), step);
    assert_eq!(values(held), before);
    assert_ne!(values(after), before);
}

#[test]
fn squares() {
    // Less than a cube takes, exactly as many, and more cubes than units.
    for n in [1, 300, 16_384, 5_000_001] {
        let x = numbers(1, n);
        let exact: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        let found = values(adamw::sum_of_squares(tensor(&x, [n])))[0];
        assert!((found - exact).abs() <= TOLERANCE * exact, "{n}: {found} against {exact}");
        let again = values(adamw::sum_of_squares(tensor(&x, [n])))[0];
        assert_eq!(found.to_bits(), again.to_bits());
    }
}

#[test]
fn rows_of_a_table() {
    for (height, width, ids) in
        [(3, 5, vec![2, 0, 2, 2]), (1, 1, vec![0; 300]), (50, 300, (0..600).map(|i| i * i % 50).collect())]
    {
        let (table, rows) = (numbers(1, height * width), numbers(2, ids.len() * width));
        let mut exact = wide(&table);
        for (row, id) in ids.iter().enumerate() {
            (0..width).for_each(|i| exact[*id as usize * width + i] += f64::from(rows[row * width + i]));
        }
        let table = || tensor(&table, [height, width]);
        let (ids, rows) = (indices(&ids), tensor(&rows, [ids.len(), width]));
        let held = table();
        let found = embedding::add_rows(held.clone(), ids.clone(), rows.clone());
        assert_result("table", found, composed::adamw::add_rows::<Cube>(table(), ids, rows), &exact);
        assert_eq!(values(held), values(table()));
    }
}
