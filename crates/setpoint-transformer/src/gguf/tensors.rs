//! The tensors of a GGUF file: their names and the order of their rows. The names are llama.cpp's of the parts that a
//! [`Design`](crate::design::Design) has.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use burn::tensor::FloatDType;

use super::file::{ALIGNMENT, Info};
use super::numbers::NumberFormat;
use crate::Error;
use crate::checkpoint::{Checkpoint, is_obsolete, widen};
use crate::config::{ModelConfig, RopeScaling};
use crate::design::{HeadNorms, Maps, NormPlacement, NormWeight};
use crate::families::GgufLayout;

/// A tensor of the file that is to be written.
#[derive(Debug)]
pub(super) struct Planned {
    /// The name in the GGUF file.
    pub(super) name: String,
    shape: Vec<usize>,
    format: NumberFormat,
    /// True if the format that was asked for cannot hold this tensor.
    pub(super) is_fallback: bool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The tensor of this name in the checkpoint. With `heads`, its rows are reordered head by head. `shift` is added to its numbers.
    Checkpoint { name: String, from: FloatDType, heads: Option<usize>, shift: f32 },
    /// Numbers of the configuration.
    Numbers(Vec<f32>),
}

/// Lists the tensors of a model, after checking them.
pub(super) fn plan(
    config: &ModelConfig,
    layout: GgufLayout,
    checkpoint: &Checkpoint,
    format: NumberFormat,
) -> Result<Vec<Planned>, Error> {
    let mut planned = rope_factors(config);
    let mut missing = Vec::new();
    let mut used = BTreeSet::new();
    for Named { theirs, ours, shape, heads, shift } in names(config) {
        let Some(from) = checkpoint.format(&theirs, &shape)? else {
            missing.push((theirs, shape));
            continue;
        };
        used.insert(theirs.clone());
        let wanted = if shape.len() == 1 { NumberFormat::F32 } else { format };
        let fits = shape.last().is_some_and(|&width| wanted.fits(width));
        planned.push(Planned {
            name: ours,
            format: if fits { wanted } else { NumberFormat::F16 },
            is_fallback: !fits,
            source: Source::Checkpoint {
                name: theirs,
                from,
                heads: heads.filter(|_| layout.neighbouring_pairs),
                shift,
            },
            shape,
        });
    }
    checkpoint.require_none_missing(&missing)?;
    if config.tie_word_embeddings {
        checkpoint.require_equal(HEAD, EMBEDDING)?;
        used.insert(HEAD.to_owned());
    }
    checkpoint.require_none_extra(|name| !used.contains(*name) && !is_obsolete(name))?;
    Ok(planned)
}

/// Lists the divisors of the rotary frequencies, where files hold them.
fn rope_factors(config: &ModelConfig) -> Vec<Planned> {
    let tensor = |name: &str, numbers: Vec<f32>| Planned {
        name: format!("{name}.weight"),
        shape: vec![numbers.len()],
        format: NumberFormat::F32,
        is_fallback: false,
        source: Source::Numbers(numbers),
    };
    let narrow = |numbers: &[f64]| numbers.iter().map(|&x| x as f32).collect();
    match &config.rope.scaling {
        RopeScaling::Llama3 { .. } => vec![tensor("rope_freqs", config.rope.factors(config.head_dim))],
        RopeScaling::LongRope { short_factor, long_factor, .. } => {
            vec![tensor("rope_factors_long", narrow(long_factor)), tensor("rope_factors_short", narrow(short_factor))]
        }
        _ => Vec::new(),
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// A tensor under both of its names.
struct Named {
    theirs: String,
    ours: String,
    shape: Vec<usize>,
    /// The number of heads of a tensor whose rows are turned by the rotary embedding.
    heads: Option<usize>,
    /// The number that is added to each of the tensor's.
    shift: f32,
}

/// Returns the tensors of a model, in the order of its blocks.
fn names(config: &ModelConfig) -> Vec<Named> {
    let (d, v) = (config.hidden_size, config.vocab_size);
    // llama.cpp's norms multiply by the weight in any family.
    let shift = if config.design.norm_weight == NormWeight::OnePlus { 1.0 } else { 0.0 };
    let mut names = vec![Named::new(EMBEDDING, "token_embd.weight", &[v, d])];
    for i in 0..config.num_hidden_layers {
        let theirs = |name: &str| ["model", "layers", &i.to_string(), name].join(".");
        let ours = |name: &str| format!("blk.{i}.{name}");
        for (from, to, width) in norms(config) {
            let (theirs, ours) = (theirs(&format!("{from}.weight")), ours(&format!("{to}.weight")));
            names.push(Named { shift, ..Named::new(theirs, ours, &[width]) });
        }
        for Map { from, to, shape: [out, input], bias, heads } in maps(config) {
            let mut push = |part: &str, shape: &[usize]| {
                let (theirs, ours) = (theirs(&format!("{from}.{part}")), ours(&format!("{to}.{part}")));
                names.push(Named { heads, ..Named::new(theirs, ours, shape) });
            };
            push("weight", &[out, input]);
            if bias {
                push("bias", &[out]);
            }
        }
    }
    names.push(Named { shift, ..Named::new("model.norm.weight", "output_norm.weight", &[d]) });
    if !config.tie_word_embeddings {
        names.push(Named::new(HEAD, "output.weight", &[v, d]));
    }
    names
}

/// Returns the norms of a layer: their names in the checkpoint and in the file, and their widths.
fn norms(config: &ModelConfig) -> Vec<(&'static str, &'static str, usize)> {
    let (d, n, h, g) = (config.hidden_size, config.head_dim, config.num_attention_heads, config.num_key_value_heads);
    let mut norms: Vec<_> = match config.design.norms {
        NormPlacement::Before => vec![("input_layernorm", "attn_norm", d), ("post_attention_layernorm", "ffn_norm", d)],
        NormPlacement::After => vec![
            ("post_attention_layernorm", "post_attention_norm", d),
            ("post_feedforward_layernorm", "post_ffw_norm", d),
        ],
        NormPlacement::Both => vec![
            ("input_layernorm", "attn_norm", d),
            ("post_attention_layernorm", "post_attention_norm", d),
            ("pre_feedforward_layernorm", "ffn_norm", d),
            ("post_feedforward_layernorm", "post_ffw_norm", d),
        ],
    };
    let of_heads = match config.design.head_norms {
        HeadNorms::Absent => None,
        HeadNorms::PerHead => Some((n, n)),
        HeadNorms::Whole => Some((h * n, g * n)),
    };
    if let Some((of_queries, of_keys)) = of_heads {
        norms.push(("self_attn.q_norm", "attn_q_norm", of_queries));
        norms.push(("self_attn.k_norm", "attn_k_norm", of_keys));
    }
    norms
}

/// A linear map of a layer.
struct Map {
    /// The name in the checkpoint.
    from: &'static str,
    /// The name in the file.
    to: &'static str,
    shape: [usize; 2],
    bias: bool,
    /// As in [`Named`].
    heads: Option<usize>,
}

/// Returns the linear maps of a layer.
fn maps(config: &ModelConfig) -> Vec<Map> {
    let (d, f, n) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (h, g) = (config.num_attention_heads, config.num_key_value_heads);
    let biases = config.design.biases;
    let map = |from, to, shape, bias| Map { from, to, shape, bias, heads: None };
    let output = map("self_attn.o_proj", "attn_output", [d, h * n], biases.output);
    let down = map("mlp.down_proj", "ffn_down", [d, f], biases.mlp);
    match config.design.maps {
        Maps::Separate => vec![
            Map { heads: Some(h), ..map("self_attn.q_proj", "attn_q", [h * n, d], biases.qkv) },
            Map { heads: Some(g), ..map("self_attn.k_proj", "attn_k", [g * n, d], biases.qkv) },
            map("self_attn.v_proj", "attn_v", [g * n, d], biases.qkv),
            output,
            map("mlp.gate_proj", "ffn_gate", [f, d], biases.mlp),
            map("mlp.up_proj", "ffn_up", [f, d], biases.mlp),
            down,
        ],
        Maps::Fused => vec![
            map("self_attn.qkv_proj", "attn_qkv", [(h + 2 * g) * n, d], biases.qkv),
            output,
            map("mlp.gate_up_proj", "ffn_up", [2 * f, d], biases.mlp),
            down,
        ],
    }
}

impl Named {
    fn new(theirs: impl Into<String>, ours: impl Into<String>, shape: &[usize]) -> Self {
        Self { theirs: theirs.into(), ours: ours.into(), shape: shape.to_vec(), heads: None, shift: 0.0 }
    }
}

impl Planned {
    /// Returns the entry in the file's head.
    pub(super) fn info(&self) -> Info<'_> {
        Info { name: &self.name, shape: &self.shape, code: self.format.code(), bytes: self.bytes() }
    }

    fn bytes(&self) -> u64 {
        self.format.bytes(self.shape.iter().map(|&size| size as u64).product())
    }

    /// Reads, converts and writes the tensor.
    pub(super) fn write(
        &self,
        checkpoint: &Checkpoint,
        dir: &Path,
        path: &Path,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        /// The bytes that are converted before they are written.
        const PART: usize = 1 << 20;
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let mut converted = Vec::new();
        let mut push = |row: &[f32]| -> Result<(), Error> {
            self.format.encode(row, &mut converted).map_err(|found| Error::Gguf {
                path: dir.to_owned(),
                message: format!(
                    "tensor `{}` holds {found}, which {:?} cannot hold{}",
                    self.name,
                    self.format,
                    if found.is_finite() { "; use bf16 or f32" } else { "" }
                ),
            })?;
            if converted.len() >= PART {
                out.write_all(&converted).map_err(failed)?;
                converted.clear();
            }
            Ok(())
        };
        match &self.source {
            Source::Numbers(numbers) => push(numbers)?,
            Source::Checkpoint { name, from, heads, shift } => {
                let bytes = checkpoint.bytes_of(name)?;
                // A vector is a matrix whose rows have one number each.
                let (rows, width) = match self.shape[..] {
                    [rows, width] => (rows, width),
                    _ => (self.shape.iter().product(), 1),
                };
                let row_bytes = bytes.len() / rows.max(1);
                debug_assert_eq!(row_bytes % width.max(1), 0);
                for row in 0..rows {
                    let source = heads.map_or(row, |heads| source_row(row, rows / heads));
                    let mut row = widen(&bytes[source * row_bytes..][..row_bytes], *from);
                    if *shift != 0.0 {
                        row.iter_mut().for_each(|x| *x += shift);
                    }
                    push(&row)?;
                }
            }
        }
        let padding = self.bytes().next_multiple_of(ALIGNMENT) - self.bytes();
        converted.resize(converted.len() + padding as usize, 0);
        out.write_all(&converted).map_err(failed)
    }
}

/// Returns the row of transformers' matrix that is `row` in llama.cpp's, in heads of `width` rows: there, the two numbers that turn together
/// are neighbours; here, they are `width / 2` apart.
fn source_row(row: usize, width: usize) -> usize {
    let (head, within) = (row / width, row % width);
    head * width + within % 2 * (width / 2) + within / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_neighbours_within_their_head() {
        let order: Vec<usize> = (0..12).map(|row| source_row(row, 6)).collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
