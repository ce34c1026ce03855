//! A flag that does not exist but may be meant for a setting, and a command that does not exist but may be meant for a job.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use clap::CommandFactory;
use setpoint::align::{self, Align};
use setpoint::config::{foreign, has_setting, respell, settings_named};
use setpoint::generate::Generate;
use setpoint::jobs::{self, Job as _};
use setpoint_align::METHODS;

use super::Cli;
use crate::commands::chat::ChatConfig;

/// Returns the parser's error with what was probably meant by a flag or command that is unknown.
pub fn with_remedy(said: clap::Error, arguments: impl Iterator<Item = String>) -> clap::Error {
    match said.kind() {
        ErrorKind::InvalidSubcommand => with_command(said),
        _ => with_setting(said, arguments),
    }
}

/// Returns the parser's error with the command that was meant, if its name is a method's or that of a command of other tools.
fn with_command(mut said: clap::Error) -> clap::Error {
    let Some(ContextValue::String(name)) = said.get(ContextKind::InvalidSubcommand) else { return said };
    let Some(tip) = command_meant(name) else { return said };
    said.remove(ContextKind::SuggestedSubcommand);
    said.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    said
}

fn command_meant(name: &str) -> Option<String> {
    let mut method = name.to_owned();
    align::respell_method(&mut method);
    if METHODS.iter().any(|about| about.name == method || about.aliases.contains(&method.as_str())) {
        return Some(format!("`{method}` is a method of `setpoint align`: add --set align.method={method}"));
    }
    if let Some(online) = align::online_method(name) {
        return Some(format!(
            "`{online}` is an online method, and none is built yet; `setpoint methods` lists the offline ones"
        ));
    }
    match respell(name, ["train", "finetune", "fine_tune", "rm", "reward_model", "preference", "predict"])? {
        "rm" | "reward_model" => Some("reward models are trained by `setpoint reward`".to_owned()),
        "preference" => Some("preference methods are those of `setpoint align`".to_owned()),
        "predict" => Some("`setpoint generate` samples responses".to_owned()),
        _ => Some("a training is `setpoint sft`, `setpoint reward` or `setpoint align`".to_owned()),
    }
}

/// Returns the parser's error with the setting that was meant, if a flag is unknown and the command has settings.
fn with_setting(mut said: clap::Error, arguments: impl Iterator<Item = String>) -> clap::Error {
    if said.kind() != ErrorKind::UnknownArgument || said.get(ContextKind::SuggestedArg).is_some() {
        return said;
    }
    let Some(ContextValue::String(flag)) = said.get(ContextKind::InvalidArg) else { return said };
    let Some(name) = flag.strip_prefix("--") else { return said };
    let name = name.split('=').next().unwrap_or_default().replace('-', "_");
    let words: Vec<String> = arguments.skip(1).take(2).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some(Named { job, keys, has }) = settings_of(&words, &name) else { return said };
    let foreign = foreign(&name).filter(|foreign| foreign.setting().is_none_or(has));
    let tip = match (keys.first(), foreign) {
        (Some(key), _) => format!("`{key}` is a setting: give it as --set {key}=VALUE"),
        (None, Some(foreign)) => foreign.remedy(&name),
        (None, None) => {
            format!("settings are given as --set KEY=VALUE; `setpoint inspect config {job}` lists them")
        }
    };
    said.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    said
}

/// The settings of a command that have a name.
struct Named {
    /// The job, as `setpoint inspect config` knows it.
    job: &'static str,
    /// Their dotted keys.
    keys: Vec<String>,
    /// Returns whether the command has a setting of a dotted key.
    has: Box<dyn Fn(&str) -> bool>,
}

/// Returns the settings of a command that have this name, if the command has settings.
fn settings_of(words: &[&str], name: &str) -> Option<Named> {
    let job = match words {
        ["chat", ..] => {
            let keys = settings_named::<ChatConfig>(name);
            return Some(Named { job: Generate::SETTINGS, keys, has: Box::new(has_setting::<ChatConfig>) });
        }
        ["plan", ..] => jobs::of_command(Align::COMMAND),
        words => jobs::of_command(&path(words)),
    }?;
    let keys = job.settings_named(name);
    Some(Named { job: job.settings(), keys, has: Box::new(move |key| job.has_setting(key)) })
}

/// Returns the longest beginning of the words that is a command.
fn path(words: &[&str]) -> String {
    let mut command = Cli::command();
    let mut path = Vec::new();
    for word in words {
        let Some(below) = command.find_subcommand(word).cloned() else { break };
        command = below;
        path.push(*word);
    }
    path.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use setpoint::{eval, sft};

    #[test]
    fn commands_of_other_tools_lead_to_jobs() {
        for (name, meant) in [
            ("dpo", Some("--set align.method=dpo")),
            ("SimPO", Some("--set align.method=simpo")),
            ("rao", Some("--set align.method=rao")),
            ("grpo", Some("online method")),
            ("PPO", Some("online method")),
            ("Fine-Tune", Some("setpoint sft")),
            ("reward-model", Some("setpoint reward")),
            ("simp", None),
            ("algin", None),
        ] {
            let tip = command_meant(name);
            match meant {
                Some(meant) => assert!(tip.as_ref().is_some_and(|tip| tip.contains(meant)), "{name}: {tip:?}"),
                None => assert_eq!(tip, None, "{name}"),
            }
        }
    }

    #[test]
    fn settings_are_found_in_every_section() {
        for (name, keys) in [
            ("epochs", &["train.epochs"][..]),
            // Not set by default.
            ("max_steps", &["train.max_steps"]),
            ("template", &["model.template"]),
            ("weight_decay", &["train.optimizer.weight_decay"]),
            ("epoch", &[]),
            ("messages", &[]),
            ("wandb", &[]),
        ] {
            assert_eq!(settings_named::<sft::SftConfig>(name), keys, "{name}");
        }
        assert_eq!(settings_named::<align::AlignConfig>("beta"), ["align.beta"]);
        assert_eq!(settings_named::<align::AlignConfig>("method"), ["align.method"]);
        assert_eq!(settings_named::<eval::EvalConfig>("temperature"), ["generate.temperature"]);
    }
}
