//! Where a run computes: what decides the precision of its weights, and the memory that it has.

use burn::tensor::FloatDType;
use setpoint_train::DeviceGroup;
use setpoint_transformer::ModelConfig;

use crate::config::sections::{Dtype, ModelSection};
use crate::device::{self, Kind};
use crate::failure::Outcome;
use crate::memory;

/// The devices of a run, which a plan need not open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    kind: Kind,
    /// Whether bf16 and f16 checkpoints keep their dtype.
    half_precision: bool,
    /// How many devices there are. Each holds the whole model.
    count: usize,
    /// Memory of each, bytes, where the user has said it.
    told: Option<f64>,
}

impl Place {
    /// Open devices. `told`: the memory of each, where the user has said it.
    pub fn of(devices: &DeviceGroup, told: Option<f64>) -> Self {
        let first = devices.first();
        Self { kind: Kind::of(first), half_precision: device::keeps_half_precision(first), count: devices.len(), told }
    }

    /// The devices of a name, compiled in or not.
    ///
    /// # Errors
    /// One sentence if the name is not a device's.
    pub fn named(name: Option<&str>, told: Option<f64>) -> Outcome<Self> {
        let (kind, count) = device::describe(name)?;
        Ok(Self { kind, half_precision: kind.expects_half_precision(), count, told })
    }

    /// How many devices there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The number format of a model's weights there.
    pub fn dtype(&self, model: &ModelSection, config: &ModelConfig) -> FloatDType {
        match model.dtype {
            // Random weights are f32.
            _ if model.path.is_none() => FloatDType::F32,
            Dtype::F32 => FloatDType::F32,
            Dtype::Bf16 => FloatDType::BF16,
            Dtype::F16 => FloatDType::F16,
            Dtype::Auto if self.half_precision => config.dtype.unwrap_or(FloatDType::F32),
            Dtype::Auto => FloatDType::F32,
        }
    }

    /// Memory that one device's part of a run may take, bytes; `None` where it is not known, as on GPUs.
    pub fn room(&self) -> Option<f64> {
        if self.kind.is_cpu() {
            // Devices of the CPU share its memory.
            let all = self.told.or_else(|| memory::available().map(|bytes| bytes as f64))?;
            Some(all / self.count as f64)
        } else {
            self.told
        }
    }
}

/// Reads an amount of memory: `80GiB`, `80GB`, `512MiB`, `80G` (binary, as in docker) or a number of bytes.
pub fn parse_memory(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024f64.powi(2),
        "g" | "gib" => 1024f64.powi(3),
        "t" | "tib" => 1024f64.powi(4),
        _ => f64::NAN,
    };
    let bytes = number.parse::<f64>().unwrap_or(f64::NAN) * factor;
    if bytes.is_finite() && bytes > 0.0 {
        Ok(bytes)
    } else {
        Err("expected an amount of memory, as in 80GiB, 80GB or a number of bytes".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory() {
        let gib = f64::from(1u32 << 30);
        for (text, bytes) in [
            ("80GiB", 80.0 * gib),
            ("80 GiB", 80.0 * gib),
            ("0.5g", gib / 2.0),
            ("80GB", 80e9),
            ("1.5TB", 1.5e12),
            ("512MiB", gib / 2.0),
            ("1000", 1000.0),
            ("1000B", 1000.0),
        ] {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "80XB", "-1GiB", "0", "1e400", "inf", "80GiB!", "1.2.3GB"] {
            parse_memory(text).expect_err(text);
        }
    }

    #[test]
    fn a_place_has_the_memory_that_it_was_given_and_its_kind_decides_the_precision() {
        let gpu = Place::named(Some("cuda:0,1"), Some(8e9)).unwrap();
        assert_eq!((gpu.count(), gpu.room()), (2, Some(8e9)));
        assert_eq!(Place::named(Some("wgpu"), None).unwrap().room(), None);
        // Two devices of one processor share its memory.
        assert_eq!(Place::named(Some("flex,flex"), Some(8e9)).unwrap().room(), Some(4e9));

        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/Llama-3.2-1B-Instruct/config.json");
        let config = ModelConfig::from_file(std::path::Path::new(file)).unwrap();
        let section = |dtype| ModelSection { path: Some("model".into()), dtype, ..ModelSection::default() };
        let cpu = Place::named(Some("flex"), None).unwrap();
        let dtypes = |place: &Place| {
            [Dtype::Auto, Dtype::F32, Dtype::Bf16, Dtype::F16].map(|dtype| place.dtype(&section(dtype), &config))
        };
        let [f32, bf16, f16] = [FloatDType::F32, FloatDType::BF16, FloatDType::F16];
        assert_eq!(dtypes(&gpu), [bf16, f32, bf16, f16]);
        assert_eq!(dtypes(&cpu), [f32, f32, bf16, f16]);
        assert_eq!(gpu.dtype(&ModelSection::default(), &config), f32, "random weights");
    }
}
