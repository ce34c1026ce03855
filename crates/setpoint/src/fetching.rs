//! Downloads the weights of models on the hub before a job begins its work.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::failure::Outcome;
use crate::hub;
use crate::model_folder::ModelFolder;
use crate::session::{Meter, Session};

const MB: u64 = 1_000_000;

/// Downloads the weights of the models that settings name, with those of the bases of adapters, unless they are there.
///
/// # Errors
/// When the hub cannot be reached or a model has no weights that are read.
pub fn fetch_weights(session: &Session, settings: &Table) -> Outcome {
    let mut wanted: Vec<(PathBuf, bool)> = Vec::new();
    hub::each_model(&mut settings.clone(), &mut |key, name| {
        if !key.ends_with("tokenizer") {
            let section = key.rsplit_once('.').map_or("model", |(section, _)| section);
            let allowed = hub::value_at(settings, &format!("{section}.allow_pickle")).and_then(Value::as_bool);
            wanted.push((PathBuf::from(&*name), allowed.unwrap_or(false)));
        }
    });
    wanted.into_iter().try_for_each(|(path, allow_pickle)| fetch_weights_of(session, &path, allow_pickle))
}

/// Downloads the weights of one model, with those of its base if it is an adapter, unless they are there.
///
/// # Errors
/// The errors of [`fetch_weights`].
pub fn fetch_weights_of(session: &Session, path: &Path, allow_pickle: bool) -> Outcome {
    let folder = hub::folder_of(path)?;
    // A folder that holds no model has an error of its own, where it is read.
    let base = ModelFolder::open(&folder).ok().map(|opened| opened.base().to_owned());
    for folder in [Some(folder.clone()), base.filter(|base| *base != folder)].into_iter().flatten() {
        let mut meter: Option<Meter> = None;
        hub::complete(&folder, allow_pickle, &mut |done, total| {
            let meter = meter.get_or_insert_with(|| {
                let total = usize::try_from(total.unwrap_or(0) / MB).unwrap_or(0);
                Meter::new(session, total, &hub::shown(&folder), "MB")
            });
            meter.reach(usize::try_from(done / MB).unwrap_or(0));
        })?;
        if let Some(meter) = meter {
            meter.finish();
        }
    }
    Ok(())
}
