//! `setpoint convert`: settings from a configuration of trl, axolotl or LLaMA-Factory.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use setpoint::convert::{Remark, TOOLS, Tool, Trainer, convert};
use setpoint::session::Existing;
use setpoint::{Failure, Outcome, setup};

use crate::progress;

/// The text after the list of flags.
pub const HELP: &str = "Examples:\n  setpoint convert dpo.yaml --output dpo.toml\n  \
    setpoint convert sft.yaml --from trl --trainer sft\n\n\
    What cannot be carried over is listed. docs/COMING_FROM.md has all names side by side.";

/// `setpoint convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The YAML file
    pub file: PathBuf,
    /// The file to write; standard output by default
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long)]
    pub overwrite: bool,
    /// The tool that the file is of; by default as its keys tell
    #[arg(long, value_name = "TOOL", value_parser = tools())]
    pub from: Option<Tool>,
    /// The trainer that the file is for, where its keys do not tell
    #[arg(long, value_name = "TRAINER", value_parser = trainers())]
    pub trainer: Option<Trainer>,
}

fn tools() -> impl TypedValueParser<Value = Tool> {
    let named = |name: &str| TOOLS.into_iter().find(|tool| key(*tool) == name);
    PossibleValuesParser::new(TOOLS.map(key)).map(move |name| named(&name).unwrap_or(Tool::Trl))
}

/// Returns a tool's name as it is written after a flag.
fn key(tool: Tool) -> &'static str {
    match tool {
        Tool::Trl => "trl",
        Tool::Axolotl => "axolotl",
        Tool::LlamaFactory => "llama-factory",
    }
}

fn trainers() -> impl TypedValueParser<Value = Trainer> {
    let named = |name: &str| Trainer::ALL.into_iter().find(|trainer| trainer.name() == name);
    PossibleValuesParser::new(Trainer::ALL.map(Trainer::name)).map(move |name| named(&name).unwrap_or(Trainer::Sft))
}

/// Converts the file, and lists what was lost.
pub fn run(args: &ConvertArgs) -> Outcome {
    let place = args.file.display();
    // Whatever is wrong with the file is a matter of its settings.
    let wrong = |failure: Failure| match failure {
        Failure::Run { message, .. } => Failure::usage(place.to_string(), message),
        other => other,
    };
    let text = setup::read_text(&args.file).map_err(|error| wrong(error.into()))?;
    let converted = convert(&text, args.from, args.trainer).map_err(wrong)?;
    let settings = converted.to_toml()?;
    match &args.output {
        Some(path) => {
            Existing::given(args.overwrite).require_new(path)?;
            setup::write_text(path, &settings).map_err(|failure| Failure::usage("--output", failure.sentence()))?;
        }
        None => progress::say_file(settings.trim_end()),
    }
    for (names, text) in joined(&converted.remarks) {
        progress::note(format!("{names}: {text}"));
    }
    if let Some(path) = &args.output {
        let run = converted.run.as_deref().unwrap_or("runs/converted");
        progress::note(format!("check it: setpoint {} {} --run {run} --dry-run", converted.job, path.display()));
    }
    Ok(())
}

/// Returns the remarks, those of one text together.
fn joined(remarks: &[Remark]) -> Vec<(String, &str)> {
    let mut found: Vec<(String, &str)> = Vec::new();
    for Remark { name, text } in remarks {
        match found.iter_mut().find(|(_, said)| said == text) {
            // Data sets of a list have settings of the same name.
            Some((names, _)) if names.split(", ").any(|noted| noted == name) => {}
            Some((names, _)) => *names += &format!(", {name}"),
            None => found.push((name.clone(), text)),
        }
    }
    found
}
