//! The text part of a multimodal checkpoint. Its tensors get the names that they have in a language model, and those of the other parts are
//! left out.

use super::Checkpoint;
use crate::Error;
use crate::config::object;
use crate::families::Multimodal;

/// The beginnings of the names of the text part, with those in a language model: the names in files, and those in transformers' modules.
const RENAMED: [(&str, &str); 3] =
    [("language_model.model.", "model."), ("language_model.lm_head.", "lm_head."), ("model.language_model.", "model.")];

/// The beginnings of the names of other parts.
const LEFT_OUT: [&str; 4] =
    ["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."];

/// Returns the name in a language model of a tensor of the text part.
fn renamed(name: &str) -> Option<String> {
    RENAMED.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")))
}

impl Checkpoint {
    /// Reduces the checkpoint to its text part, if its configuration is that of a multimodal model.
    pub(super) fn keep_text_part(&mut self) -> Result<(), Error> {
        if !self.tensors.keys().any(|name| renamed(name).is_some()) || !self.is_multimodal()? {
            return Ok(());
        }
        for (name, entry) in std::mem::take(&mut self.tensors) {
            if LEFT_OUT.iter().any(|part| name.starts_with(part)) {
                continue;
            }
            let short = renamed(&name).unwrap_or_else(|| name.clone());
            let path = self.files[entry.file].path().to_owned();
            if self.tensors.insert(short.clone(), entry).is_some() {
                let message = format!("tensor `{name}` is also there under another name of `{short}`");
                return Err(Error::Header { path, message });
            }
        }
        Ok(())
    }

    fn is_multimodal(&self) -> Result<bool, Error> {
        let path = self.dir.join("config.json");
        if !path.is_file() {
            return Ok(false);
        }
        Ok(Multimodal::of(&object(&path, &setpoint_files::read_text(&path)?)?).is_some())
    }
}
