//! Several data sets that a job reads as one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{BadRows, DatasetConfig, Margins, Responses, TextPrompts, Ties, UltraFeedbackScore, Uses};
use crate::format::Format;

/// One of several data sets. Settings that it leaves out are those of the section around it.
///
/// ```
/// use setpoint_data::{DataSource, DatasetConfig};
///
/// let sources = vec![DataSource::new("chat.jsonl"), DataSource { max_rows: Some(500), ..DataSource::new("math.jsonl") }];
/// let config = DatasetConfig { sources, ..DatasetConfig::new("") };
/// assert_eq!(config.name(), "chat.jsonl, math.jsonl");
/// assert_eq!(config.each()[1], DatasetConfig { max_rows: Some(500), ..DatasetConfig::new("math.jsonl") });
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// A file, a folder in the hub's layout, or a hub id, as for a single data set.
    pub path: String,
    /// The share of an epoch, relative to the weights of the other data sets. Either all have one, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// The largest number of rows to read, from the beginning; bad rows that are dropped count.
    #[serde(default, alias = "limit", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_rows: Option<usize>,
    /// The split of a folder or hub data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The subset (the hub's "config").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The revision of a hub data set: branch, tag or commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The format of the rows; by default it is detected from the columns of each file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Columns to rename before anything else: expected name → the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeMap<String, String>>,
    /// The form in which a prompt of plain text is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_prompts: Option<TextPrompts>,
    /// A system turn to put before every conversation that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The score of UltraFeedback's completions that serves as the reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ultrafeedback_score: Option<UltraFeedbackScore>,
    /// The source of the margin of a pair, for reward models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margins: Option<Margins>,
    /// The treatment of a row whose two responses are judged to be equally good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ties: Option<Ties>,
    /// The treatment of a row that lacks a value its format needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_bad_row: Option<BadRows>,
    /// The responses that SFT trains on if a row has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responses: Option<Responses>,
}

impl DataSource {
    /// Creates a data set with the settings of the section around it.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            weight: None,
            max_rows: None,
            split: None,
            subset: None,
            revision: None,
            format: None,
            columns: None,
            text_prompts: None,
            system: None,
            ultrafeedback_score: None,
            margins: None,
            ties: None,
            on_bad_row: None,
            responses: None,
        }
    }

    /// Returns the settings that decide which rows are read and as what. A path through a link is replaced by the file's own.
    fn identity(&self) -> Self {
        let path = std::fs::canonicalize(&self.path).ok().and_then(|path| path.into_os_string().into_string().ok());
        Self { path: path.unwrap_or_else(|| self.path.clone()), weight: None, max_rows: None, ..self.clone() }
    }

    /// Returns the data set as one that is read alone. `section` has the settings that it leaves out.
    fn within(&self, section: &DatasetConfig) -> DatasetConfig {
        let own = self.clone();
        DatasetConfig {
            path: own.path,
            sources: Vec::new(),
            stopping_strategy: StoppingStrategy::default(),
            split: own.split.unwrap_or_else(|| section.split.clone()),
            subset: own.subset.or_else(|| section.subset.clone()),
            revision: own.revision.unwrap_or_else(|| section.revision.clone()),
            format: own.format.or(section.format),
            max_rows: own.max_rows.or(section.max_rows),
            columns: own.columns.unwrap_or_else(|| section.columns.clone()),
            text_prompts: own.text_prompts.unwrap_or(section.text_prompts),
            system: own.system.or_else(|| section.system.clone()),
            rewards: section.rewards,
            ultrafeedback_score: own.ultrafeedback_score.unwrap_or(section.ultrafeedback_score),
            margins: own.margins.unwrap_or(section.margins),
            ties: own.ties.unwrap_or(section.ties),
            on_bad_row: own.on_bad_row.unwrap_or(section.on_bad_row),
            responses: own.responses.or(section.responses),
            uses: own.responses.map_or(section.uses, Uses::of_selection),
        }
    }
}

/// The end of an epoch over data sets with weights, in the words of Hugging Face's `interleave_datasets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoppingStrategy {
    /// An epoch is as long as it can be without a row twice: the data set that is the shortest for its weight is seen once. Of the others
    /// each epoch has further rows, until all were seen.
    #[default]
    FirstExhausted,
    /// An epoch is as long as it must be for every row: the data set that is the longest for its weight is seen once. The rows of the others
    /// are repeated.
    AllExhausted,
}

impl StoppingStrategy {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl DatasetConfig {
    /// Returns the data sets to read, each as one that is read alone: those of `sources`, or this one.
    #[must_use]
    pub fn each(&self) -> Vec<Self> {
        match self.sources.as_slice() {
            [] => vec![self.clone()],
            sources => sources.iter().map(|source| source.within(self)).collect(),
        }
    }

    /// Returns the name of the data for messages: the path, or those of the first few data sets.
    #[must_use]
    pub fn name(&self) -> String {
        const SHOWN: usize = 3;
        let paths: Vec<&str> = self.sources.iter().take(SHOWN).map(|source| source.path.as_str()).collect();
        match self.sources.len() {
            0 => self.path.clone(),
            n if n > SHOWN => format!("{} and {} more", paths.join(", "), n - SHOWN),
            _ => paths.join(", "),
        }
    }

    /// Returns the weights of the data sets, if they have any. Where some lack one, it is 1.
    #[must_use]
    pub fn weights(&self) -> Option<Vec<f64>> {
        let any = self.sources.iter().any(|source| source.weight.is_some());
        any.then(|| self.sources.iter().map(|source| source.weight.unwrap_or(1.0)).collect())
    }

    /// Notes what is wrong with the data sets: the key of the setting within the section, and a sentence that names the data set.
    #[must_use]
    pub fn source_problems(&self, section: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut note = |key: String, message: String| found.push((key, message));
        if !self.sources.is_empty() && !self.path.is_empty() {
            let message = format!(
                "`{section}.path` names one data set and `{section}.sources` {}: leave one of the two out",
                crate::counted(self.sources.len(), "data set")
            );
            note("path".into(), message);
        }
        let plain: Vec<DataSource> = self.sources.iter().map(DataSource::identity).collect();
        let with_weight = self.sources.iter().filter(|source| source.weight.is_some()).count();
        for (i, source) in self.sources.iter().enumerate() {
            let place = format!("sources[{i}]");
            let name = format!("data set {} of `{section}` (`{}`)", i + 1, source.path);
            if source.path.is_empty() {
                note(format!("{place}.path"), format!("data set {} of `{section}` has no path", i + 1));
            }
            if let Some(weight) = source.weight.filter(|weight| !(weight.is_finite() && *weight > 0.0)) {
                let message = format!(
                    "{name}: `weight` is {weight}; expected a number above 0. To read nothing of a data set, leave it out"
                );
                note(format!("{place}.weight"), message);
            }
            if source.max_rows == Some(0) {
                let message =
                    format!("{name}: `max_rows` must be at least 1. To read nothing of a data set, leave it out");
                note(format!("{place}.max_rows"), message);
            }
            if source.weight.is_none() && with_weight > 0 {
                let message =
                    format!("{name} has no `weight`, and others have one: give all of them a weight, or none");
                note(format!("{place}.weight"), message);
            }
            if let Some(first) = plain[..i].iter().position(|other| *other == plain[i])
                && !source.path.is_empty()
            {
                let remedy = match with_weight {
                    0 => "to see its rows more often than others, give the data sets weights",
                    _ => "leave one of them out, and give the other the sum of the weights",
                };
                let message = format!("{name} is the same as data set {}: {remedy}", first + 1);
                note(format!("{place}.path"), message);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(sources: Vec<DataSource>) -> Vec<String> {
        let config = DatasetConfig { sources, ..DatasetConfig::new("") };
        config.source_problems("data").into_iter().map(|(key, message)| format!("{key}: {message}")).collect()
    }

    #[test]
    fn what_a_data_set_leaves_out_is_said_by_the_section() {
        let source: DataSource =
            serde_json::from_str(r#"{"path": "a.jsonl", "split": "test", "columns": {"prompt": "q"}, "limit": 7}"#)
                .unwrap();
        let section = DatasetConfig {
            sources: vec![source, DataSource::new("b.jsonl")],
            system: Some("Be brief.".into()),
            on_bad_row: BadRows::Drop,
            ..DatasetConfig::new("")
        };
        let [a, b] = section.each().try_into().unwrap();
        assert_eq!((a.path.as_str(), a.split.as_str(), a.max_rows), ("a.jsonl", "test", Some(7)));
        assert_eq!(a.columns["prompt"], "q");
        assert_eq!((b.split.as_str(), b.max_rows, b.columns.len()), ("train", None, 0));
        for one in [a, b] {
            assert_eq!((one.system.as_deref(), one.on_bad_row), (Some("Be brief."), BadRows::Drop));
            assert_eq!(one.each(), std::slice::from_ref(&one), "it is read alone");
        }
    }

    #[test]
    fn a_name_has_the_first_few_paths() {
        let named = |n: usize| {
            let sources = (0..n).map(|i| DataSource::new(format!("{i}.jsonl"))).collect();
            DatasetConfig { sources, ..DatasetConfig::new("") }.name()
        };
        assert_eq!(DatasetConfig::new("x.jsonl").name(), "x.jsonl");
        assert_eq!(named(1), "0.jsonl");
        assert_eq!(named(3), "0.jsonl, 1.jsonl, 2.jsonl");
        assert_eq!(named(5), "0.jsonl, 1.jsonl, 2.jsonl and 2 more");
    }

    #[test]
    fn problems_name_the_data_set() {
        let weighed = |path: &str, weight: f64| DataSource { weight: Some(weight), ..DataSource::new(path) };
        assert_eq!(problems(vec![weighed("a", 1.0), weighed("b", 0.5)]), [""; 0]);
        assert_eq!(problems(vec![DataSource::new("a"), DataSource::new("b")]), [""; 0]);
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let found = problems(vec![weighed("a", 1.0), weighed("b.jsonl", bad)]);
            assert_eq!(found.len(), 1);
            assert!(
                found[0].starts_with("sources[1].weight: data set 2 of `data` (`b.jsonl`): `weight` is"),
                "{found:?}"
            );
        }
        let found = problems(vec![weighed("a", 1.0), DataSource::new("b.jsonl")]);
        assert!(found.len() == 1 && found[0].contains("(`b.jsonl`) has no `weight`, and others have one"), "{found:?}");
        let found = problems(vec![DataSource { max_rows: Some(0), ..DataSource::new("a") }]);
        assert!(found.len() == 1 && found[0].contains("(`a`): `max_rows` must be at least 1"), "{found:?}");
        let found = problems(vec![weighed("a", 1.0), weighed("b", 1.0), weighed("a", 2.0)]);
        assert!(
            found.len() == 1 && found[0].contains("data set 3 of `data` (`a`) is the same as data set 1: leave one"),
            "{found:?}"
        );
        let found = problems(vec![DataSource::new("a"), DataSource::new("a")]);
        assert!(found.len() == 1 && found[0].ends_with("give the data sets weights"), "{found:?}");
        let test = DataSource { split: Some("test".into()), ..DataSource::new("a") };
        assert_eq!(problems(vec![DataSource::new("a"), test]), [""; 0], "another split is another data set");
        let found = problems(vec![DataSource::new("")]);
        assert_eq!(found, ["sources[0].path: data set 1 of `data` has no path"]);
        let config = DatasetConfig { sources: vec![DataSource::new("a")], ..DatasetConfig::new("b") };
        assert!(config.source_problems("data")[0].1.contains("leave one of the two out"));
    }

    #[test]
    fn a_file_is_the_same_through_another_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("a.jsonl"), "{}").unwrap();
        std::fs::write(path("b.jsonl"), "{}").unwrap();
        std::fs::create_dir(path("inner")).unwrap();
        let [a, b, around] = ["a.jsonl", "b.jsonl", "inner/../a.jsonl"].map(|name| DataSource::new(path(name)));
        assert_eq!(problems(vec![a.clone(), b]), [""; 0]);
        let found = problems(vec![a.clone(), around]);
        assert!(found.len() == 1 && found[0].contains("is the same as data set 1"), "{found:?}");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(path("a.jsonl"), path("link.jsonl")).unwrap();
            assert_eq!(problems(vec![a, DataSource::new(path("link.jsonl"))]).len(), 1);
        }
    }

    #[test]
    fn settings_of_a_single_data_set_are_written_as_before() {
        let text = serde_json::to_string(&DatasetConfig::new("a.jsonl")).unwrap();
        assert!(!text.contains("sources") && !text.contains("stopping_strategy"), "{text}");
        let sources = vec![DataSource { weight: Some(0.5), ..DataSource::new("a") }];
        let config =
            DatasetConfig { sources, stopping_strategy: StoppingStrategy::AllExhausted, ..DatasetConfig::new("") };
        let text = serde_json::to_string(&config).unwrap();
        assert!(
            text.contains(r#""sources":[{"path":"a","weight":0.5}],"stopping_strategy":"all_exhausted""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<DatasetConfig>(&text).unwrap(), config);
    }
}
