//! A flag that does not exist but may be meant for a setting, and a command that does not exist but may be meant for a job.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use clap::CommandFactory;
use setpoint::align::{self, Align};
use setpoint::config::{foreign, has_setting, nearest, respell, settings_named};
use setpoint::generate::Generate;
use setpoint::jobs::{self, Job as _};
use setpoint::sources::alternatives;
use setpoint_align::METHODS;
use setpoint_align::online::ONLINE_METHODS;

use super::{Cli, below};
use crate::commands::chat::ChatConfig;

/// Returns the parser's error with what was probably meant by a flag or command that is unknown.
pub fn with_remedy(said: clap::Error, arguments: impl Iterator<Item = String>) -> clap::Error {
    match said.kind() {
        ErrorKind::InvalidSubcommand => with_command(said, arguments),
        ErrorKind::UnknownArgument => with_setting(said, arguments),
        _ => said,
    }
}

/// Returns the parser's error with the command that was meant: the nearest one, or that for a method or a command of other tools.
fn with_command(mut said: clap::Error, arguments: impl Iterator<Item = String>) -> clap::Error {
    let Some(ContextValue::String(name)) = said.get(ContextKind::InvalidSubcommand) else { return said };
    let name = name.clone();
    let words: Vec<String> = arguments.skip(1).take_while(|word| *word != name).collect();
    let above = path(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let commands = if above.is_empty() { all() } else { below(&above) };
    // The parser's own suggestions are by another measure, and name commands that nobody should type.
    said.remove(ContextKind::SuggestedSubcommand);
    let tip = command_meant(&name).or_else(|| {
        let near = nearest(&name, commands.iter().map(String::as_str))?;
        Some(format!("did you mean `setpoint {}`?", format!("{above} {near}").trim()))
    });
    if let Some(tip) = tip {
        said.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    said
}

/// Returns the commands that the help lists.
fn all() -> Vec<String> {
    let command = Cli::command();
    command.get_subcommands().filter(|command| !command.is_hide_set()).map(|c| c.get_name().to_owned()).collect()
}

fn command_meant(name: &str) -> Option<String> {
    let mut method = name.to_owned();
    align::respell_method(&mut method);
    let mut all = METHODS.iter().chain(ONLINE_METHODS);
    if all.any(|about| about.name == method || about.aliases.contains(&method.as_str())) {
        return Some(format!("`{method}` is a method of `setpoint align`: add --set align.method={method}"));
    }
    if let Some(online) = align::online_method(name) {
        return Some(format!(
            "`{online}` is an online method that is not built yet; `setpoint methods` lists those that are"
        ));
    }
    let others = ["train", "finetune", "fine_tune", "rm", "reward_model", "preference", "predict", "resume"];
    match respell(name, others)? {
        "rm" | "reward_model" => Some("reward models are trained by `setpoint reward`".to_owned()),
        "preference" => Some("preference methods are those of `setpoint align`".to_owned()),
        "predict" => Some("`setpoint generate` samples responses".to_owned()),
        "resume" => {
            Some("a run goes on with the command that began it, as in `setpoint align --run DIR --resume`".to_owned())
        }
        _ => Some("a training is `setpoint sft`, `setpoint reward` or `setpoint align`".to_owned()),
    }
}

/// Returns the parser's error with what was meant by a flag that is unknown: a setting, an argument without a flag, or another flag.
fn with_setting(mut said: clap::Error, arguments: impl Iterator<Item = String>) -> clap::Error {
    let Some(ContextValue::String(flag)) = said.get(ContextKind::InvalidArg) else { return said };
    let flag = flag.split('=').next().unwrap_or_default().to_owned();
    let words: Vec<String> = arguments.skip(1).take_while(|word| !word.starts_with('-')).take(2).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // The parser knows no settings, and would have the flag given as a file's name.
    let is_suggested = said.get(ContextKind::SuggestedArg).is_some();
    said.remove(ContextKind::Suggested);
    let tip = match flag.strip_prefix("--") {
        Some(name) => setting_meant(&words, &name.replace('-', "_"), is_suggested),
        None => flag.strip_prefix('-').and_then(|letter| flag_meant(&words, letter)),
    };
    if let Some(tip) = tip {
        said.remove(ContextKind::SuggestedArg);
        said.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    said
}

/// Returns what to give instead of a flag that a command does not have. `is_suggested`: the parser suggests another flag.
fn setting_meant(words: &[&str], name: &str, is_suggested: bool) -> Option<String> {
    let (path, command) = found(words);
    if let Some(argument) = command.get_positionals().find(|argument| argument.get_id() == name) {
        let value = argument.get_value_names().and_then(|names| names.first()).map_or("FILE", |name| name.as_str());
        return Some(format!("it is given without a flag, as in `setpoint {path} {value}`"));
    }
    let Named { job, keys, has } = settings_of(words, name)?;
    let foreign = foreign(name).filter(|foreign| foreign.setting().is_none_or(has));
    match (keys.first(), foreign) {
        (Some(key), _) => Some(format!("`{key}` is a setting: give it as --set {key}=VALUE")),
        (None, Some(foreign)) => Some(foreign.remedy(name)),
        (None, None) if is_suggested => None,
        (None, None) => {
            Some(format!("settings are given as --set KEY=VALUE; `setpoint inspect config {job}` lists them"))
        }
    }
}

/// Returns the flags of a command that begin with a letter, for one that was given alone.
fn flag_meant(words: &[&str], letter: &str) -> Option<String> {
    let (_, command) = found(words);
    let long = command.get_arguments().filter_map(clap::Arg::get_long).filter(|long| long.starts_with(letter));
    let flags: Vec<String> = long.map(|long| ["`--", long, "`"].concat()).collect();
    (!flags.is_empty()).then(|| format!("did you mean {}?", alternatives(&flags)))
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
    found(words).0
}

/// Returns the same with the command.
fn found(words: &[&str]) -> (String, clap::Command) {
    let mut command = Cli::command();
    let mut path = Vec::new();
    for word in words {
        let Some(below) = command.find_subcommand(word).cloned() else { break };
        command = below;
        path.push(*word);
    }
    (path.join(" "), command)
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
            ("GRPO", Some("--set align.method=grpo")),
            ("rlhf", Some("--set align.method=rlhf")),
            ("PPO", Some("--set align.method=ppo")),
            ("XPO", Some("online method")),
            ("Fine-Tune", Some("setpoint sft")),
            ("reward-model", Some("setpoint reward")),
            ("resume", Some("setpoint align --run DIR --resume")),
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
