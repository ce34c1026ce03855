//! The linear maps that get an update, by PEFT's rules.

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::LoraConfig;
use crate::Error;

/// The word for all linear maps but the head.
const ALL: &str = "all-linear";

/// Modules that can get no low-rank update.
const WITHOUT_UPDATES: [&str; 3] = ["lm_head", "score", "embed_tokens"];

/// Modules by name or pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Selection {
    /// The modules whose path is one of these names or ends with `.` and a name.
    Names(Vec<String>),
    /// The modules whose whole path matches the regular expression.
    Pattern(String),
}

impl Default for Selection {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Selection {
    /// Returns whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }

    /// Returns the regular expression, if it is one.
    pub(crate) fn pattern(&self) -> Option<&String> {
        match self {
            Self::Names(_) => None,
            Self::Pattern(pattern) => Some(pattern),
        }
    }

    fn selects(&self, path: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| is_named(path, name)),
            Self::Pattern(pattern) => compiled(pattern).is_ok_and(|pattern| pattern.is_match(path)),
        }
    }
}

/// The linear maps that get an update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Selection", into = "Selection")]
pub enum Targets {
    /// All linear maps but the head.
    AllLinear,
    /// The maps whose path is one of these names or ends with `.` and a name.
    Names(Vec<String>),
    /// The maps whose whole path matches the regular expression.
    Pattern(String),
}

impl From<Selection> for Targets {
    fn from(selection: Selection) -> Self {
        match selection {
            // PEFT does not distinguish case here.
            Selection::Pattern(word) if word.eq_ignore_ascii_case(ALL) => Self::AllLinear,
            Selection::Pattern(pattern) => Self::Pattern(pattern),
            Selection::Names(names) => Self::Names(names),
        }
    }
}

impl From<Targets> for Selection {
    fn from(targets: Targets) -> Self {
        match targets {
            Targets::AllLinear => Self::Pattern(ALL.to_owned()),
            Targets::Names(names) => Self::Names(names),
            Targets::Pattern(pattern) => Self::Pattern(pattern),
        }
    }
}

impl Targets {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }

    pub(crate) fn pattern(&self) -> Option<&String> {
        match self {
            Self::AllLinear | Self::Names(_) => None,
            Self::Pattern(pattern) => Some(pattern),
        }
    }
}

/// The treatment of names that no module has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// They are: somebody has just written them.
    Known,
    /// They are not: a file may name modules of other families as well, and its tensors are checked.
    Any,
}

/// An update that a linear map gets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// The path of the map in the model.
    pub(crate) path: String,
    pub(crate) rank: usize,
    /// The factor of the update.
    pub(crate) scale: f64,
}

impl LoraConfig {
    /// Finds the maps that get an update among those of a model.
    ///
    /// # Errors
    ///
    /// [`Error::Adapter`] if there is none. [`Names::Known`]: also if a name, a layer or a pattern of ranks is that of no map.
    pub(crate) fn resolve(&self, maps: &[String], names: Names) -> Result<Vec<Target>, Error> {
        if names == Names::Known {
            self.require_known(maps)?;
        }
        let chosen = maps.iter().filter(|path| self.is_target(path));
        let targets: Vec<Target> = chosen
            .map(|path| {
                let (rank, scale) = self.rank_and_scale(path);
                Target { path: path.clone(), rank, scale }
            })
            .collect();
        if targets.is_empty() {
            return Err(Error::Adapter { message: self.without_targets(maps) });
        }
        Ok(targets)
    }

    /// Refuses names, layers and patterns of ranks for which the model has no map: they would be passed over, and other maps trained than
    /// were meant.
    fn require_known(&self, maps: &[String]) -> Result<(), Error> {
        let is_map = |name: &str| maps.iter().any(|path| is_named(path, name));
        if let Targets::Names(names) = &self.targets
            && let Some(name) = names.iter().find(|name| !is_map(name))
        {
            return Err(unknown(name, maps));
        }
        if let Selection::Names(names) = &self.exclude
            && let Some(name) = names.iter().find(|name| !is_map(name) && !WITHOUT_UPDATES.contains(&name.as_str()))
        {
            let message = format!("exclude: no linear map of the model is called `{name}`; there are {}", listed(maps));
            return Err(Error::Adapter { message });
        }
        let layers = maps.iter().filter_map(|path| layer_of(path)).max().map_or(0, |last| last + 1);
        if let Some(layer) = self.layers.iter().find(|layer| **layer >= layers) {
            let message = format!("layers: there is no layer {layer}; the model has {layers}, counted from 0");
            return Err(Error::Adapter { message });
        }
        let ranks = self.rank_pattern.unused(maps).map(|key| ("rank_pattern", key));
        if let Some((setting, key)) =
            ranks.or_else(|| self.alpha_pattern.unused(maps).map(|key| ("alpha_pattern", key)))
        {
            let message =
                format!("{setting}: `{key}` matches the end of no linear map of the model; there are {}", listed(maps));
            return Err(Error::Adapter { message });
        }
        Ok(())
    }

    /// Says why no map gets an update.
    fn without_targets(&self, maps: &[String]) -> String {
        let unmatched = self
            .targets
            .pattern()
            .filter(|pattern| compiled(pattern).is_ok_and(|compiled| !maps.iter().any(|path| compiled.is_match(path))));
        match (unmatched, maps.first()) {
            (Some(pattern), Some(path)) => format!(
                "the settings select no linear map: `{pattern}` in targets is a regular expression for a whole path such as `{path}`; \
                 names are given as a list, as in [\"{}\"]",
                path.rsplit('.').next().unwrap_or(path)
            ),
            _ => "the settings select no linear map: look at targets, exclude, layers and modules_to_save".into(),
        }
    }

    /// Returns whether the map at `path` gets an update.
    fn is_target(&self, path: &str) -> bool {
        if self.exclude.selects(path) || self.modules_to_save.iter().any(|name| is_within(path, name)) {
            return false;
        }
        let in_layers = || self.layers.is_empty() || layer_of(path).is_some_and(|layer| self.layers.contains(&layer));
        match &self.targets {
            Targets::AllLinear => in_layers(),
            // A whole path is taken at its word.
            Targets::Names(names) if names.iter().any(|name| name == path) => true,
            Targets::Names(names) => names.iter().any(|name| is_named(path, name)) && in_layers(),
            Targets::Pattern(pattern) => compiled(pattern).is_ok_and(|pattern| pattern.is_match(path)),
        }
    }
}

fn unknown(name: &str, maps: &[String]) -> Error {
    let message = match name {
        name if WITHOUT_UPDATES.contains(&name) => {
            format!("`{name}` can get no low-rank update; to train it in full, name it in modules_to_save")
        }
        _ => format!("no linear map of the model is called `{name}`; there are {}", listed(maps)),
    };
    Error::Adapter { message }
}

/// Lists the names of maps, each once.
fn listed(maps: &[String]) -> String {
    let mut names: Vec<&str> = maps.iter().filter_map(|path| path.rsplit('.').next()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// Returns whether a name is a path or its end.
fn is_named(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Returns whether a module of this name holds the one at `path`, or is it.
fn is_within(path: &str, name: &str) -> bool {
    format!(".{path}.").contains(&format!(".{name}."))
}

/// Returns the first number of a path.
fn layer_of(path: &str) -> Option<usize> {
    path.split('.').find_map(|part| part.parse().ok())
}

/// Compiles a regular expression that matches whole paths, as Python's `re.fullmatch` does.
pub(crate) fn compiled(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|_| {
        format!(
            "`{pattern}` is no regular expression that is understood here (without look-around and back-references)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::config::LoraPattern;
    use super::*;

    fn maps() -> Vec<String> {
        let names = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"];
        (0..12).flat_map(|i| names.map(|name| format!("model.layers.{i}.{name}"))).collect()
    }

    fn found(config: LoraConfig) -> Vec<String> {
        config.resolve(&maps(), Names::Known).unwrap().into_iter().map(|target| target.path).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn names_match_the_end_of_a_path_and_patterns_the_whole() {
        let of = |targets| LoraConfig { targets, ..LoraConfig::default() };
        assert_eq!(found(LoraConfig::default()), maps());
        assert_eq!(found(of(Targets::Names(names(&["q_proj", "mlp.up_proj"])))).len(), 24);
        assert_eq!(found(of(Targets::Names(names(&["model.layers.1.mlp.up_proj"])))), ["model.layers.1.mlp.up_proj"]);
        assert_eq!(found(of(Targets::Pattern(r".*\.1\..*(q|v)_proj".into()))).len(), 2, "not layer 10 or 11");
        assert_eq!(found(of(Targets::Pattern(r"model.layers.1..*q_proj|x".into()))).len(), 3);
        for nothing in ["q_proj", "roj", r"layers\.0\.mlp\.up_proj"] {
            let error = of(Targets::Pattern(nothing.into())).resolve(&maps(), Names::Known).unwrap_err().to_string();
            assert!(error.contains("select no linear map"), "{error}");
        }
        for (unknown, said) in [("proj", "called `proj`; there are down_proj, o_proj"), ("lm_head", "modules_to_save")]
        {
            let error =
                of(Targets::Names(names(&["q_proj", unknown]))).resolve(&maps(), Names::Known).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn settings_for_maps_that_the_model_lacks_are_refused() {
        let refused = |config: LoraConfig| config.resolve(&maps(), Names::Known).unwrap_err().to_string();
        let exclude = |name: &str| LoraConfig { exclude: Selection::Names(names(&[name])), ..LoraConfig::default() };
        let said = refused(exclude("o_projj"));
        assert!(
            said.contains("exclude: no linear map of the model is called `o_projj`; there are down_proj"),
            "{said}"
        );
        assert_eq!(found(exclude("lm_head")), maps(), "it has no update in any case");
        let said = refused(LoraConfig { layers: vec![1, 12], ..LoraConfig::default() });
        assert!(said.contains("no layer 12; the model has 12"), "{said}");
        let rank_pattern = LoraPattern(vec![("o_proj".to_owned(), 4), ("q_projj".to_owned(), 8)]);
        let unused = LoraConfig { rank_pattern, ..LoraConfig::default() };
        let said = refused(unused.clone());
        assert!(said.contains("rank_pattern: `q_projj` matches the end of no linear map"), "{said}");
        assert_eq!(unused.resolve(&maps(), Names::Any).unwrap().len(), 60, "a file may be of another family");
        let said = refused(LoraConfig { targets: Targets::Pattern("q_proj".into()), ..LoraConfig::default() });
        assert!(said.contains("as in [\"q_proj\"]"), "{said}");
    }

    #[test]
    fn exclusion_comes_first_and_layers_restrict_names() {
        let of = |config: LoraConfig| found(config).len();
        let exclude = Selection::Names(names(&["o_proj"]));
        assert_eq!(of(LoraConfig { exclude, ..LoraConfig::default() }), 48);
        let exclude = Selection::Pattern(r".*\.1\d\..*".into());
        assert_eq!(of(LoraConfig { exclude, ..LoraConfig::default() }), 50);
        let layers = vec![1, 11];
        assert_eq!(of(LoraConfig { layers: layers.clone(), ..LoraConfig::default() }), 10);
        let targets = Targets::Names(names(&["q_proj", "model.layers.3.mlp.up_proj"]));
        assert_eq!(of(LoraConfig { layers, targets, ..LoraConfig::default() }), 3);
        assert_eq!(of(LoraConfig { modules_to_save: names(&["mlp"]), ..LoraConfig::default() }), 36);
    }
}
