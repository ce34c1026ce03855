//! Holds `encode.max_length` to the positions of the model that the settings name.

use std::path::Path;

use setpoint_transformer::ModelConfig;
use toml::{Table, Value};

use super::problems::Problems;
use super::table::{insert, value_of};
use crate::model_folder::holding;

/// The setting.
pub const MAX_LENGTH: &str = "encode.max_length";

/// Lowers the default to what the model has positions for.
pub fn adapt_default(defaults: &mut Table, user: &Table) {
    let default = value_of(defaults, MAX_LENGTH).and_then(Value::as_integer);
    if value_of(user, MAX_LENGTH).is_none()
        && let (Some(default), Some((positions, _))) = (default, positions(user))
        && default > positions
    {
        insert(defaults, MAX_LENGTH, Value::Integer(positions));
    }
}

/// Notes a value that the user set and the model has too few positions for.
pub fn check(user: &Table, problems: &mut Problems<'_>) {
    let given = value_of(user, MAX_LENGTH).and_then(Value::as_integer);
    if let (Some(given), Some((positions, model))) = (given, positions(user))
        && given > positions
    {
        problems.add(
            MAX_LENGTH,
            format!(
                "`{MAX_LENGTH}` is {given}, but {model} has positions for {positions} tokens (max_position_embeddings): \
                 set at most {positions}, or leave it out"
            ),
        );
    }
}

/// The positions of the model that the settings name, and its name. What is wrong with the model is said where it is read.
fn positions(user: &Table) -> Option<(i64, String)> {
    let named = |key: &str| value_of(user, key).and_then(Value::as_str).filter(|path| !path.is_empty());
    let (path, name) = match (named("model.path"), named("model.from_scratch")) {
        (Some(dir), _) => (holding(Path::new(dir), "config.json").join("config.json"), dir),
        (None, Some(file)) => (file.into(), file),
        (None, None) => return None,
    };
    let config = ModelConfig::from_file(&path).ok()?;
    Some((i64::try_from(config.max_position_embeddings).ok()?, name.to_owned()))
}
