//! Which settings of a job have a name, wherever they are.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::load::{Config, FREE_TABLES};
use super::table::{insert, value_of};

/// Returns the dotted keys of all settings of a job that have this name.
pub fn settings_named<C: Config>(name: &str) -> Vec<String> {
    C::defaults(&Table::new()).map(|defaults| keys_named::<C>(&defaults, name)).unwrap_or_default()
}

/// Returns the same by the job's defaults.
pub(super) fn keys_named<C: DeserializeOwned>(defaults: &Table, name: &str) -> Vec<String> {
    let mut tables = vec![String::new()];
    collect(defaults, "", &mut tables);
    let takes = |table: &str, name: &str| is_setting::<C>(defaults, &format!("{table}{name}"));
    let of_name = tables.iter().filter(|table| {
        // A table that takes any name says nothing about this one.
        takes(table, name) && !takes(table, "no such setting")
    });
    of_name.map(|table| format!("{table}{name}")).collect()
}

/// Adds the dotted keys of all tables of settings, each with a dot after it.
fn collect(table: &Table, prefix: &str, found: &mut Vec<String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        if let Value::Table(inner) = value
            && !FREE_TABLES.iter().any(|free| key.ends_with(free))
        {
            let prefix = format!("{key}.");
            found.push(prefix.clone());
            collect(inner, &prefix, found);
        }
    }
}

/// Returns whether a setting exists, also one that is not set by default.
fn is_setting<C: DeserializeOwned>(defaults: &Table, key: &str) -> bool {
    if value_of(defaults, key).is_some() {
        return true;
    }
    let mut table = defaults.clone();
    insert(&mut table, key, Value::Integer(0));
    match serde_path_to_error::deserialize::<_, C>(Value::Table(table)) {
        Ok(_) => true,
        // A setting that is there refuses the number itself.
        Err(error) => error.path().to_string() == key && !error.into_inner().to_string().starts_with("unknown field"),
    }
}
