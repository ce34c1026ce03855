//! The devices of a run, which decide the precision of its weights and the memory that it has.

use burn::tensor::FloatDType;
use setpoint_transformer::ModelConfig;

use super::memory;
use crate::config::sections::{Dtype, ModelSection};

/// The properties of a kind of devices that decide the precision of weights and the memory of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// True if bf16 and f16 checkpoints keep their dtype: on GPUs that compute in it. CPUs emulate it, which is slow.
    pub keeps_half_precision: bool,
    /// True if it computes in the machine's own memory.
    pub is_cpu: bool,
}

impl Hardware {
    /// The CPU of this machine.
    pub const CPU: Self = Self { keeps_half_precision: false, is_cpu: true };
}

/// The devices of a run, which a plan need not open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    hardware: Hardware,
    /// The number of devices. Each holds all weights.
    count: usize,
    /// Memory of each, bytes, where the user has said it.
    told: Option<f64>,
}

impl Place {
    /// Describes `count` devices. `told`: the memory of each in bytes, if the user has said it.
    pub fn new(hardware: Hardware, count: usize, told: Option<f64>) -> Self {
        Self { hardware, count, told }
    }

    /// Returns how many devices there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns whether bf16 and f16 checkpoints keep their dtype.
    pub fn keeps_half_precision(&self) -> bool {
        self.hardware.keeps_half_precision
    }

    /// Returns the number format of a model's weights there.
    pub fn dtype(&self, model: &ModelSection, config: &ModelConfig) -> FloatDType {
        match model.dtype {
            // Random weights are f32.
            _ if model.path.is_none() => FloatDType::F32,
            Dtype::F32 => FloatDType::F32,
            Dtype::Bf16 => FloatDType::BF16,
            Dtype::F16 => FloatDType::F16,
            Dtype::Auto if self.keeps_half_precision() => config.dtype.unwrap_or(FloatDType::F32),
            Dtype::Auto => FloatDType::F32,
        }
    }

    /// Returns whether it computes in the machine's own memory.
    pub fn is_cpu(&self) -> bool {
        self.hardware.is_cpu
    }

    /// Returns the memory that one device's part of a run may take, bytes; `None` where it is not known, as on GPUs.
    pub fn room(&self) -> Option<f64> {
        if self.hardware.is_cpu {
            // Devices of the CPU share its memory.
            let all = self.told.or_else(|| memory::available().map(|bytes| bytes as f64))?;
            Some(all / self.count as f64)
        } else {
            self.told
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_the_memory_that_it_was_given_and_its_kind_decides_the_precision() {
        let gpu = Place::new(Hardware { keeps_half_precision: true, is_cpu: false }, 2, Some(8e9));
        assert_eq!((gpu.count(), gpu.room()), (2, Some(8e9)));
        let unknown = Hardware { keeps_half_precision: false, is_cpu: false };
        assert_eq!(Place::new(unknown, 1, None).room(), None);
        // Two devices of one processor share its memory.
        assert_eq!(Place::new(Hardware::CPU, 2, Some(8e9)).room(), Some(4e9));

        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/Llama-3.2-1B-Instruct/config.json");
        let config = ModelConfig::from_file(std::path::Path::new(file)).unwrap();
        let section = |dtype| ModelSection { path: Some("model".into()), dtype, ..ModelSection::default() };
        let cpu = Place::new(Hardware::CPU, 1, None);
        let dtypes = |place: &Place| {
            [Dtype::Auto, Dtype::F32, Dtype::Bf16, Dtype::F16].map(|dtype| place.dtype(&section(dtype), &config))
        };
        let [f32, bf16, f16] = [FloatDType::F32, FloatDType::BF16, FloatDType::F16];
        assert_eq!(dtypes(&gpu), [bf16, f32, bf16, f16]);
        assert_eq!(dtypes(&cpu), [f32, f32, bf16, f16]);
        assert_eq!(gpu.dtype(&ModelSection::default(), &config), f32, "random weights");
    }
}
