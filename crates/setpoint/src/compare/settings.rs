//! Settings of `setpoint compare`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, EncodeOptions};
use setpoint_train::TrainConfig;
use setpoint_transformer::lora::LoraConfig;
use toml::{Table, Value};

use super::contender::{Contender, respell_contender};
use super::frontier::FrontierSection;
use super::plan;
use crate::adapter::{self, adapt_rate};
use crate::align::rounds::{RewardSection, RolloutSection};
use crate::align::{AlignConfig, unknown_method_hint};
use crate::config::load::to_table;
use crate::config::sections::{
    ModelSection, Wanted, validate_data, validate_encode, validate_no_mirror, validate_saving, validate_train,
};
use crate::config::{Config, Problem, Problems};
use crate::search::{HeldOut, Metric, Rule, Select, blamed, with_point};

/// Settings of `setpoint compare`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareConfig {
    /// The SFT model: every method starts from it and is measured against it.
    pub model: ModelSection,
    /// A low-rank adapter that is trained instead of the model's own weights, which stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LoraConfig>,
    /// The annotated file that all methods train on.
    pub data: DatasetConfig,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// The budget of every training: steps, batch, schedule. Epochs count rows of the file; all methods make the same number of steps.
    pub train: TrainConfig,
    /// Held-out rows and their judge.
    pub eval: HeldOut,
    /// The methods, and the settings that they are tried with.
    pub compare: CompareSection,
    /// The methods at equal KL.
    pub frontier: FrontierSection,
    /// The source of the rewards of responses that are sampled to the prompts of the data: by PPO, RLOO, GRPO, REINFORCE++ and methods of
    /// files in rounds (`online_dpo`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardSection>,
}

/// `[compare.rollout]`: how much is sampled in a round. All else is the method's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompareRollout {
    /// The number of prompts of a round. By default 64, or all prompts of the data if it has fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "prompts"))]
    pub prompts: Option<usize>,
    /// The greatest number of tokens of a response, its stop token included.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub max_new_tokens: usize,
}

impl Default for CompareRollout {
    fn default() -> Self {
        let RolloutSection { prompts, max_new_tokens, .. } = RolloutSection::default();
        Self { prompts, max_new_tokens }
    }
}

/// `[compare]`: what is compared.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareSection {
    /// The methods. `online_` before the name of a method of files trains it in rounds, as in `online_dro`: next to itself on the file.
    pub methods: Vec<String>,
    /// The settings that each method is tried with: the ranges of the DRO paper's Table 4, or its defaults.
    pub search: Search,
    /// A method's own settings to try instead, as `[compare.grids.dpo]` with `"align.beta" = [0.1, 0.5]`.
    #[schemars(with = "BTreeMap<String, BTreeMap<String, serde_json::Value>>")]
    pub grids: Table,
    /// Learning rates that every method is tried with, instead of those of a preset.
    pub learning_rates: Vec<f64>,
    /// The largest number of settings that are tried for each method, drawn at random.
    #[schemars(range(min = 1))]
    pub points: usize,
    /// Seeds of the data order that the selected settings are trained with; settings are selected with the first.
    pub seeds: Vec<u64>,
    /// The figure by which settings are selected.
    pub metric: Metric,
    /// Selects among settings near the SFT model alone, as in `{ metric = "reward", max_kl = 2.0 }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// The share of the held-out prompts that settings are selected on; the others are reported.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub selection_share: f64,
    /// The seed of the division of held-out prompts, and of the draws.
    pub seed: u64,
    /// The responses that are sampled in a round, by the methods that do so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<CompareRollout>,
    /// Trials that run at once, each in a process of its own; fewer if the CPU's memory does not hold them.
    #[schemars(range(min = 1))]
    pub parallel: usize,
}

/// The settings that a method is tried with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Search {
    /// The ranges of the paper's Table 4.
    #[default]
    Preset,
    /// Its defaults alone.
    Defaults,
}

impl Default for CompareConfig {
    fn default() -> Self {
        let AlignConfig { model, data, encode, train, .. } = AlignConfig::default();
        let (eval, compare) = (HeldOut::default(), CompareSection::default());
        let frontier = FrontierSection::default();
        Self { model, adapter: None, data, encode, train, eval, compare, frontier, reward: None }
    }
}

impl Default for CompareSection {
    fn default() -> Self {
        let methods = ["dro", "dpo", "ipo", "orpo", "simpo", "rpo", "cal_dpo", "slic_hf"];
        Self {
            methods: methods.map(str::to_owned).to_vec(),
            search: Search::Preset,
            grids: Table::new(),
            learning_rates: Vec::new(),
            points: 8,
            seeds: vec![0, 1, 2],
            metric: Metric::WinRate,
            select: None,
            selection_share: 0.5,
            seed: 0,
            rollout: None,
            parallel: 1,
        }
    }
}

impl CompareSection {
    /// Returns the rule by which settings are selected.
    pub fn rule(&self) -> Rule {
        Select::rule(self.select, self.metric)
    }

    /// A method's own grid.
    pub fn grid(&self, method: &str) -> Option<&Table> {
        self.grids.get(method).and_then(Value::as_table)
    }
}

impl CompareConfig {
    /// The methods with their defaults.
    ///
    /// # Errors
    /// Names that are no method's, and such as stand there twice.
    pub fn methods(&self) -> Result<Vec<Contender>, Vec<Problem>> {
        let mut seen = BTreeSet::new();
        let (mut methods, mut problems) = (Vec::new(), Vec::new());
        let mut wrong = |message: String| problems.push(Problem { place: "compare.methods".into(), message });
        if self.compare.methods.is_empty() {
            wrong("name at least one method".into());
        }
        for name in &self.compare.methods {
            match Contender::named(name) {
                None => wrong(unknown(name)),
                Some(method) if method.samples && self.reward.is_none() => wrong(format!(
                    "`{}` trains on responses that the policy samples: give a source of their rewards, as in `reward.model.path`",
                    method.name()
                )),
                Some(method) if !seen.insert(method.name()) => wrong(format!("`{name}` stands there twice")),
                Some(method) => methods.push(method),
            }
        }
        if problems.is_empty() { Ok(methods) } else { Err(problems) }
    }

    /// Finds the problems of the settings that a method is tried with.
    fn check(&self, method: &Contender, problems: &mut Problems<'_>) {
        let points = match plan::points(self, method) {
            Ok(points) => points,
            Err(wrong) => return wrong.into_iter().for_each(|(key, message)| problems.add(&key, message)),
        };
        let base = plan::base(self, method, None);
        let mut said = BTreeSet::new();
        for point in points {
            for problem in with_point(&base, &point).err().unwrap_or_default() {
                let place = problem.place.trim_matches('`');
                let place = match place.split('.').next() {
                    Some("reward") => Some(place.to_owned()),
                    Some("rollout") => Some(format!("compare.{place}")),
                    _ => None,
                };
                if let Some(place) = place {
                    if said.insert(problem.message.clone()) {
                        problems.add(&place, problem.message);
                    }
                    continue;
                }
                // What is wrong with the shared settings is said at its own place.
                let key = blamed(&problem, &point);
                let own_losses = problem.place.contains("align.losses");
                if (key.is_some() || own_losses) && said.insert(problem.message.clone()) {
                    let key = key.map_or_else(String::new, |key| format!(".{key}"));
                    problems.add(&format!("compare.grids.{}{key}", method.name()), problem.message);
                }
            }
        }
    }
}

fn unknown(name: &str) -> String {
    match unknown_method_hint(name) {
        Some(hint) => format!("`{name}` is not a method; {hint} (`setpoint methods` lists them)"),
        None => format!("`{name}` is not a method (`setpoint methods` lists them)"),
    }
}

impl Config for CompareConfig {
    const JOB: &'static str = "compare";

    fn defaults(user: &Table) -> Result<Table, (String, String)> {
        let mut table = to_table(&Self::default());
        adapt_rate(&mut table, user);
        if user.contains_key("reward") {
            table.insert("reward".to_owned(), Value::Table(to_table(&RewardSection::default())));
        }
        Ok(table)
    }

    fn respell(user: &mut Table) {
        let methods = user.get_mut("compare").and_then(|compare| compare.get_mut("methods"));
        for method in methods.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::String(method) = method {
                respell_contender(method);
            }
        }
    }

    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModel, problems);
        self.model.validate_trained("model", self.adapter.is_some(), problems);
        adapter::validate(self.adapter.as_ref(), &self.model, false, problems);
        validate_data(&self.data, "data", problems);
        validate_encode(&self.encode, problems);
        validate_train(&self.train, problems);
        validate_saving(&self.train, self.adapter.is_some(), problems);
        validate_no_mirror(&self.train, problems);
        self.eval.validate(problems);
        let compare = &self.compare;
        problems.require(!compare.seeds.is_empty(), "compare.seeds", "name at least one seed");
        let distinct: BTreeSet<u64> = compare.seeds.iter().copied().collect();
        problems.require(distinct.len() == compare.seeds.len(), "compare.seeds", "a seed stands there twice");
        problems.require(compare.points > 0, "compare.points", "must be at least 1");
        problems.require(compare.parallel > 0, "compare.parallel", "must be at least 1");
        problems.require(
            compare.selection_share > 0.0 && compare.selection_share < 1.0,
            "compare.selection_share",
            "must lie between 0 and 1",
        );
        problems.require(
            compare.learning_rates.iter().all(|rate| rate.is_finite() && *rate > 0.0),
            "compare.learning_rates",
            "must be above 0",
        );
        Select::validate(compare.select, compare.metric, "compare", self.eval.pairs.is_some(), problems);
        let methods = match self.methods() {
            Ok(methods) => methods,
            Err(wrong) => return wrong.into_iter().for_each(|p| problems.add(&p.place, p.message)),
        };
        let has_sampling = methods.iter().any(|method| method.samples);
        for (section, is_given) in [("compare.rollout", compare.rollout.is_some()), ("reward", self.reward.is_some())] {
            problems.require(
                has_sampling || !is_given,
                section,
                format!(
                    "no method of `compare.methods` samples responses, as `ppo` and `online_dpo` do: leave `{section}` out"
                ),
            );
        }
        for (name, grid) in &compare.grids {
            let known = methods.iter().any(|method| method.name() == *name);
            problems.require(
                known,
                &format!("compare.grids.{name}"),
                format!("`{name}` is not among `compare.methods`"),
            );
            let table = "expected a table of settings, as in { \"align.beta\" = [0.1, 0.5] }";
            problems.require(grid.is_table(), &format!("compare.grids.{name}"), table);
        }
        methods.iter().for_each(|method| self.check(method, problems));
        let has_choice = |method: &Contender| plan::points(self, method).is_ok_and(|points| points.len() > 1);
        self.frontier.validate(&methods, methods.iter().any(has_choice), problems);
    }
}
