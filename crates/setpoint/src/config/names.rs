//! The settings of a job that have a name, wherever they are.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::explain::{expects_table, no_settings};
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

/// Returns whether a job has a setting of this dotted key, also one that is not set by default.
pub fn has_setting<C: Config>(key: &str) -> bool {
    C::defaults(&Table::new()).is_ok_and(|defaults| is_setting::<C>(&defaults, key))
}

/// Returns the dotted keys of every setting in a table of settings, also of those that are not set by default.
pub(super) fn all_keys<C: DeserializeOwned>(defaults: &Table) -> Vec<String> {
    let mut tables = vec![String::new()];
    collect(defaults, "", &mut tables);
    let of_table = |table: &String| {
        let names = names_in::<C>(defaults, table);
        names.into_iter().map(|name| format!("{table}{name}")).collect::<Vec<_>>()
    };
    tables.iter().flat_map(of_table).collect()
}

/// Returns the names that a table of settings takes, which serde lists for one that it does not take. `prefix` ends with a dot.
fn names_in<C: DeserializeOwned>(defaults: &Table, prefix: &str) -> Vec<String> {
    let mut table = defaults.clone();
    insert(&mut table, &format!("{prefix}no such setting"), Value::Integer(0));
    let error = serde_path_to_error::deserialize::<_, C>(Value::Table(table)).err();
    let message = error.map(|error| error.into_inner().to_string()).unwrap_or_default();
    let message = message.lines().next().unwrap_or_default();
    let Some(rest) = message.strip_prefix("unknown field ") else { return Vec::new() };
    let names: Vec<String> = rest.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    if !names.is_empty() {
        return names;
    }
    // Serde lists no names where settings are put together from several types: these all have a default.
    let table = value_of(defaults, prefix.trim_end_matches('.')).and_then(Value::as_table);
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

/// Removes keys that are no settings, all but the first `keep` of them, and returns how many it removed. The time that an explanation
/// takes depends on the number of keys.
pub(super) fn remove_unknown<C: DeserializeOwned>(defaults: &Table, user: &mut Table, keep: usize) -> usize {
    let mut found = 0;
    remove_in::<C>(defaults, user, "", keep, &mut found);
    found.saturating_sub(keep)
}

/// Does so in the table at `prefix`, which ends with a dot.
fn remove_in<C: DeserializeOwned>(defaults: &Table, table: &mut Table, prefix: &str, keep: usize, found: &mut usize) {
    let names = names_in::<C>(defaults, prefix);
    if names.is_empty() {
        return;
    }
    table.retain(|name, _| {
        let is_known = names.iter().any(|known| known == name);
        *found += usize::from(!is_known);
        is_known || *found <= keep
    });
    for (name, value) in table.iter_mut().filter(|(name, _)| names.contains(name)) {
        let key = format!("{prefix}{name}");
        if let Value::Table(inner) = value
            && !FREE_TABLES.contains(&key.as_str())
        {
            remove_in::<C>(defaults, inner, &format!("{key}."), keep, found);
        }
    }
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
pub(super) fn is_setting<C: DeserializeOwned>(defaults: &Table, key: &str) -> bool {
    if value_of(defaults, key).is_some() {
        return true;
    }
    let mut table = defaults.clone();
    insert(&mut table, key, Value::Integer(0));
    match serde_path_to_error::deserialize::<_, C>(Value::Table(table)) {
        Ok(_) => true,
        Err(error) => {
            let (path, message) = (error.path().to_string(), error.into_inner().to_string());
            let is_unknown = message.starts_with("unknown field");
            // A setting that exists refuses the number itself, or takes it and misses another one of a table without defaults.
            let misses_another = message.starts_with("missing field") && key.starts_with(&format!("{path}."));
            !is_unknown && (path == key || misses_another)
        }
    }
}

/// Returns whether a dotted key is that of a table of settings, also one that is not set by default.
pub(super) fn is_section<C: DeserializeOwned>(defaults: &Table, key: &str) -> bool {
    value_of(defaults, key).is_some_and(Value::is_table) || {
        let mut table = defaults.clone();
        insert(&mut table, key, no_settings());
        let error = serde_path_to_error::deserialize::<_, C>(Value::Table(table)).err();
        error.is_some_and(|error| expects_table(&error.into_inner().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Given, load_unchecked};

    /// Words of Rust and serde that say nothing to somebody who writes a settings file.
    const FOR_PROGRAMMERS: [&str; 14] = [
        "variant",
        "newtype",
        "struct",
        "enum",
        "tuple",
        "usize",
        "u64",
        "i64",
        "f64",
        "invalid type",
        "invalid value",
        "invalid length",
        "untagged",
        "deserializ",
    ];

    /// Gives every setting of a job a value of every type, and checks what is said of those that do not fit.
    fn check<C: Config>(job: &str, set: &[&str], wrong: &mut Vec<String>) {
        let user = Given { set: set.iter().map(|set| (*set).to_owned()).collect(), ..Given::default() };
        let defaults = crate::config::load::to_table(&load_unchecked::<C>(&user).unwrap());
        let mut keys = all_keys::<C>(&defaults);
        if set.iter().any(|set| set.starts_with("align.method")) {
            // The other settings are the same for every method.
            keys.retain(|key| key.starts_with("align."));
        }
        let mut complaints = 0;
        for key in &keys {
            for value in ["\"no such name\"", "-7", "0.25", "true", "[true]", "{ no_such_key = 1 }", "[{ x = 1 }]"] {
                let given =
                    Given { set: [user.set.clone(), vec![format!("{key}={value}")]].concat(), ..Given::default() };
                for problem in load_unchecked::<C>(&given).err().unwrap_or_default() {
                    complaints += 1;
                    let said = problem.to_string();
                    // What the user wrote is repeated.
                    let own = problem.message.replace(key, "");
                    if FOR_PROGRAMMERS.iter().any(|word| own.contains(word)) {
                        wrong.push(format!("{job}: {said}"));
                    }
                }
            }
        }
        assert!(complaints > keys.len(), "{job}: {complaints} complaints about {} settings", keys.len());
    }

    #[test]
    fn no_message_is_in_the_words_of_a_programming_language() {
        let mut wrong = Vec::new();
        let all = &mut wrong;
        check::<crate::sft::SftConfig>("sft", &["train.best={metric=\"loss\",greater_is_better=false}"], all);
        check::<crate::reward::RewardConfig>("reward", &[], all);
        check::<crate::annotate::AnnotateConfig>("annotate", &[], all);
        check::<crate::select::SelectConfig>("select", &[], all);
        check::<crate::logps::LogpsConfig>("logps", &[], all);
        check::<crate::sweep::SweepConfig>("sweep", &[], all);
        check::<crate::compare::CompareConfig>("compare", &[], all);
        check::<crate::generate::GenerateConfig>("generate", &[], all);
        check::<crate::eval::EvalConfig>("eval", &[], all);
        check::<crate::eval::alpaca::AlpacaConfig>("eval alpaca", &[], all);
        check::<crate::eval::mt_bench::MtBenchConfig>("eval mt-bench", &[], all);
        check::<crate::eval::arena_hard::ArenaHardConfig>("eval arena-hard", &[], all);
        check::<crate::eval::tasks::TasksConfig>("eval tasks", &[], all);
        check::<crate::eval::ifeval::IfEvalConfig>("eval ifeval", &[], all);
        check::<crate::eval::reward_bench::RewardBenchConfig>("eval reward-bench", &[], all);
        check::<crate::align::AlignConfig>("align", &[], all);
        for about in setpoint_align::METHODS {
            let method = format!("align.method={}", about.name);
            check::<crate::align::AlignConfig>(about.name, &[&method], all);
        }
        assert!(wrong.is_empty(), "{} messages:\n{}", wrong.len(), wrong.join("\n"));
    }
}
