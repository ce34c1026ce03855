//! The tokenizer's files for a model that is saved.

use std::path::Path;

use serde_json::{Map, Value};

use super::{TextEncoder, special};
use crate::error::Error;
use crate::gguf::SENTENCEPIECE_MODEL;
use crate::notes::ModelNotes;
use crate::template::{ADDITIONAL, TOOL_USE};

impl TextEncoder {
    /// Returns the tokens that are put before a text: BOS, or none.
    pub(crate) fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// Returns the folder of the tokenizer.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the bytes of `tokenizer.json`.
    pub(crate) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Returns whether the other encoder turns the same texts into the same ids and names the same stop tokens. The name of the EOS token
    /// counts only if the template prints it: training on a template's turns changes that name.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let source = |encoder: &Self| encoder.template.as_ref().map_or(String::new(), |t| t.source().to_owned());
        let names = |encoder: &Self| {
            let mut names = encoder.special.names.clone();
            if !source(encoder).contains("eos_token") {
                names.remove("eos_token");
            }
            names
        };
        let stops = |encoder: &Self| encoder.stop_ids.iter().copied().collect::<std::collections::BTreeSet<u32>>();
        self.json == other.json
            && source(self) == source(other)
            && names(self) == names(other)
            && self.variables.extra == other.variables.extra
            && self.prefix == other.prefix
            && stops(self) == stops(other)
    }

    /// Writes `tokenizer.json` as it was read, `tokenizer_config.json` with the special tokens in use, and the chat template
    /// in use as `chat_template.jinja`: transformers and vLLM then render and tokenise as this encoder does. The date that the
    /// template prints goes into `setpoint.json`. A SentencePiece `tokenizer.model` is copied: GGUF files need its scores.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be copied, or the disk refuses.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        self.save_with_eos(dir, None)
    }

    /// Saves as [`save`](Self::save) does, with another token as EOS: the one that a model learned to end its turns with.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk refuses.
    pub fn save_with_eos(&self, dir: &Path, eos: Option<u32>) -> Result<(), Error> {
        let write = |name: &str, bytes: &[u8]| setpoint_files::write(&dir.join(name), |out| out.put(bytes));
        write("tokenizer.json", &self.json)?;
        let pieces = self.dir.join(SENTENCEPIECE_MODEL);
        if pieces.is_file() {
            write(SENTENCEPIECE_MODEL, &setpoint_files::read(&pieces)?)?;
        }
        let mut config = match special::optional_json(&self.dir.join("tokenizer_config.json"))? {
            Some(Value::Object(config)) => config,
            _ => Map::from_iter([("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into())]),
        };
        for (name, text) in &self.special.names {
            config.insert(name.clone(), text.as_str().into());
        }
        if let Some(text) = eos.and_then(|id| self.tokens.tokenizer.id_to_token(id)) {
            config.insert("eos_token".to_owned(), text.into());
        }
        if self.template.is_some() || self.tool_template.is_some() {
            // The files alone: two templates that differ would be a trap.
            config.shift_remove("chat_template");
        }
        if let Some(template) = &self.template {
            write("chat_template.jinja", template.source().as_bytes())?;
        }
        if let Some(template) = &self.tool_template {
            write(&format!("{ADDITIONAL}/{TOOL_USE}.jinja"), template.source().as_bytes())?;
        }
        if let Some(printed) = self.printed_date {
            let mut notes = ModelNotes::read(dir)?;
            notes.set_template_date(printed.date);
            notes.write()?;
        }
        let text = serde_json::to_string_pretty(&config).map_err(|e| self.failed(e.to_string()))?;
        Ok(write("tokenizer_config.json", (text + "\n").as_bytes())?)
    }
}
