//! Every kernel as CUDA C++, for a check by NVIDIA's compiler on a machine without a GPU.
//!
//! The passes are launched as a training launches them, on a device that keeps the kernels instead of running them. Then they are translated,
//! one after another: some passes of CubeCL's translator take time that grows with the square of a kernel's length.

mod recorder;
mod translate;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use burn::tensor::{DType, FloatDType, Shape};
use burn_cubecl::CubeBackend as Cube;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl_server::kernel::CubeKernel;

use super::nf4_product::FEW_ROWS;
use crate::adamw::{AdamWStep, OptimizerOps};
use crate::backend::Kernels;
use crate::composed::nf4::Nf4Tensors;
use crate::dropout::DropoutMask;
use crate::generation::{GenerationOps, Span, Spans};
use crate::heads::Heads;
use crate::nf4::{Nf4Double, Nf4Layout, Nf4Ops};
use crate::packing::Packing;
use recorder::{Launched, Recorder};
use translate::translate_within;

/// Where the kernels of this crate are.
const OWN: &str = "setpoint_ops::cube::";

/// Sizes of heads: those of known models, the most common first, and the largest that kernels take.
const HEADS: [usize; 5] = [128, 64, 80, 96, 256];

/// Columns of a row, as Llama-3-8B has them.
const WIDTH: usize = 4096;

const TOKENS: usize = 256;

/// A kernel, and what came of its translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaKernel {
    /// The function in Rust, with its path in the folder of kernels.
    pub kernel: String,
    /// How numbers are stored, and for attention the size of a head.
    pub case: String,
    /// The time that the translation took.
    pub time: Duration,
    /// The program, or why there is none.
    pub source: Result<CudaSource, String>,
}

/// A program in CUDA C++, as CubeCL hands it to NVRTC on an H100 or H200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaSource {
    /// The name of the function in CUDA C++.
    pub entry: String,
    /// Threads of a block.
    pub units: u32,
    /// Bytes of shared memory of a block, which a launch asks for.
    pub shared: usize,
    /// The text.
    pub text: String,
}

/// Translates the kernels whose name and case, separated by a comma and a space, contain `only`, in each storage format and for each size of a
/// head. `found` gets each as soon as it is done, programs that differ in their names alone once. It needs no GPU.
///
/// A kernel that CubeCL does not translate within `limit` is handed over with this reason. Its translation goes on until the process ends.
///
/// # Errors
/// When `found` fails, and when kernels of Burn ran in place of those of this crate, which it names.
pub fn cuda_sources(
    only: &str,
    limit: Duration,
    found: &mut dyn FnMut(CudaKernel) -> Result<(), String>,
) -> Result<(), String> {
    let mut known = HashSet::new();
    launch_all(&mut |kernel, case, definition| {
        if !format!("{kernel}, {case}").contains(only) {
            return Ok(());
        }
        let began = Instant::now();
        let source = translate_within(definition, limit);
        let time = began.elapsed();
        let is_new = match &source {
            Ok(source) => known.insert((kernel.clone(), source.text.replace(&source.entry, ""))),
            Err(_) => true,
        };
        if is_new { found(CudaKernel { kernel, case: case.to_owned(), time, source }) } else { Ok(()) }
    })
}

/// Takes a kernel that is launched for the first time: its name, the case and the kernel itself.
type Visit<'a> = &'a mut dyn FnMut(String, &str, Box<dyn CubeKernel>) -> Result<(), String>;

/// Launches every pass, bf16 first.
fn launch_all(visit: Visit<'_>) -> Result<(), String> {
    let mut cases = Cases { recorder: Recorder::new(), visit, foreign: vec![] };
    cases.optimizer()?;
    for dtype in [FloatDType::BF16, FloatDType::F32] {
        cases.rows(dtype)?;
        for dim in HEADS {
            cases.attention(dtype, dim)?;
        }
        cases.nf4(dtype)?;
    }
    if cases.foreign.is_empty() { Ok(()) } else { Err(cases.foreign.join("\n")) }
}

struct Cases<'a> {
    recorder: Recorder,
    visit: Visit<'a>,
    /// Words on kernels that are not this crate's.
    foreign: Vec<String>,
}

impl Cases<'_> {
    fn tensor<const D: usize>(&self, shape: [usize; D], dtype: impl Into<DType>) -> CubeTensor {
        let Recorder { client, device, .. } = &self.recorder;
        empty_device_contiguous_dtype(client.clone(), device.clone(), Shape::from(shape), dtype.into())
    }

    /// Hands over what has been launched since the last call.
    fn note(&mut self, case: &str) -> Result<(), String> {
        for Launched(kernel) in self.recorder.take()? {
            let name = kernel.name();
            let path = name.split('<').next().unwrap_or(name);
            match path.strip_prefix(OWN).and_then(|path| path.rsplit_once("::")) {
                Some((path, _)) => (self.visit)(path.to_owned(), case, kernel)?,
                None => self.foreign.push(format!("{case}: Burn's kernel {name} runs in place of one of Setpoint's")),
            }
        }
        Ok(())
    }

    fn optimizer(&mut self) -> Result<(), String> {
        let row = || self.tensor([TOKENS * WIDTH], DType::F32);
        let step = AdamWStep { decay: 1.0, beta1: 0.9, beta2: 0.999, scale: 1.0, rate: 1e-3, root: 1.0, eps: 1e-8 };
        let _ = Cube::adamw(row(), row(), row(), row(), step);
        let _ = Cube::sum_of_squares(row(), WIDTH);
        let matrix = || self.tensor([TOKENS, WIDTH], DType::F32);
        let _ = Cube::add_rows(matrix(), self.tensor([TOKENS], DType::I32), matrix());
        self.note("f32")
    }

    fn rows(&mut self, dtype: FloatDType) -> Result<(), String> {
        let matrix = || self.tensor([TOKENS, WIDTH], dtype);
        let weight = || self.tensor([WIDTH], dtype);
        let scales = self.tensor([TOKENS, 1], DType::F32);
        let _ = Cube::rms_norm_forward(matrix(), weight(), 1e-5);
        let _ = Cube::rms_norm_backward(matrix(), weight(), scales, matrix(), [true, true]);
        let angles = || self.tensor([TOKENS, 64], DType::F32);
        let _ = Cube::rotate_by(matrix(), angles(), angles(), false);
        let _ = Cube::swiglu_forward(matrix(), matrix());
        let _ = Cube::swiglu_backward(matrix(), matrix(), matrix());
        let _ = Cube::drop_elements(matrix(), &DropoutMask::new([0; TOKENS].into(), 0.1));
        self.note(&name(dtype))?;
        for (cap, bound) in [(None, ""), (Some(30.0), ", bounded")] {
            let logits = || self.tensor([TOKENS, WIDTH], dtype);
            let targets = || self.tensor([TOKENS], DType::I32);
            let column = || self.tensor([TOKENS, 1], DType::F32);
            let _ = Cube::logit_scores(logits(), targets(), cap);
            let _ = Cube::logit_scores_backward(logits(), targets(), column(), column(), cap);
            self.note(&format!("{}{bound}", name(dtype)))?;
        }
        Ok(())
    }

    fn nf4(&mut self, dtype: FloatDType) -> Result<(), String> {
        for (double, scales) in [(None, ""), (Some(Nf4Double { group: 256, offset: 0.1 }), ", double quantisation")] {
            let layout = Nf4Layout { shape: [TOKENS, WIDTH], block: 64, double, rounding: dtype };
            let bytes = layout.count() / 2 + if double.is_some() { layout.blocks() } else { 0 };
            let numbers = self.tensor([layout.first_scale() + layout.scales()], DType::F32);
            let codes = self.tensor([bytes], DType::U8);
            let _ = Cube::nf4_numbers(codes.clone(), numbers.clone(), layout, dtype);
            self.note(&format!("{}{scales}", name(dtype)))?;
            let weight = Nf4Tensors { codes, numbers, layout };
            for rows in [1, 2, 4, 8, FEW_ROWS] {
                let _ = Cube::linear_nf4_forward(self.tensor([rows, WIDTH], dtype), weight.clone());
                let _ = Cube::linear_nf4_backward(weight.clone(), self.tensor([rows, TOKENS], dtype));
                self.note(&format!("{}{scales}, {rows} rows", name(dtype)))?;
            }
        }
        Ok(())
    }

    /// Attention forward and backward. Over a cache it is the forward kernel, too.
    fn attention(&mut self, dtype: FloatDType, dim: usize) -> Result<(), String> {
        let packing = Packing::rows([TOKENS]);
        for (soft_cap, bound) in [(None, ""), (Some(50.0), ", bounded")] {
            let heads = Heads { soft_cap, ..Heads::new(32, 8, dim) };
            let q = || self.tensor([TOKENS, heads.query * dim], dtype);
            let k = || self.tensor([TOKENS, heads.kv * dim], dtype);
            let (o, log_sums) = Cube::attention_forward(q(), k(), k(), heads, &packing);
            let _ = Cube::attention_backward([q(), k(), k(), o, log_sums], q(), heads, &packing);
            let cache = || self.tensor([1, heads.kv, TOKENS, dim], dtype);
            let span = Spans::new(vec![Span { slot: 0, start: 0, len: TOKENS }]);
            let _ = Cube::cached_attention(q(), cache(), cache(), heads, span);
            self.note(&format!("{}, {dim}{bound}", name(dtype)))?;
        }
        Ok(())
    }
}

fn name(dtype: FloatDType) -> String {
    DType::from(dtype).name().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_launched_in_each_format() {
        let mut launched = vec![];
        launch_all(&mut |kernel, case, _| {
            launched.push((kernel, case.to_owned()));
            Ok(())
        })
        .unwrap();
        let files =
            ["adamw", "attention", "dropout", "embedding", "nf4", "nf4_product", "rms_norm", "rotate", "swiglu"];
        for file in files.into_iter().chain(["token_scores"]) {
            let of_file = |start: &str| {
                launched
                    .iter()
                    .any(|(kernel, case)| kernel.starts_with(&format!("{file}::")) && case.starts_with(start))
            };
            assert!(of_file("f32"), "{file}");
            assert!(of_file("bf16") != matches!(file, "adamw" | "embedding"), "{file}");
        }
    }

    fn sources(only: &str, limit: Duration) -> Vec<CudaKernel> {
        let mut found = vec![];
        cuda_sources(only, limit, &mut |kernel| {
            found.push(kernel);
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn kernels_are_chosen_by_name_and_case() {
        let found = sources("swiglu::forward_kernel, bf16", Duration::from_secs(600));
        let [CudaKernel { kernel, case, source, .. }] = &found[..] else { panic!("{found:?}") };
        assert_eq!((kernel.as_str(), case.as_str()), ("swiglu::forward_kernel", "bf16"));
        let CudaSource { entry, text, .. } = source.as_ref().unwrap();
        assert!(text.contains(entry.as_str()) && text.contains("bfloat16"), "{text}");
        assert!(sources("no such kernel", Duration::ZERO).is_empty());
    }

    #[test]
    fn a_slow_kernel_is_named() {
        let found = sources("rotate::rotate_kernel, f32", Duration::ZERO);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].source, Err("CubeCL has not translated it after 0 s".to_owned()));
    }
}
