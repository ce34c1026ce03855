use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig};

#[allow(deprecated)]
pub fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folders of tiny checkpoints with what transformers computes from them.
pub fn golden() -> Vec<PathBuf> {
    let root = workspace().join("tests/golden/transformer");
    let mut folders: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(folders.len() >= 14, "{folders:?}");
    folders
}

pub fn case(name: &str) -> PathBuf {
    workspace().join("tests/golden/transformer").join(name)
}

/// A real model outside the repository, if it is there.
pub fn stories() -> Option<PathBuf> {
    crate::test_data::test_data("model/stories260K")
}

pub fn load(dir: &Path, device: &Device) -> (CausalLm, ModelConfig) {
    let options = LoadOptions { dtype: Some(FloatDType::F32), ..LoadOptions::default() };
    CausalLm::load(dir, &options, device).unwrap()
}

pub fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A tensor of a file, any number format as f64.
#[derive(Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

pub fn arrays(path: &Path) -> HashMap<String, Array> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |dtype: Dtype, data: &[u8]| -> Vec<f64> {
        match dtype {
            Dtype::F32 => data.as_chunks().0.iter().map(|&x| f64::from(f32::from_le_bytes(x))).collect(),
            Dtype::BF16 => {
                let bits = data.as_chunks().0.iter().map(|&x| u32::from(u16::from_le_bytes(x)) << 16);
                bits.map(|bits| f64::from(f32::from_bits(bits))).collect()
            }
            Dtype::I64 => data.as_chunks().0.iter().map(|&x| i64::from_le_bytes(x) as f64).collect(),
            other => panic!("{other:?}"),
        }
    };
    file.iter()
        .map(|(name, view)| {
            let array = Array { shape: view.shape().to_vec(), values: read(view.dtype(), view.data()) };
            (name.to_owned(), array)
        })
        .collect()
}
