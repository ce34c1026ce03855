use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use setpoint_ops::rotate;

use crate::config::{ModelConfig, QueryGrowth, RopeConfig, RopeSwitch};
use crate::design::LayerRope;

/// Rotary position embedding in the rotate-half layout of Hugging Face's checkpoints: element `i` of a head is paired with `i + n/2`.
///
/// Angles, cosines and sines are f32 whatever the model's dtype. The tables are computed on the host once per device and length, and shared
/// by all clones.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    /// The frequencies of texts up to the switch, and those of longer texts, which are none without one.
    inv_freq: [Arc<[f32]>; 2],
    switch: RopeSwitch,
    /// The factor of cosines and sines.
    magnitude: f32,
    growth: Option<QueryGrowth>,
    head_dim: usize,
    tables: Arc<Mutex<Vec<Table>>>,
}

#[derive(Clone, Debug)]
struct Table {
    device: Device,
    /// The numbers of positions for texts up to the switch, and for longer ones: the rows of these stand behind those.
    lengths: [usize; 2],
    /// `[Σ lengths, n/2]`
    cos: Tensor<2>,
    /// `[Σ lengths, n/2]`
    sin: Tensor<2>,
}

/// Cosines and sines at the positions of one pass, f32 and without a graph.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// `[t, m/2]`, where the first `m` elements of a head turn.
    cos: Tensor<2>,
    /// `[t, m/2]`
    sin: Tensor<2>,
    /// The factors of queries, `[t, 1]`, if one is not 1.
    queries: Option<Tensor<2>>,
    head_dim: usize,
}

/// The rotary embeddings of a model.
#[derive(Clone, Debug)]
pub(crate) struct Ropes {
    global: Rope,
    local: Option<Rope>,
}

/// Their rotations at the positions of one pass.
#[derive(Clone, Debug)]
pub(crate) struct Rotations {
    global: Rotation,
    local: Option<Rotation>,
}

impl Ropes {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self {
            global: Rope::new(&config.rope, config.head_dim),
            local: config.design.local_rope.as_ref().map(|rope| Rope::new(rope, config.head_dim)),
        }
    }

    /// Returns the rotations of tokens at `positions` of texts of `texts` tokens.
    pub(crate) fn at(&self, positions: &[i32], texts: &[usize], device: &Device) -> Rotations {
        Rotations {
            global: self.global.at(positions, texts, device),
            local: self.local.as_ref().map(|rope| rope.at(positions, texts, device)),
        }
    }

    /// Returns the length beyond which texts have other rotations.
    pub(crate) fn switch(&self) -> RopeSwitch {
        self.global.switch
    }
}

impl Rotations {
    /// Returns the rotation of a layer, if it has one.
    pub(crate) fn of(&self, layer: LayerRope) -> Option<&Rotation> {
        match layer {
            LayerRope::Global => Some(&self.global),
            LayerRope::Local => self.local.as_ref(),
            LayerRope::Absent => None,
        }
    }
}

impl Rope {
    pub(crate) fn new(config: &RopeConfig, head_dim: usize) -> Self {
        let narrow = |frequencies: Vec<f64>| frequencies.into_iter().map(|frequency| frequency as f32).collect();
        Self {
            inv_freq: [config.inv_freq(head_dim), config.long_inv_freq(head_dim).unwrap_or_default()].map(narrow),
            switch: config.switch(),
            magnitude: config.magnitude() as f32,
            growth: config.scaling.query_growth(),
            head_dim,
            tables: Arc::default(),
        }
    }

    /// Returns the rotation of tokens at `positions` of texts of `texts` tokens.
    pub(crate) fn at(&self, positions: &[i32], texts: &[usize], device: &Device) -> Rotation {
        let device = device.clone().without_autodiff();
        let places = || positions.iter().zip(texts).map(|(&position, &text)| (position, self.switch.is_long(text)));
        let mut ends = [0; 2];
        for (position, is_long) in places() {
            let end = &mut ends[usize::from(is_long)];
            *end = (*end).max(position as usize + 1);
        }
        let table = self.table(ends, &device);
        let long = table.lengths[0] as i32;
        let rows: Vec<i32> =
            places().map(|(position, is_long)| if is_long { long + position } else { position }).collect();
        let index = Tensor::<1, Int>::from_data(rows.as_slice(), &device);
        let (queries, head_dim) = (self.query_factors(positions, &device), self.head_dim);
        Rotation { cos: table.cos.select(0, index.clone()), sin: table.sin.select(0, index), queries, head_dim }
    }

    /// Returns the factors of queries at `positions`, `[t, 1]`, f32; `None` if all are 1.
    fn query_factors(&self, positions: &[i32], device: &Device) -> Option<Tensor<2>> {
        let growth = self.growth?;
        let factors: Vec<f32> = positions.iter().map(|&position| growth.factor(position as usize) as f32).collect();
        let grow = factors.iter().any(|&factor| factor != 1.0);
        grow.then(|| Tensor::from_data(TensorData::new(factors, [positions.len(), 1]), (device, DType::F32)))
    }

    /// Returns the table on a device, with at least `ends` positions for short and for long texts.
    fn table(&self, ends: [usize; 2], device: &Device) -> Table {
        // The tables are constants: no graph ever holds them.
        let device = device.clone().without_autodiff();
        // A panic while the lock was held leaves finished tables only.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lengths = [0; 2];
        if let Some(place) = tables.iter().position(|table| table.device == device) {
            lengths = tables[place].lengths;
            if lengths.iter().zip(ends).all(|(&length, end)| length >= end) {
                return tables[place].clone();
            }
            tables.swap_remove(place);
        }
        for (length, end) in lengths.iter_mut().zip(ends).filter(|(length, end)| **length < *end) {
            *length = end.next_power_of_two().max(64);
        }
        let shape = [lengths[0] + lengths[1], self.inv_freq[0].len()];
        let angles = || {
            self.inv_freq.iter().zip(lengths).flat_map(|(frequencies, length)| {
                (0..length).flat_map(move |position| {
                    // The product is rounded to f32, as in the code the checkpoints were trained with.
                    frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency))
                })
            })
        };
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32));
        let table = Table {
            cos: tensor(angles().map(|angle| angle.cos() as f32 * self.magnitude).collect()),
            sin: tensor(angles().map(|angle| angle.sin() as f32 * self.magnitude).collect()),
            device,
            lengths,
        };
        tables.push(table.clone());
        table
    }
}

impl Rotation {
    /// Turns queries as [`apply`](Self::apply) does, and multiplies them by their factors, rounded to the dtype of `q`.
    ///
    /// # Shapes
    ///
    /// `[t, heads·n] -> [t, heads·n]`
    pub(crate) fn apply_to_queries(&self, q: Tensor<2>) -> Tensor<2> {
        let dtype: FloatDType = q.dtype().into();
        let q = self.apply(q);
        match &self.queries {
            Some(factors) => q * factors.clone().cast(dtype),
            None => q,
        }
    }

    /// Turns each pair of each head: `(a, b) -> (a cos - b sin, b cos + a sin)`, in f32, rounded once to the dtype of `x`. Elements of a head
    /// behind the part that turns stay as they are.
    ///
    /// # Shapes
    ///
    /// `[t, heads·n] -> [t, heads·n]`
    pub(crate) fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let turn = |x: Tensor<2>| rotate(x, self.cos.clone(), self.sin.clone());
        let (n, part) = (self.head_dim, 2 * self.cos.dims()[1]);
        if part == n {
            return turn(x);
        }
        let [t, width] = x.dims();
        let heads = width / n;
        // [t, heads·n] -> [t, heads, n] -> [t, heads·part]
        let x = x.reshape([t, heads, n]);
        let turned = turn(x.clone().narrow(2, 0, part).reshape([t, heads * part])).reshape([t, heads, part]);
        Tensor::cat(vec![turned, x.narrow(2, part, n - part)], 2).reshape([t, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RopeScaling;
    use crate::finite_difference::{check, devices, tensor};

    fn config() -> RopeConfig {
        RopeConfig { theta: 100.0, rotary_share: 1.0, scaling: RopeScaling::Default }
    }

    fn rope() -> Rope {
        Rope::new(&config(), 4)
    }

    #[test]
    fn halves_are_rotated() {
        for device in devices() {
            let x = tensor(3, [2, 4], &device);
            let values = x.to_data().try_into_vec::<f32>().unwrap();
            let y = rope().at(&[7, 8], &[9; 2], &device).apply(x).into_data().try_into_vec::<f32>().unwrap();
            for (s, position) in [(0, 7.0), (1, 8.0)] {
                for (i, frequency) in [(0, 1.0), (1, 0.1)] {
                    let (sin, cos) = f64::sin_cos(position * frequency);
                    let at = |i: usize| f64::from(values[4 * s + i]);
                    assert!((f64::from(y[4 * s + i]) - (at(i) * cos - at(i + 2) * sin)).abs() < 1e-6);
                    assert!((f64::from(y[4 * s + i + 2]) - (at(i + 2) * cos + at(i) * sin)).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn the_rest_of_a_head_stays_as_it_is() {
        for device in devices() {
            let part = Rope::new(&RopeConfig { rotary_share: 0.5, ..config() }, 8).at(&[7, 8], &[9; 2], &device);
            let x: Tensor<2> = tensor(3, [2, 16], &device);
            let y = part.apply(x.clone());
            for start in [0, 8] {
                let of = |x: &Tensor<2>, from: usize| x.clone().narrow(1, from, 4).into_data();
                let turned = rope().at(&[7, 8], &[9; 2], &device).apply(x.clone().narrow(1, start, 4)).into_data();
                of(&y, start).assert_eq(&turned, true);
                of(&y, start + 4).assert_eq(&of(&x, start + 4), true);
            }
        }
    }

    #[test]
    fn gradients() {
        for device in devices() {
            let half = Rope::new(&RopeConfig { rotary_share: 0.5, ..config() }, 8);
            for rotation in [rope().at(&[3, 4, 5], &[6; 3], &device), half.at(&[3, 4, 5], &[6; 3], &device)] {
                check([3, 8], &device, |x| rotation.apply(x));
            }
        }
    }

    #[test]
    fn a_position_has_one_rotation_however_long_the_table_is() {
        for device in devices() {
            let rope = rope();
            let short = rope.at(&[5], &[6], &device);
            let long = rope.at(&[70, 71, 5], &[72, 72, 6], &device);
            let apart = [Rope::new(&config(), 4).at(&[70, 71], &[72; 2], &device), short];
            let cat =
                |of: fn(&Rotation) -> &Tensor<2>| Tensor::cat(apart.iter().map(|part| of(part).clone()).collect(), 0);
            long.cos.into_data().assert_eq(&cat(|part| &part.cos).into_data(), true);
            long.sin.into_data().assert_eq(&cat(|part| &part.sin).into_data(), true);
        }
    }

    #[test]
    fn each_text_of_a_pass_has_the_frequencies_of_its_length() {
        let longrope = |short: f64, long: f64| RopeConfig {
            scaling: RopeScaling::LongRope {
                short_factor: vec![short; 2],
                long_factor: vec![long; 2],
                factor: None,
                attention_factor: Some(1.5),
                original_max_position_embeddings: 6,
                max_position_embeddings: 200,
            },
            ..config()
        };
        for device in devices() {
            let rope = Rope::new(&longrope(2.0, 3.0), 4);
            // The same factors for all texts.
            let [short, long] = [2.0, 3.0].map(|factor| Rope::new(&longrope(factor, factor), 4));
            // Long texts first, short ones first, and both; tables grow in between.
            for (positions, texts) in [
                (&[0, 6][..], &[7, 7][..]),
                (&[0, 5][..], &[6, 6][..]),
                (&[5, 5, 0, 150, 3][..], &[6, 7, 200, 151, 1][..]),
                (&[1, 6, 5][..], &[6, 7, 6][..]),
            ] {
                let found = rope.at(positions, texts, &device);
                for (i, (&position, &text)) in positions.iter().zip(texts).enumerate() {
                    let expected = if text > 6 { &long } else { &short }.at(&[position], &[text], &device);
                    for (found, expected) in [(&found.cos, expected.cos), (&found.sin, expected.sin)] {
                        found.clone().narrow(0, i, 1).into_data().assert_eq(&expected.into_data(), true);
                    }
                }
            }
        }
    }
}
