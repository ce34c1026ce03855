use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use setpoint_ops::rotate;

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

/// Cosines and sines at the positions of one pass, f32 and without a graph.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// `[t, n/2]`
    cos: Tensor<2>,
    /// `[t, n/2]`
    sin: Tensor<2>,
}

impl Rope {
    pub(crate) fn new(config: &RopeConfig, head_dim: usize) -> Self {
        Self {
            inv_freq: config.inv_freq(head_dim).into_iter().map(|frequency| frequency as f32).collect(),
            tables: Arc::default(),
        }
    }

    /// Returns the rotation of tokens at `positions`.
    pub(crate) fn at(&self, positions: &[i32], device: &Device) -> Rotation {
        let device = device.clone().without_autodiff();
        let end = positions.iter().copied().max().map_or(0, |last| last as usize + 1);
        let table = self.table(end, &device);
        let index = Tensor::<1, Int>::from_data(positions, &device);
        Rotation { cos: table.cos.select(0, index.clone()), sin: table.sin.select(0, index) }
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
    /// Turns each pair of each head: `(a, b) -> (a cos - b sin, b cos + a sin)`, in f32, rounded once to the dtype of `x`.
    ///
    /// # Shapes
    ///
    /// `[t, heads·n] -> [t, heads·n]`
    pub(crate) fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        rotate(x, self.cos.clone(), self.sin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RopeScaling;
    use crate::finite_difference::{check, devices, tensor};

    fn config() -> RopeConfig {
        RopeConfig { theta: 100.0, scaling: RopeScaling::Default }
    }

    fn rope() -> Rope {
        Rope::new(&config(), 4)
    }

    #[test]
    fn halves_are_rotated() {
        for device in devices() {
            let x = tensor(3, [2, 4], &device);
            let values = x.to_data().try_into_vec::<f32>().unwrap();
            let y = rope().at(&[7, 8], &device).apply(x).into_data().try_into_vec::<f32>().unwrap();
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
            let rotation = rope().at(&[3, 4, 5], &device);
            check([3, 8], &device, |x| rotation.apply(x));
        }
    }

    #[test]
    fn a_position_has_one_rotation_however_long_the_table_is() {
        for device in devices() {
            let rope = rope();
            let short = rope.at(&[5], &device);
            let long = rope.at(&[70, 71, 5], &device);
            let apart = [Rope::new(&config(), 4).at(&[70, 71], &device), short];
            let cat =
                |of: fn(&Rotation) -> &Tensor<2>| Tensor::cat(apart.iter().map(|part| of(part).clone()).collect(), 0);
            long.cos.into_data().assert_eq(&cat(|part| &part.cos).into_data(), true);
            long.sin.into_data().assert_eq(&cat(|part| &part.sin).into_data(), true);
        }
    }
}
