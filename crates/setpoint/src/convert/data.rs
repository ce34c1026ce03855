//! How data sets are carried over.

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
            Some(table)
        }
        Tool::Trl | Tool::Axolotl => draft.get("datasets").and_then(|list| data_set(draft, "datasets", list)),
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
                data.map(|mut data| {
                    data.insert("split".to_owned(), split.into());
                    data
                })
            }
        },
        Tool::Axolotl => draft.get("test_datasets").and_then(|list| data_set(draft, "test_datasets", list)),
        Tool::LlamaFactory => draft.get("eval_dataset").and_then(|list| registered(draft, "eval_dataset", list)),
    };
    match section {
        Some(table) => draft.set("eval_data", table),
        None => draft.lose(names[0], "no data set to evaluate on could be carried over: set eval_data.path"),
    }
}

/// Returns our section for the first data set of a list; others are lost.
fn data_set(draft: &mut Draft<'_>, name: &str, list: &Json) -> Option<Table> {
    let list = list.as_array()?;
    if list.len() > 1 {
        draft.lose(
            name,
            format!("one data set is read, and {} are listed: join them into one file, or set data.path", list.len()),
        );
    }
    let entry = list.first()?.as_object()?;
    let text = |key: &str| entry.get(key).and_then(Json::as_str);
    let files = match entry.get("data_files") {
        Some(Json::Array(files)) if files.len() == 1 => files[0].as_str(),
        Some(value) => value.as_str(),
        None => None,
    };
    // Of a builder such as `json`, the file is the data set.
    let path = match (text("path")?, files) {
        ("json" | "jsonl" | "parquet" | "csv", Some(file)) => file,
        (path, _) => path,
    };
    let mut table = Table::from_iter([("path".to_owned(), Value::from(path))]);
    for (theirs, ours) in [("name", "subset"), ("split", "split"), ("revision", "revision")] {
        if let Some(text) = text(theirs) {
            table.insert(ours.to_owned(), text.into());
        }
    }
    let columns = [
        ("field_messages", "messages"),
        ("field_chosen", "chosen"),
        ("field_rejected", "rejected"),
        ("field", "prompt"),
    ];
    let renamed = columns.into_iter().filter_map(|(theirs, ours)| {
        text(theirs).filter(|text| *text != ours).map(|text| (ours.to_owned(), Value::from(text)))
    });
    let renamed = Table::from_iter(renamed);
    if !renamed.is_empty() {
        table.insert("columns".to_owned(), renamed.into());
    }
    for key in entry
        .keys()
        .filter(|key| !["path", "name", "split", "revision", "data_files", "ds_type"].contains(&key.as_str()))
    {
        if columns.iter().any(|(theirs, _)| theirs == key) {
            continue;
        }
        let reason = match key.as_str() {
            "type" => "the format is detected from the columns: docs/DATA.md lists those that are known".to_owned(),
            _ => "has no counterpart; data.columns renames columns".to_owned(),
        };
        draft.lose(&format!("{name}.{key}"), reason);
    }
    Some(table)
}

/// Returns our section for a data set that LLaMA-Factory knows by a name of `dataset_info.json`.
fn registered(draft: &mut Draft<'_>, name: &str, list: &Json) -> Option<Table> {
    let first = match list {
        Json::Array(names) => names.first()?.as_str()?,
        value => value.as_str()?.split(',').next()?.trim(),
    };
    draft.lose(
        name,
        format!("`{first}` is a name of dataset_info.json: set data.path to its file or hub id; one data set is read"),
    );
    Some(Table::from_iter([("path".to_owned(), Value::from(first))]))
}
