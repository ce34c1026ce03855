//! The settings of an adapter.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::adapter::HasDecoder;
use super::targets::{Selection, Targets, compiled};

/// Settings of a low-rank adapter: the section `[adapter]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// A PEFT folder with an adapter to go on from; its own settings then apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The rank r of the updates.
    #[schemars(range(min = 1))]
    pub rank: usize,
    /// The scale α of the updates: they are multiplied by α/r, or by α/√r with `rslora`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// Multiplies updates by α/√r instead of α/r (Kalajdzievski, <https://arxiv.org/abs/2312.03732>).
    pub rslora: bool,
    /// Trains the length of each row of a weight apart from its direction: DoRA (Liu et al., <https://arxiv.org/abs/2402.09353>).
    pub dora: bool,
    /// Dropout in training steps: each element of the input of `A` is set to 0 with this probability, and the others are divided by 1 minus it.
    /// Without a value 0, or that of the adapter to go on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: Option<f64>,
    /// The linear maps that get an update: `all-linear`, a list of names, or a regular expression for the whole path.
    pub targets: Targets,
    /// Linear maps that get no update, whatever `targets` says: a list of names, or a regular expression for the whole path.
    #[serde(skip_serializing_if = "Selection::is_empty")]
    pub exclude: Selection,
    /// The layers that get updates, counted from 0; all layers if the list is empty.
    pub layers: Vec<usize>,
    /// Modules that are trained in full and saved with the adapter, such as `embed_tokens` or `lm_head`.
    pub modules_to_save: Vec<String>,
    /// Ranks of some maps: the first pattern that matches the end of a path counts.
    #[serde(skip_serializing_if = "LoraPattern::is_empty")]
    pub rank_pattern: LoraPattern<usize>,
    /// Values of `alpha` for some maps: the first pattern that matches the end of a path counts.
    #[serde(skip_serializing_if = "LoraPattern::is_empty")]
    pub alpha_pattern: LoraPattern<f64>,
    /// The learning rate of `B`, and of vectors that are trained in full, as a multiple of that of `A`: LoRA+ (Hayou et al.,
    /// <https://arxiv.org/abs/2402.12354>).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub plus_ratio: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            path: None,
            rank: 16,
            alpha: 32.0,
            rslora: false,
            dora: false,
            dropout: None,
            targets: Targets::AllLinear,
            exclude: Selection::default(),
            layers: Vec::new(),
            modules_to_save: Vec::new(),
            rank_pattern: LoraPattern::default(),
            alpha_pattern: LoraPattern::default(),
            plus_ratio: 1.0,
        }
    }
}

impl LoraConfig {
    /// Returns the settings that are out of range, each with the reason.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut require = |ok: bool, key, message: &str| {
            if !ok {
                found.push((key, message.to_owned()));
            }
        };
        // The products of an update are scaled in f32.
        let positive = |x: f64| x > 0.0 && (x as f32).is_finite();
        require(self.rank > 0, "rank", "must be at least 1");
        require(self.rank_pattern.0.iter().all(|(_, rank)| *rank > 0), "rank_pattern", "every rank must be at least 1");
        require(positive(self.alpha), "alpha", "must be positive and finite in f32");
        require(
            self.alpha_pattern.0.iter().all(|(_, x)| positive(*x)),
            "alpha_pattern",
            "every value must be positive and finite in f32",
        );
        require(positive(self.plus_ratio), "plus_ratio", "must be positive (1: one learning rate for all)");
        let share = |p: f64| (0.0..1.0).contains(&p);
        require(self.dropout.is_none_or(share), "dropout", "must be at least 0 and below 1");
        require(!self.targets.is_empty(), "targets", "must name at least one linear map");
        let named = self.modules_to_save.iter().all(|name| !name.trim_matches('.').is_empty());
        require(named, "modules_to_save", "holds an empty name, which would be that of every module");
        let restricted = self.targets.pattern().is_none() || self.layers.is_empty();
        require(restricted, "layers", "cannot restrict a regular expression: put the layers into `targets`");
        let patterns = self.rank_pattern.0.iter().map(|(key, _)| ("rank_pattern", key));
        let patterns = patterns.chain(self.alpha_pattern.0.iter().map(|(key, _)| ("alpha_pattern", key)));
        let patterns = patterns
            .chain(self.targets.pattern().map(|pattern| ("targets", pattern)))
            .chain(self.exclude.pattern().map(|pattern| ("exclude", pattern)));
        for (key, pattern) in patterns {
            if let Err(reason) = compiled(pattern) {
                found.push((key, reason));
            }
        }
        found
    }

    /// Returns the rank and the scale `s` of the update of the map at `path`.
    pub(crate) fn rank_and_scale(&self, path: &str) -> (usize, f64) {
        let rank = self.rank_pattern.find(path).unwrap_or(self.rank);
        let alpha = self.alpha_pattern.find(path).unwrap_or(self.alpha);
        let size = rank as f64;
        (rank, alpha / if self.rslora { size.sqrt() } else { size })
    }

    /// Returns the probability with which an element of the input of an update is dropped in a training step.
    pub(crate) fn dropout_rate(&self) -> f64 {
        self.dropout.unwrap_or(0.0)
    }

    /// Returns whether the parameter at `path` belongs to a module that is trained in full: as in PEFT, one whose path ends with a name in
    /// `modules_to_save`.
    pub(crate) fn is_saved(&self, path: &str) -> bool {
        self.modules_to_save.iter().any(|name| is_saved_by(name, path))
    }

    /// Returns the settings as they apply to a model: a head that is the embeddings' matrix is trained as that matrix.
    pub(crate) fn of_model<M: HasDecoder>(&self, model: &M) -> Self {
        let mut config = self.clone();
        if model.is_tied() {
            for name in &mut config.modules_to_save {
                if name == "lm_head" {
                    *name = "embed_tokens".to_owned();
                }
            }
        }
        config.modules_to_save.sort();
        config.modules_to_save.dedup();
        config
    }
}

/// Returns whether a module whose path ends with `name` holds the parameter at `path`.
pub(crate) fn is_saved_by(name: &str, path: &str) -> bool {
    path.match_indices('.').any(|(end, _)| path[..end].ends_with(name))
}

/// Values for the maps whose path ends with what a regular expression matches. The first that matches counts.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraPattern<T>(pub Vec<(String, T)>);

impl<T> Default for LoraPattern<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> LoraPattern<T> {
    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value for a path.
    fn find(&self, path: &str) -> Option<T> {
        self.0.iter().find(|(key, _)| matches_end(key, path)).map(|(_, value)| *value)
    }

    /// Returns the first pattern that matches the end of none of these paths.
    pub(crate) fn unused(&self, paths: &[String]) -> Option<&str> {
        let mut keys = self.0.iter().map(|(key, _)| key.as_str());
        keys.find(|key| !paths.iter().any(|path| matches_end(key, path)))
    }
}

/// Returns whether a regular expression matches the end of a path.
fn matches_end(key: &str, path: &str) -> bool {
    compiled(&format!(r"(?:.*\.)?(?:{key})")).is_ok_and(|pattern| pattern.is_match(path))
}

impl<T: JsonSchema> JsonSchema for LoraPattern<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("LoraPattern_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }
}

impl<T: Serialize> Serialize for LoraPattern<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LoraPattern<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = LoraPattern<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of patterns and numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(LoraPattern(entries))
            }
        }

        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "model.layers.1.self_attn.q_proj";

    #[test]
    fn the_first_pattern_that_matches_the_end_counts() {
        let pattern = |entries: &[(&str, usize)]| {
            LoraPattern(entries.iter().map(|(key, rank)| ((*key).to_owned(), *rank)).collect())
        };
        let rank = |entries| LoraConfig { rank_pattern: pattern(entries), ..LoraConfig::default() }.rank_and_scale(Q).0;
        assert_eq!(rank(&[("layers.1.self_attn.q_proj", 2), ("q_proj", 3)]), 2);
        assert_eq!(rank(&[("q_proj", 3), ("layers.1.self_attn.q_proj", 2)]), 3);
        assert_eq!(rank(&[("proj", 2)]), 16, "a name is matched whole");
        assert_eq!(rank(&[(r"layers\.\d+\..*", 5)]), 5);
        assert_eq!(rank(&[("self_attn", 5)]), 16, "the end of a path");
    }

    #[test]
    fn the_scale_is_that_of_the_own_rank() {
        let of = |rslora| {
            let rank_pattern = LoraPattern(vec![("q_proj".to_owned(), 4)]);
            LoraConfig { alpha: 8.0, rank_pattern, rslora, ..LoraConfig::default() }.rank_and_scale(Q).1
        };
        assert_eq!((of(false), of(true)), (2.0, 4.0));
    }

    #[test]
    fn modules_are_saved_by_the_end_of_their_path() {
        let config = LoraConfig { modules_to_save: vec!["norm".into(), "mlp".into()], ..LoraConfig::default() };
        let saved = ["model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.mlp.up_proj.weight"];
        assert!(saved.iter().all(|path| config.is_saved(path)));
        assert!(!config.is_saved("lm_head.weight") && !config.is_saved("norm"));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let keys = |config: LoraConfig| config.problems().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert!(keys(LoraConfig::default()).is_empty());
        assert_eq!(keys(LoraConfig { rank: 0, alpha: -1.0, ..LoraConfig::default() }), ["rank", "alpha"]);
        assert_eq!(keys(LoraConfig { alpha: 1e39, ..LoraConfig::default() }), ["alpha"]);
        assert_eq!(keys(LoraConfig { targets: Targets::Pattern("(".into()), ..LoraConfig::default() }), ["targets"]);
        assert_eq!(keys(LoraConfig { targets: Targets::Names(vec![]), ..LoraConfig::default() }), ["targets"]);
        for name in ["", "."] {
            let modules_to_save = vec!["norm".into(), name.into()];
            assert_eq!(keys(LoraConfig { modules_to_save, ..LoraConfig::default() }), ["modules_to_save"], "{name:?}");
        }
        for dropout in [-0.1, 1.0, f64::NAN] {
            assert_eq!(keys(LoraConfig { dropout: Some(dropout), ..LoraConfig::default() }), ["dropout"]);
        }
        assert!(keys(LoraConfig { dropout: Some(0.0), ..LoraConfig::default() }).is_empty());
        assert_eq!(keys(LoraConfig { plus_ratio: f64::NAN, ..LoraConfig::default() }), ["plus_ratio"]);
    }
}
