//! The identity of a run: everything that a process which goes on with it must share with the one that started it.
//!
//! A checkpoint holds it as a JSON object with a version. Version 2:
//!
//! ```json
//! {
//!   "version": 2,
//!   "train": { "learning_rate": 1e-5, … },
//!   "settings": { "align": { "method": "dpo", … }, … },
//!   "inputs": { "data.tokens": "9f86d0…", "data.rewards": "60303a…", … },
//!   "examples": 512,
//!   "fingerprint": ""
//! }
//! ```
//!
//! An identity without a version is of version 1: the fields of `train` at the top level, `examples` and `fingerprint`. It is
//! compared by the fields that it has, for those are the ones that decided a run at the time.

use std::fmt;

use serde_json::{Map, Value};

/// The present version.
const VERSION: u64 = 2;

/// Settings of the engine that decide how a run is stored and shown. They may change when it goes on.
const FREE: [&str; 5] = ["keep_last", "log_responses", "logging_steps", "mirror", "sample_steps"];

/// The same of the tables among them: whoever holds the optimizer's state, the weights are the same.
const FREE_IN_TABLES: [(&str, &str); 1] = [("optimizer", "shard")];

/// Settings of the engine that version 2 did not have from the beginning, each with the value that absence stands for.
const LATER: [(&str, &str); 1] = [("clip_by", "current")];

/// The ends of the names of inputs that earlier builds did not note.
const LATER_INPUTS: [&str; 1] = ["judge's template"];

/// The identity of a run besides the settings of the engine: filled in by the caller of [`fit`](crate::fit).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Further settings, by name; tables in them are compared setting by setting.
    pub settings: Map<String, Value>,
    /// Everything else that the loss reads. An input that follows from others comes after them: only the first that differ are reported.
    pub inputs: Vec<Input>,
    /// The fingerprint that version 1 gave the run; compared with checkpoints of that version alone.
    pub version_1: String,
    /// The dotted keys of settings that may differ when the run goes on.
    pub free: Vec<String>,
}

/// Something that a run reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its key.
    pub name: String,
    /// Its name in messages, as in "the rewards of `data/train.jsonl`".
    pub what: String,
    /// A hash of its content.
    pub digest: String,
    /// Its place in the chain of causes: an input that differs hides the differences of inputs with a greater rank.
    pub rank: u8,
}

/// A difference between a run and the process that wants to go on with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A setting has another value.
    Setting {
        /// Its dotted key.
        key: String,
        /// The value that the run was started with; null where it was not set.
        was: Value,
        /// The value now.
        is: Value,
    },
    /// An input has another content.
    Input {
        /// Its key.
        name: String,
        /// Its name in messages.
        what: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { key, was: Value::Null, is: Value::Object(_) } => {
                write!(f, "`{key}` was not set and is now")
            }
            Self::Setting { key, was: Value::Object(_), is: Value::Null } => {
                write!(f, "`{key}` was set and is now not")
            }
            Self::Setting { key, was, is } => write!(f, "`{key}` was {was} and is now {is}"),
            Self::Input { what, .. } => write!(f, "{what} changed since the run was started"),
        }
    }
}

impl Identity {
    /// The identity as a checkpoint holds it. `train`: the settings of the engine.
    pub(crate) fn to_json(
        &self,
        mut train: Map<String, Value>,
        examples: usize,
        fingerprint: &str,
    ) -> Map<String, Value> {
        train.retain(|key, _| !is_free(key));
        for (table, key) in FREE_IN_TABLES {
            if let Some(Value::Object(table)) = train.get_mut(table) {
                table.remove(key);
            }
        }
        let inputs: Map<String, Value> =
            self.inputs.iter().map(|input| (input.name.clone(), input.digest.clone().into())).collect();
        let mut map = Map::new();
        map.insert("version".into(), VERSION.into());
        map.insert("train".into(), train.into());
        map.insert("settings".into(), self.settings.clone().into());
        map.insert("inputs".into(), inputs.into());
        map.insert("examples".into(), examples.into());
        map.insert("fingerprint".into(), fingerprint.into());
        map
    }

    /// The differences between the identity that a checkpoint holds and the one of this process, as [`Identity::to_json`] returns it.
    pub(crate) fn changes(&self, saved: &Map<String, Value>, now: &Map<String, Value>) -> Vec<Change> {
        let empty = Map::new();
        let table = |map: &'_ Map<String, Value>, key: &str| -> Map<String, Value> {
            map.get(key).and_then(Value::as_object).unwrap_or(&empty).clone()
        };
        let mut found = Vec::new();
        if version(saved) == 1 {
            let mut then = saved.clone();
            let fingerprint = if self.version_1.is_empty() { now.get("fingerprint").cloned() } else { None };
            let mut present = table(now, "train");
            present.insert("examples".into(), now.get("examples").cloned().unwrap_or_default());
            present.insert("fingerprint".into(), fingerprint.unwrap_or_else(|| self.version_1.clone().into()));
            then.retain(|key, _| !is_free(key));
            differences("", &then, &present, false, &mut found);
            if found.len() > 1 {
                // Two hashes say nothing that the settings do not say.
                found.retain(|change| !self.is_old_fingerprint(change));
            }
            for change in &mut found {
                if self.is_old_fingerprint(change) {
                    let what = "the model, the data, the tokenizer or the settings of the objective".into();
                    *change = Change::Input { name: "fingerprint".into(), what };
                }
            }
            return found;
        }
        let (mut then, present) = (table(saved, "train"), table(now, "train"));
        for (key, value) in LATER.into_iter().filter(|(key, _)| present.contains_key(*key)) {
            then.entry(key).or_insert_with(|| value.into());
        }
        differences("", &then, &present, true, &mut found);
        found.extend(self.changed_settings(saved));
        let both = |key: &str| [saved, now].map(|map| map.get(key).cloned().unwrap_or_default());
        let [was, is] = both("fingerprint");
        if was != is {
            found.push(Change::Setting { key: "fingerprint".into(), was, is });
        }
        if found.is_empty() {
            found = self.changed_inputs(saved, true);
        }
        let [was, is] = both("examples");
        if found.is_empty() && was != is {
            found.push(Change::Setting { key: "examples".into(), was, is });
        }
        found
    }

    /// The settings and inputs known so far that differ from those of a checkpoint; none where it is of version 1.
    pub(crate) fn early_changes(&self, saved: &Map<String, Value>) -> Vec<Change> {
        if version(saved) == 1 {
            return Vec::new();
        }
        let settings = self.changed_settings(saved);
        if settings.is_empty() { self.changed_inputs(saved, false) } else { settings }
    }

    fn is_old_fingerprint(&self, change: &Change) -> bool {
        !self.version_1.is_empty() && matches!(change, Change::Setting { key, .. } if key == "fingerprint")
    }

    fn changed_settings(&self, saved: &Map<String, Value>) -> Vec<Change> {
        let mut found = Vec::new();
        if let Some(Value::Object(then)) = saved.get("settings") {
            differences("", then, &self.settings, true, &mut found);
        }
        found.retain(|change| !matches!(change, Change::Setting { key, .. } if self.free.contains(key)));
        found
    }

    /// The inputs of the least rank that differ. `all`: inputs that only the checkpoint has differ too.
    fn changed_inputs(&self, saved: &Map<String, Value>, all: bool) -> Vec<Change> {
        let Some(Value::Object(then)) = saved.get("inputs") else { return Vec::new() };
        let is_later = |name: &str| LATER_INPUTS.iter().any(|end| name.ends_with(end));
        let mut found: Vec<&Input> = self
            .inputs
            .iter()
            .filter(|input| match then.get(&input.name) {
                None => !is_later(&input.name),
                Some(digest) => digest.as_str() != Some(input.digest.as_str()),
            })
            .collect();
        if let Some(first) = found.iter().map(|input| input.rank).min() {
            found.retain(|input| input.rank == first);
        }
        let mut found: Vec<Change> = found
            .into_iter()
            .map(|input| Change::Input { name: input.name.clone(), what: input.what.clone() })
            .collect();
        let known = |name: &String| self.inputs.iter().any(|input| input.name == *name);
        if all && found.is_empty() {
            let gone = then.keys().filter(|name| !known(name));
            found.extend(gone.map(|name| Change::Input { name: name.clone(), what: format!("the input `{name}`") }));
        }
        found
    }
}

fn version(saved: &Map<String, Value>) -> u64 {
    saved.get("version").and_then(Value::as_u64).unwrap_or(1)
}

fn is_free(key: &str) -> bool {
    FREE.contains(&key) || key.starts_with("save_")
}

/// The settings that differ, table by table. A table of one key is a choice, such as `{ "ratio": 0.1 }`, and is compared whole.
/// `both`: settings that only `now` has count as well.
fn differences(prefix: &str, then: &Map<String, Value>, now: &Map<String, Value>, both: bool, found: &mut Vec<Change>) {
    let added = now.keys().filter(|key| both && !then.contains_key(*key));
    for name in then.keys().chain(added) {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let [was, is] = [then, now].map(|map| map.get(name).cloned().unwrap_or_default());
        match (&was, &is) {
            (Value::Object(a), Value::Object(b)) if a.len() > 1 && b.len() > 1 => {
                differences(&key, a, b, both, found);
            }
            _ if same(&was, &is) => {}
            _ => found.push(Change::Setting { key, was, is }),
        }
    }
}

/// Returns whether two values are the same setting: `1` and `1.0` are.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn input(name: &str, digest: &str, rank: u8) -> Input {
        Input { name: name.into(), what: format!("the {name}"), digest: digest.into(), rank }
    }

    fn identity(inputs: &[Input], settings: Value) -> Identity {
        let version_1 = "old hash".into();
        Identity { settings: object(settings), inputs: inputs.to_vec(), version_1, free: Vec::new() }
    }

    fn train() -> Map<String, Value> {
        object(json!({ "seed": 1, "best": null, "optimizer": { "eps": 1e-8, "betas": [0.9, 0.999] }, "save_steps": 3 }))
    }

    fn text(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_identity_equals_itself_and_what_is_free_may_change() {
        let identity = identity(&[input("rewards", "a", 2)], json!({ "align": { "method": "dpo", "beta": 0.1 } }));
        let saved = identity.to_json(train(), 7, "");
        let mut later = train();
        later.insert("save_steps".into(), 9.into());
        later.insert("keep_last".into(), 1.into());
        let now = identity.to_json(later, 7, "");
        assert!(identity.changes(&saved, &now).is_empty());
        assert!(identity.early_changes(&saved).is_empty());
    }

    #[test]
    fn a_checkpoint_of_before_a_setting_was_made_with_its_default() {
        let identity = identity(&[], json!({}));
        let saved = identity.to_json(train(), 7, "");
        let mut later = train();
        later.insert("clip_by".into(), "current".into());
        later["optimizer"]["shard"] = json!(true);
        assert!(identity.changes(&saved, &identity.to_json(later.clone(), 7, "")).is_empty());
        // A run may go on with another value, as with another number of devices.
        let saved = identity.to_json(later.clone(), 7, "");
        later["optimizer"]["shard"] = json!(false);
        assert!(identity.changes(&saved, &identity.to_json(later.clone(), 7, "")).is_empty());
        later["clip_by"] = json!("previous");
        let changes = identity.changes(&saved, &identity.to_json(later, 7, ""));
        assert_eq!(text(&changes), ["`clip_by` was \"current\" and is now \"previous\""]);
    }

    #[test]
    fn an_input_that_earlier_builds_did_not_note_is_no_change() {
        let template = input("reward: judge's template", "a", 3);
        let settings = json!({ "n": 1 });
        let saved = identity(&[], settings.clone()).to_json(train(), 7, "");
        let changes = |saved: &Map<String, Value>, inputs: &[Input]| {
            let now = identity(inputs, settings.clone());
            text(&now.changes(saved, &now.to_json(train(), 7, "")))
        };
        assert_eq!(changes(&saved, std::slice::from_ref(&template)), [""; 0]);
        assert_ne!(changes(&saved, &[input("reward: model", "a", 3)]), [""; 0]);
        let noted = identity(&[input("reward: judge's template", "b", 3)], settings.clone()).to_json(train(), 7, "");
        assert_ne!(changes(&noted, &[template]), [""; 0]);
    }

    #[test]
    fn settings_that_the_caller_calls_free_may_change() {
        let with = |wait: u64, batch: u64, free: &[&str]| Identity {
            free: free.iter().map(|key| (*key).to_owned()).collect(),
            ..identity(&[], json!({ "command": { "wait": wait, "batch": batch }, "n": 1 }))
        };
        let saved = with(60, 8, &[]).to_json(train(), 7, "");
        let changes = |now: Identity| text(&now.changes(&saved, &now.to_json(train(), 7, "")));
        assert_eq!(changes(with(90, 8, &["command.wait"])), [""; 0]);
        assert!(with(90, 8, &["command.wait"]).early_changes(&saved).is_empty());
        assert_eq!(changes(with(90, 8, &[])), ["`command.wait` was 60 and is now 90"]);
        assert_eq!(changes(with(90, 9, &["command.wait"])), ["`command.batch` was 8 and is now 9"]);
    }

    #[test]
    fn settings_are_named_by_their_keys() {
        let then = identity(&[], json!({ "align": { "method": "dpo", "beta": 0.1 }, "eval_data": null, "n": 1 }));
        let now =
            identity(&[], json!({ "align": { "method": "dpo", "beta": 0.2 }, "eval_data": { "path": "a" }, "n": 1.0 }));
        let mut other = train();
        other["optimizer"]["eps"] = json!(1e-6);
        let saved = then.to_json(train(), 7, "");
        let changes = now.changes(&saved, &now.to_json(other, 7, ""));
        assert_eq!(
            text(&changes),
            [
                "`optimizer.eps` was 1e-8 and is now 1e-6",
                "`align.beta` was 0.1 and is now 0.2",
                "`eval_data` was not set and is now",
            ]
        );
        assert_eq!(text(&now.early_changes(&saved)).len(), 2);
    }

    #[test]
    fn a_cause_hides_its_consequences() {
        let then = identity(&[input("template", "t", 1), input("tokens", "x", 2), input("loss", "l", 3)], json!({}));
        let now = identity(&[input("template", "u", 1), input("tokens", "y", 2), input("loss", "m", 3)], json!({}));
        let saved = then.to_json(train(), 7, "");
        let changes = now.changes(&saved, &now.to_json(train(), 8, ""));
        assert_eq!(text(&changes), ["the template changed since the run was started"]);
        // What is not known yet, or not any more.
        let early = identity(&then.inputs[..2], json!({}));
        assert!(early.early_changes(&saved).is_empty());
        assert_eq!(
            text(&early.changes(&saved, &early.to_json(train(), 7, ""))),
            ["the input `loss` changed since the run was started"]
        );
    }

    #[test]
    fn version_1_is_compared_by_the_fields_it_has() {
        let identity = identity(&[input("rewards", "a", 2)], json!({ "align": {} }));
        let mut saved = train();
        saved.insert("logging_steps".into(), 3.into());
        saved.insert("examples".into(), 7.into());
        saved.insert("fingerprint".into(), "old hash".into());
        let mut later = train();
        later["optimizer"]["new"] = json!(true);
        later.insert("also_new".into(), json!(1));
        assert!(identity.changes(&saved, &identity.to_json(later.clone(), 7, "")).is_empty());
        assert!(identity.early_changes(&saved).is_empty());

        later.insert("seed".into(), 2.into());
        let changes = identity.changes(&saved, &identity.to_json(later, 7, ""));
        assert_eq!(text(&changes), ["`seed` was 1 and is now 2"]);
        saved.insert("fingerprint".into(), "another".into());
        let changes = identity.changes(&saved, &identity.to_json(train(), 7, ""));
        assert!(text(&changes)[0].starts_with("the model, the data"), "{changes:?}");
    }
}
