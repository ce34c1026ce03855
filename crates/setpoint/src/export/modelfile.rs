//! Ollama's Modelfile: the file of the weights, how to sample, and the chat template in Go's syntax.
//!
//! The format: <https://docs.ollama.com/modelfile>.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use setpoint_data::{BuiltIn, TextEncoder};
use setpoint_transformer::ModelConfig;

/// The longest context that is reserved unasked: Ollama takes the memory for all of it at once.
const CONTEXT: usize = 8192;

/// Returns the Modelfile of an exported model.
pub(super) fn text(encoder: &TextEncoder, config: &ModelConfig, model: &Path, output: &Path) -> String {
    let file = output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut text =
        if file.contains(char::is_whitespace) { format!("FROM \"./{file}\"\n") } else { format!("FROM ./{file}\n") };
    let mut parameter = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "PARAMETER {name} {value}");
    };
    // llama.cpp decides by the size of the context, not by the length of a text, which factors of LongRoPE all texts have.
    let most = config.rope.switch().tokens().unwrap_or(usize::MAX);
    parameter("num_ctx", &config.max_position_embeddings.min(CONTEXT).min(most));
    for stop in super::stops(encoder).iter().filter(|stop| is_plain(stop)) {
        parameter("stop", &format!("\"{stop}\""));
    }
    for (name, value) in sampling(model) {
        parameter(name, &value);
    }
    if let Some(template) = template(encoder) {
        text.push_str(&format!("TEMPLATE \"\"\"{template}\"\"\"\n"));
    }
    text
}

/// Returns whether a text can be quoted.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(['"', '\\', '\n', '\r'])
}

/// Returns the sampling settings of `generation_config.json`. Greedy generation is a temperature of 0.
fn sampling(model: &Path) -> Vec<(&'static str, f64)> {
    let file = setpoint_files::read_text(&model.join("generation_config.json")).ok();
    let file: Value = file.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    if file["do_sample"] == false {
        return vec![("temperature", 0.0)];
    }
    let keys = ["temperature", "top_p", "top_k", "min_p"];
    keys.into_iter().filter_map(|key| Some((key, file[key].as_f64()?))).collect()
}

/// Returns a built-in template in Go's syntax; `None` for other templates, which Ollama recognises itself or takes from the GGUF file.
///
/// Ollama gives a template the turns as `.Messages`, and the system turns once more as `.System`. llama.cpp puts BOS before the text.
fn template(encoder: &TextEncoder) -> Option<String> {
    let source = encoder.template()?.source();
    let template = BuiltIn::ALL.into_iter().find(|template| template.source() == source)?;
    let eos = encoder.special_tokens().eos.as_ref().map_or("", |(text, _)| text.as_str());
    // The texts of these tokens become a part of the template.
    if eos.contains("{{") || eos.contains('"') {
        return None;
    }
    let date = encoder.printed_date().map(|printed| printed.date.midnight().format("%d %b %Y").to_string());
    Some(match template {
        BuiltIn::ChatMl => CHATML.to_owned(),
        BuiltIn::Qwen2_5 => format!(
            "{{{{- if not .System }}}}<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful \
             assistant.<|im_end|>\n{{{{ end }}}}{CHATML}"
        ),
        BuiltIn::Llama3 => format!("{{{{- range .Messages }}}}{LLAMA_TURN}{{{{ end }}}}{LLAMA_ANSWER}"),
        BuiltIn::Llama3_1 => llama_with_date(date.as_deref().unwrap_or("26 Jul 2024")),
        BuiltIn::Llama3_2 => llama_with_date(&date?),
        BuiltIn::Gemma => GEMMA.to_owned(),
        BuiltIn::Phi3 => PHI3.to_owned(),
        BuiltIn::Zephyr => ZEPHYR.replace("EOS", eos),
        BuiltIn::Plain => PLAIN.replace("EOS", eos),
    })
}

fn llama_with_date(date: &str) -> String {
    format!(
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: {date}\n\n\
         {{{{ .System }}}}<|eot_id|>{{{{- range .Messages }}}}{{{{ if ne .Role \"system\" }}}}{LLAMA_TURN}\
         {{{{ end }}}}{{{{ end }}}}{LLAMA_ANSWER}"
    )
}

const CHATML: &str = "{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
";

const LLAMA_TURN: &str = "<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>";

const LLAMA_ANSWER: &str = "<|start_header_id|>assistant<|end_header_id|>

";

const GEMMA: &str = r#"{{- range .Messages }}<start_of_turn>{{ if eq .Role "assistant" }}model{{ else }}{{ .Role }}{{ end }}
{{ .Content }}<end_of_turn>
{{ end }}<start_of_turn>model
"#;

const PHI3: &str = "{{- range .Messages }}<|{{ .Role }}|>
{{ .Content }}<|end|>
{{ end }}<|assistant|>
";

const ZEPHYR: &str = "{{- range .Messages }}<|{{ .Role }}|>
{{ .Content }}EOS
{{ end }}<|assistant|>
";

const PLAIN: &str = r#"{{- range .Messages }}{{ if eq .Role "assistant" }}Assistant: {{ .Content }}EOS
{{ else if eq .Role "system" }}System: {{ .Content }}
{{ else }}User: {{ .Content }}
{{ end }}{{ end }}Assistant: "#;

#[cfg(test)]
mod tests {
    use setpoint_data::EncoderOptions;

    use super::*;

    #[test]
    fn the_context_of_longrope_is_that_of_its_short_factors() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let encoder = TextEncoder::from_dir(&root.join("examples/demo/tokenizer"), &EncoderOptions::default()).unwrap();
        for (model, context) in [("Phi-4-mini-instruct", 4096), ("Qwen3-0.6B", 8192)] {
            let config = ModelConfig::from_dir(&root.join("models").join(model)).unwrap();
            let text = text(&encoder, &config, Path::new("."), Path::new("model.gguf"));
            assert!(text.contains(&format!("\nPARAMETER num_ctx {context}\n")), "{model}: {text}");
        }
    }
}
