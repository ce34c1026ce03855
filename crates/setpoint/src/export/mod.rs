//! Exports a model to the programs that run models on a user's machine: a GGUF file for llama.cpp, with an Ollama Modelfile.

mod modelfile;

use std::path::{Path, PathBuf};

use setpoint_data::{GgufTokenizer, TextEncoder};
use setpoint_transformer::gguf::{Export, NumberFormat, Value};

use crate::config::output::{Target, require_target};
use crate::config::sections::{ModelSection, Wanted, folder_problem};
use crate::failure::{Failure, Outcome};
use crate::hub;
use crate::model_folder::{is_adapter, refuse_pickle};
use crate::session::Existing;
use crate::setup;

/// The name of the file that Ollama makes a model of.
const MODELFILE: &str = "Modelfile";

/// The settings of an export.
#[derive(Debug, Clone)]
pub struct GgufSettings {
    /// The Hugging Face folder of a causal language model.
    pub model: PathBuf,
    /// The number format of the matrices.
    pub format: NumberFormat,
    /// The file to write. The Modelfile is written next to it.
    pub output: PathBuf,
    /// The treatment of files that exist. [`Existing::Continue`] is no choice here: it counts as [`Existing::Refuse`].
    pub existing: Existing,
}

/// The result of an export.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The length of the GGUF file in bytes.
    pub bytes: u64,
    /// The Modelfile.
    pub modelfile: PathBuf,
    /// The tensors that are in f16 because their rows do not divide into the blocks of the format.
    pub in_f16: Vec<String>,
    /// The difference between these ids and those of llama.cpp's tokenizer, if there may be one.
    pub remark: Option<&'static str>,
}

/// Writes a model as a GGUF file, and the Modelfile next to it. Everything is checked before anything is written.
///
/// # Errors
///
/// [`Failure::Usage`] for the paths; [`Failure::Run`] for a model or tokenizer that llama.cpp does not have, and for a disk that refuses.
/// No part of a file is left behind.
pub fn gguf(settings: &GgufSettings) -> Outcome<Exported> {
    let GgufSettings { model, format, output, existing } = settings;
    let model = &hub::folder_of(model)?;
    if let Some(problem) = problem(model) {
        return Err(Failure::usage("--model", problem));
    }
    require_target(output, Target::File, "--output")?;
    let modelfile = output.with_file_name(MODELFILE);
    if modelfile == *output {
        return Err(Failure::usage("--output", format!("`{MODELFILE}` is the name of the file next to it")));
    }
    require_target(&modelfile, Target::File, "--output")?;
    if replaces_part_of(model, output) {
        let message = format!(
            "`{}` is the place of a file of the model: name a file that ends in .gguf, or choose another folder",
            output.display()
        );
        return Err(Failure::usage("--output", message));
    }
    [output, &modelfile].into_iter().try_for_each(|file| existing.require_new(file))?;
    refuse_pickle(model)?;
    hub::complete(model, false, &mut |_, _| {})?;
    let export = Export::open(model, *format)?;
    let section = ModelSection { path: Some(model.clone()), ..ModelSection::default() };
    let encoder = setup::encoder(&section)?;
    let tokenizer = encoder.gguf_tokenizer(export.config().vocab_size)?;
    let recipe = modelfile::text(&encoder, export.config(), model, output);

    let name = output.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let remark = tokenizer.remark;
    let keys = keys(tokenizer);
    setpoint_files::write(output, |out| export.write(&name, &keys, output, out))?;
    setup::write_text(&modelfile, &recipe)?;
    let bytes = std::fs::metadata(output).map_or(0, |file| file.len());
    let in_f16 = export.in_f16_instead().map(str::to_owned).collect();
    Ok(Exported { bytes, modelfile, in_f16, remark })
}

/// Says why a folder holds no model that can be exported, in one sentence.
fn problem(model: &Path) -> Option<String> {
    if is_adapter(model) {
        let shown = model.display();
        return Some(format!(
            "`{shown}` holds an adapter, not a whole model: `setpoint merge --model {shown} --output DIR` makes one of it"
        ));
    }
    folder_problem(model, Wanted::LanguageModel)
}

/// Returns whether a file is one that the model is read from, or would be taken for one. An earlier export in the model's folder is neither.
fn replaces_part_of(model: &Path, output: &Path) -> bool {
    if output.extension().is_some_and(|ending| ending == "gguf") {
        return false;
    }
    let place = |path: &Path| path.canonicalize().ok();
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if place(folder).is_some_and(|folder| place(model) == Some(folder)) {
        return true;
    }
    // Also through a link, as in the hub's cache.
    let Some(output) = place(output) else { return false };
    let files = std::fs::read_dir(model).into_iter().flatten().flatten();
    files.map(|file| file.path()).any(|file| place(&file).is_some_and(|file| file == output))
}

/// Returns the tokenizer's keys.
fn keys(tokenizer: GgufTokenizer) -> Vec<(String, Value)> {
    let mut keys = Vec::new();
    let mut add = |key: &str, value: Value| keys.push((format!("tokenizer.{key}"), value));
    add("ggml.model", Value::Text(tokenizer.model.to_owned()));
    add("ggml.pre", Value::Text(tokenizer.pre.to_owned()));
    add("ggml.tokens", Value::Texts(tokenizer.tokens));
    if !tokenizer.scores.is_empty() {
        add("ggml.scores", Value::F32s(tokenizer.scores));
    }
    add("ggml.token_type", Value::I32s(tokenizer.kinds.into_iter().map(|kind| kind as i32).collect()));
    if !tokenizer.merges.is_empty() {
        add("ggml.merges", Value::Texts(tokenizer.merges));
    }
    for (name, id) in
        [("bos", tokenizer.bos), ("eos", tokenizer.eos), ("unknown", tokenizer.unknown), ("padding", tokenizer.padding)]
    {
        if let Some(id) = id {
            add(&format!("ggml.{name}_token_id"), Value::U32(id));
        }
    }
    add("ggml.add_bos_token", Value::Bool(tokenizer.add_bos));
    if let Some(add_space) = tokenizer.add_space_prefix {
        add("ggml.add_space_prefix", Value::Bool(add_space));
    }
    if let Some(template) = tokenizer.chat_template {
        add("chat_template", Value::Text(template));
    }
    keys
}

/// Returns the texts of the tokens that end an answer.
fn stops(encoder: &TextEncoder) -> Vec<String> {
    encoder.stop_ids().iter().filter_map(|id| encoder.decode(&[*id]).ok()).collect()
}
