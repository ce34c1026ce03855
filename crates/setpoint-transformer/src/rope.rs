use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use crate::config::RopeConfig;

/// Rotary position embedding in the rotate-half layout of Hugging Face's checkpoints: element `i` of a head is paired with `i + n/2`.
///
/// Angles, cosines and sines are f32 whatever the model's dtype. The tables are computed on the host once per device and length, and shared
/// by all clones.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    inv_freq: Arc<[f32]>,
    tables: Arc<Mutex<Vec<Table>>>,
}

#[derive(Clone, Debug)]
struct Table {
    device: Device,
    /// `[length, n/2]`
    cos: Tensor<2>,
    /// `[length, n/2]`
    sin: Tensor<2>,
}

/// Cosines and sines at the positions of one pass.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// `[1, 1, s, n/2]`
    cos: Tensor<4>,
    /// `[1, 1, s, n/2]`
    sin: Tensor<4>,
}

impl Rope {
    pub(crate) fn new(config: &RopeConfig, head_dim: usize) -> Self {
        Self {
            inv_freq: config.inv_freq(head_dim).into_iter().map(|frequency| frequency as f32).collect(),
            tables: Arc::default(),
        }
    }

    /// The rotation at positions `start .. start + length`, the same for every row.
    pub(crate) fn range(&self, start: usize, length: usize, device: &Device) -> Rotation {
        let table = self.table(start + length, device);
        // [length, n/2] -> [1, 1, s, n/2]
        let cut = |table: Tensor<2>| table.narrow(0, start, length).unsqueeze::<4>();
        Rotation { cos: cut(table.cos), sin: cut(table.sin) }
    }

    /// Cosines and sines at `positions`, `[t, n/2]` each, f32 and without a graph.
    pub(crate) fn tables(&self, positions: &[i32], device: &Device) -> (Tensor<2>, Tensor<2>) {
        let device = device.clone().without_autodiff();
        let end = positions.iter().copied().max().map_or(0, |last| last as usize + 1);
        let table = self.table(end, &device);
        let index = Tensor::<1, Int>::from_data(positions, &device);
        (table.cos.select(0, index.clone()), table.sin.select(0, index))
    }

    fn table(&self, length: usize, device: &Device) -> Table {
        // The tables are constants: no graph ever holds them.
        let device = device.clone().without_autodiff();
        // A panic while the lock was held leaves finished tables only.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|table| table.device != device || table.cos.dims()[0] >= length);
        if let Some(table) = tables.iter().find(|table| table.device == device) {
            return table.clone();
        }
        let length = length.next_power_of_two().max(64);
        let half = self.inv_freq.len();
        let angles = || {
            (0..length).flat_map(|position| {
                // The product is rounded to f32, as in the code the checkpoints were trained with.
                self.inv_freq.iter().map(move |frequency| f64::from(position as f32 * frequency))
            })
        };
        let tensor =
            |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [length, half]), (&device, DType::F32));
        let table = Table {
            cos: tensor(angles().map(|angle| angle.cos() as f32).collect()),
            sin: tensor(angles().map(|angle| angle.sin() as f32).collect()),
            device,
        };
        tables.push(table.clone());
        table
    }
}

impl Rotation {
    /// Turns each pair: `(a, b) -> (a cos - b sin, b cos + a sin)`, in f32, rounded once to the dtype of `x`.
    ///
    /// # Shapes
    ///
    /// `[b, h, s, n] -> [b, h, s, n]`
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype: FloatDType = x.dtype().into();
        let half = x.dims()[3] / 2;
        let x = x.cast(FloatDType::F32);
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        let second = b * cos + a * sin;
        Tensor::cat(vec![first, second], 3).cast(dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RopeScaling;
    use crate::finite_difference::{check, devices, tensor};

    fn rope() -> Rope {
        Rope::new(&RopeConfig { theta: 100.0, scaling: RopeScaling::Default }, 4)
    }

    #[test]
    fn halves_are_rotated() {
        for device in devices() {
            let x = tensor(3, [1, 1, 2, 4], &device);
            let values = x.to_data().try_into_vec::<f32>().unwrap();
            let y = rope().range(7, 2, &device).apply(x).into_data().try_into_vec::<f32>().unwrap();
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
    fn gradients() {
        for device in devices() {
            let rotation = rope().range(3, 3, &device);
            check([1, 2, 3, 4], &device, |x| rotation.apply(x));
        }
    }

    #[test]
    fn tables_at_positions_equal_ranges() {
        for device in devices() {
            let rope = rope();
            let (cos, sin) = rope.tables(&[70, 71, 5], &device);
            let range = |start, length| {
                let rotation = rope.range(start, length, &device);
                [rotation.cos, rotation.sin].map(|table| table.reshape([length, 2]))
            };
            let both = range(70, 2).into_iter().zip(range(5, 1)).map(|(a, b)| Tensor::cat(vec![a, b], 0));
            for (found, expected) in [cos, sin].into_iter().zip(both) {
                found.into_data().assert_eq(&expected.into_data(), true);
            }
        }
    }
}
