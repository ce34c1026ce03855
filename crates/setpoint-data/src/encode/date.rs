//! The date that chat templates print.

use std::path::Path;

use serde_json::Value;

use super::EncoderOptions;
use super::special::optional_json;
use crate::error::Error;
use crate::notes::ModelNotes;
use crate::template::{TemplateDate, template_source, tool_template_source};

/// The date that a chat template prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrintedDate {
    /// The date.
    pub date: TemplateDate,
    /// True if a setting or the model's folder names it. Else it is today's.
    pub is_fixed: bool,
}

/// The date that the chat template of a tokenizer folder prints, if it prints one.
///
/// # Errors
/// [`Error::Io`], [`Error::Tokenizer`], [`Error::Template`] or [`Error::Notes`], naming the file that cannot be read.
pub fn printed_date(dir: &Path, options: &EncoderOptions) -> Result<Option<PrintedDate>, Error> {
    let config = optional_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    find(dir, &config, options)
}

/// [`printed_date`] with the content of `tokenizer_config.json`.
pub(super) fn find(dir: &Path, config: &Value, options: &EncoderOptions) -> Result<Option<PrintedDate>, Error> {
    let sources =
        [template_source(dir, config, &options.template)?, tool_template_source(dir, config, &options.template)?];
    // A template may ask for the date in some conversations only: what counts is whether it can.
    let asks = sources.iter().flatten().any(|(_, source)| source.contains("strftime_now"));
    if !asks || options.template_kwargs.contains_key("date_string") {
        return Ok(None);
    }
    let mut date = options.template_date;
    for dir in [options.model_dir.as_deref(), Some(dir)].into_iter().flatten() {
        if date.is_none() {
            date = ModelNotes::read(dir)?.template_date()?;
        }
    }
    Ok(Some(PrintedDate { date: date.unwrap_or_else(TemplateDate::today), is_fixed: date.is_some() }))
}
