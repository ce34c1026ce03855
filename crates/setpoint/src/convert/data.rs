//! The rules for data sets.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::Tool;
use super::draft::Draft;
use super::rules::Names;

/// The training data.
pub fn data(draft: &mut Draft<'_>, names: Names<'_>) {
    let section = match draft.tool {
        Tool::Trl if draft.get("dataset_name").is_some() => {
            let mut table = Table::new();
            for (name, key) in
                [("dataset_name", "path"), ("dataset_config", "subset"), ("dataset_train_split", "split")]
            {
                if let Some(text) = draft.text(name) {
                    table.insert(key.to_owned(), text.into());
                }
            }
            // trl looks at it only if the columns are those of no other format.
            let is_whole =
                |column: &&str| !["text", "messages", "prompt", "completion", "conversations"].contains(column);
            if let Some(column) = draft.text("dataset_text_field").filter(is_whole) {
                table.insert("columns".to_owned(), Table::from_iter([("text".to_owned(), Value::from(column))]).into());
            }
            Some(table)
        }
        Tool::Trl | Tool::Axolotl => draft.get("datasets").and_then(|list| data_sets(draft, "datasets", list)),
        Tool::LlamaFactory => draft.get("dataset").and_then(|list| registered(draft, "dataset", list)),
    };
    match section {
        Some(table) => draft.set("data", table),
        None => draft.lose(names[0], "no data set could be carried over: set data.path"),
    }
}

/// The data to evaluate on.
pub fn eval_data(draft: &mut Draft<'_>, names: Names<'_>) {
    let section = match draft.tool {
        // trl evaluates on a split of the training data, if it evaluates.
        Tool::Trl => match draft.text("eval_strategy") {
            None | Some("no") => return,
            Some(_) => {
                let data = draft.settings.get("data").and_then(Value::as_table).cloned();
                let split = draft.text("dataset_test_split").unwrap_or("test").to_owned();
                data.map(|data| with_split(data, &split))
            }
        },
        Tool::Axolotl => draft.get("test_datasets").and_then(|list| data_sets(draft, "test_datasets", list)),
        Tool::LlamaFactory => draft.get("eval_dataset").and_then(|list| registered(draft, "eval_dataset", list)),
    };
    match section {
        Some(table) => draft.set("eval_data", table),
        None => draft.lose(names[0], "no data set to evaluate on could be carried over: set eval_data.path"),
    }
}

/// Returns a section with another split of its data sets.
fn with_split(mut section: Table, split: &str) -> Table {
    let sources = section.get_mut("sources").and_then(Value::as_array_mut);
    let many = sources.is_some();
    for source in sources.into_iter().flatten().filter_map(Value::as_table_mut) {
        source.insert("split".to_owned(), split.into());
    }
    if !many {
        section.insert("split".to_owned(), split.into());
    }
    section
}

/// Returns our section for some data sets, each with its settings.
fn section_of(mut sets: Vec<Table>) -> Option<Table> {
    if sets.len() > 1 {
        let sources = Value::Array(sets.into_iter().map(Value::Table).collect());
        return Some(Table::from_iter([("sources".to_owned(), sources)]));
    }
    sets.pop()
}

/// Returns our section for a list of data sets, which are read one after the other.
fn data_sets(draft: &mut Draft<'_>, name: &str, list: &Json) -> Option<Table> {
    let mut sets = Vec::new();
    for (at, entry) in list.as_array()?.iter().enumerate() {
        match data_set(draft, name, entry) {
            Some(set) => sets.push(set),
            None => draft.lose(name, format!("entry {} has no `path` and is left out", at + 1)),
        }
    }
    section_of(sets)
}

/// Returns the settings of a data set in a list.
fn data_set(draft: &mut Draft<'_>, name: &str, entry: &Json) -> Option<Table> {
    let entry = entry.as_object()?;
    let text = |key: &str| entry.get(key).and_then(Json::as_str);
    let files = match entry.get("data_files") {
        Some(Json::Array(files)) if files.len() == 1 => files[0].as_str(),
        Some(value) => value.as_str(),
        None => None,
    };
    // Of a builder such as `json`, the file is the data set.
    let path = match (text("path")?, files) {
        ("json" | "jsonl" | "parquet" | "csv", Some(file)) => file,
        (path, _) => {
            if entry.get("data_files").is_some_and(|files| !files.is_null()) {
                draft.lose(&format!("{name}.data_files"), format!("name the files themselves in place of {path}"));
            }
            path
        }
    };
    let mut table = Table::from_iter([("path".to_owned(), Value::from(path))]);
    for (theirs, ours) in [("name", "subset"), ("split", "split"), ("revision", "revision")] {
        match entry.get(theirs) {
            Some(Json::String(text)) => drop(table.insert(ours.to_owned(), text.as_str().into())),
            None | Some(Json::Null) => {}
            Some(_) => draft.lose(&format!("{name}.{theirs}"), "expected a text"),
        }
    }
    let columns = [
        ("field_messages", "messages"),
        ("field_chosen", "chosen"),
        ("field_rejected", "rejected"),
        // Of `type: completion`.
        ("field", "text"),
    ];
    let renamed = columns.into_iter().filter_map(|(theirs, ours)| {
        text(theirs).filter(|text| *text != ours).map(|text| (ours.to_owned(), Value::from(text)))
    });
    let renamed = Table::from_iter(renamed);
    if !renamed.is_empty() {
        table.insert("columns".to_owned(), renamed.into());
    }
    for key in entry.keys().filter(|key| !["path", "name", "split", "revision", "data_files"].contains(&key.as_str())) {
        if columns.iter().any(|(theirs, _)| theirs == key) {
            continue;
        }
        let reason = match key.as_str() {
            "weight" => {
                "a part of the data set's own rows there, and a share of an epoch here: see docs/DATA.md".to_owned()
            }
            "ds_type" => "the kind of a file follows from its name".to_owned(),
            "type" => "the format is detected from the columns: docs/DATA.md lists those that are known".to_owned(),
            _ => "has no counterpart; data.columns renames columns".to_owned(),
        };
        draft.lose(&format!("{name}.{key}"), reason);
    }
    Some(table)
}

/// Returns our section for data sets that LLaMA-Factory knows by names of `dataset_info.json`.
fn registered(draft: &mut Draft<'_>, name: &str, list: &Json) -> Option<Table> {
    let names = texts(list);
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => return None,
        [one] => draft.lose(name, format!("{one} is a name of dataset_info.json: set the path to its file or hub id")),
        several => {
            let several = several.join(", ");
            draft.lose(
                name,
                format!("{several} are names of dataset_info.json: set the path of each to its file or hub id"),
            );
        }
    }
    let mut sets: Vec<Table> =
        names.iter().map(|name| Table::from_iter([("path".to_owned(), Value::from(name.as_str()))])).collect();
    let strategy =
        draft.text("mix_strategy").filter(|strategy| strategy.starts_with("interleave") && name == "dataset");
    if let Some(strategy) = strategy.filter(|_| sets.len() > 1) {
        weigh(draft, &mut sets);
        let mut section = section_of(sets)?;
        if strategy == "interleave_over" {
            section.insert("stopping_strategy".to_owned(), "all_exhausted".into());
        }
        return Some(section);
    }
    section_of(sets)
}

/// Gives data sets that are interleaved their weights: equal ones, unless the file has probabilities.
fn weigh(draft: &mut Draft<'_>, sets: &mut [Table]) {
    let probabilities = draft.get("interleave_probs").map(texts);
    let weights: Option<Vec<f64>> = match &probabilities {
        None => Some(vec![1.0; sets.len()]),
        Some(texts) => texts.iter().map(|text| text.parse().ok()).collect(),
    };
    match weights.filter(|weights| weights.len() == sets.len()) {
        Some(weights) => {
            for (set, weight) in sets.iter_mut().zip(weights) {
                set.insert("weight".to_owned(), weight.into());
            }
        }
        None => draft.misread("interleave_probs", &format!("{} numbers", sets.len())),
    }
}

/// Returns the entries of a list, which may be a text with commas.
fn texts(list: &Json) -> Vec<String> {
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match list {
        Json::Array(items) => items.iter().map(text).collect(),
        value => text(value).split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
    }
}
