//! The facts of a run: what was trained from what, on which data, when and for how long.

use serde::Serialize;
use setpoint_align::METHODS;
use toml::Value;

use super::number::{count, counted, duration, number, parameters};
use super::read::Run;
use crate::training::history::Ending;
use crate::training::record::flat;

/// A fact with its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fact {
    /// The name.
    pub name: &'static str,
    /// The value.
    pub value: String,
}

/// Returns the short name of the loss of a run: runs with different losses share no axis.
pub fn loss(run: &Run) -> String {
    match (run.job.as_str(), run.text("align.method")) {
        ("align", Some(method)) => method.to_uppercase().replace('_', "-"),
        ("align", None) => "alignment".to_owned(),
        ("sft", _) => "SFT".to_owned(),
        ("reward", _) => "reward model".to_owned(),
        (job, _) => job.to_owned(),
    }
}

/// Returns the unit of the loss of a run.
pub fn loss_unit(run: &Run) -> &'static str {
    match (run.job.as_str(), run.text("align.method")) {
        ("sft", _) | ("align", Some("nll")) => "nats per token",
        ("reward", _) => "nats per pair",
        ("align", Some("dro")) if run.text("align.error") == Some("mse") => "squared error, reward²",
        _ => "loss per example",
    }
}

/// Returns what a run does, in a few words.
pub fn kind(run: &Run) -> String {
    match run.job.as_str() {
        "sft" => "Supervised fine-tuning (SFT)".to_owned(),
        "reward" => "Reward model (Bradley–Terry)".to_owned(),
        "align" => {
            let method = run.text("align.method").unwrap_or_default();
            match METHODS.iter().find(|about| about.name == method) {
                Some(about) => format!("Alignment by {} ({})", loss(run), about.title),
                None => "Alignment".to_owned(),
            }
        }
        job => job.to_owned(),
    }
}

/// Returns the facts of a run: what was trained from what, on which data and when, and further ones.
pub fn facts(run: &Run) -> (Vec<Fact>, Vec<Fact>) {
    let history = run.history.as_ref();
    let examples = history.and_then(|history| history.examples);
    let eval_examples = history.and_then(|history| history.eval_examples);
    let size = history.and_then(|history| history.parameters).map(|n| parameters(n as u64));
    let of = |facts: Vec<(&'static str, Option<String>)>| -> Vec<Fact> {
        facts.into_iter().filter_map(|(name, value)| Some(Fact { name, value: value? })).collect()
    };
    let first = vec![
        ("From", origin(run)),
        ("Adapter", adapter(run)),
        ("Data", dataset(run, "data", examples)),
        ("Epoch", epoch(run)),
        ("When", when(run)),
        ("Steps", Some(steps(run))),
    ];
    let further = vec![
        ("Size", size.map(|size| format!("{size} parameters"))),
        ("Evaluation data", dataset(run, "eval_data", eval_examples)),
        ("Method", method(run)),
        ("Learning rate", run.setting("train.learning_rate").and_then(as_number).map(number)),
        ("Batch", run.setting("train.batch_size").and_then(as_number).map(|n| counted(n as u64, "example"))),
        ("Device", device(run)),
    ];
    (of(first), of(further))
}

/// Returns the settings in which a run differs from other runs with the same loss.
pub fn differences(run: &Run, runs: &[Run]) -> Option<Fact> {
    /// More settings than these make no heading.
    const MOST: usize = 8;
    let others: Vec<_> =
        runs.iter().filter(|other| loss(other) == loss(run)).map(|other| flat(&other.settings)).collect();
    let differs = |(key, value): &(String, Value)| {
        let same = |settings: &Vec<(String, Value)>| settings.iter().any(|(k, v)| k == key && v == value);
        !others.iter().all(same)
    };
    let found: Vec<String> = flat(&run.settings)
        .iter()
        .filter(|s| differs(s))
        .take(MOST)
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    Some(Fact { name: "Differs in", value: found.join(", ") }).filter(|fact| !fact.value.is_empty())
}

fn origin(run: &Run) -> Option<String> {
    match (run.text("model.path"), run.text("model.from_scratch")) {
        (Some(path), _) => Some(path.to_owned()),
        (None, Some(config)) => Some(format!("random weights, shaped by {config}")),
        (None, None) => None,
    }
}

/// Returns the adapter that was trained, if one was.
fn adapter(run: &Run) -> Option<String> {
    let rank = run.setting("adapter.rank").and_then(as_number);
    match (run.text("adapter.path"), rank) {
        (Some(path), _) => Some(format!("going on from {path}")),
        (None, Some(rank)) => Some(format!("low-rank, rank {rank}")),
        (None, None) => None,
    }
}

fn dataset(run: &Run, key: &str, examples: Option<usize>) -> Option<String> {
    let examples = examples.filter(|n| *n > 0);
    let path = match run.setting(&format!("{key}.sources")).and_then(|sources| sources.as_array()) {
        Some(sources) => {
            sources.iter().filter_map(|source| source.get("path")?.as_str()).collect::<Vec<_>>().join(", ")
        }
        None => run.text(&format!("{key}.path"))?.to_owned(),
    };
    Some(match examples {
        Some(n) => format!("{path} ({})", counted(n as u64, "example")),
        None => path,
    })
}

/// Returns what an epoch has of each data set, if there are several.
fn epoch(run: &Run) -> Option<String> {
    let parts: Vec<String> = run.history.as_ref()?.parts.iter().map(ToString::to_string).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns the settings of the method.
fn method(run: &Run) -> Option<String> {
    let settings = run.settings.get("align")?.as_table()?;
    let shown = |(key, value): (&String, &Value)| match value {
        Value::Table(_) | Value::Array(_) => None,
        _ if key == "method" => None,
        Value::String(text) => Some(format!("{key} = {text}")),
        value => Some(format!("{key} = {value}")),
    };
    let shown: Vec<String> = settings.iter().filter_map(shown).collect();
    Some(shown.join(", ")).filter(|text| !text.is_empty())
}

fn as_number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| Some(value.as_integer()? as f64))
}

/// Returns the steps, how far the run got, and after which step it went on.
fn steps(run: &Run) -> String {
    let done = run.steps();
    let processes = run.history.as_ref().map(|history| history.processes.as_slice()).unwrap_or_default();
    let planned = processes.iter().rev().find_map(|process| process.steps).map(|(_, total)| total);
    let mut text = match planned {
        Some(total) if total != done => format!("{} of {}", count(done), count(total)),
        _ => count(done),
    };
    if let Some(epochs) = run.epochs {
        text += &format!(
            " ({} passes over the data)",
            number(if epochs < 0.1 { epochs } else { (epochs * 100.0).round() / 100.0 })
        );
    }
    let ending = processes.last().and_then(|process| Some(process.end.as_ref()?.ending));
    text += match (run.finished, ending) {
        (Some(_), Some(Ending::Early)) => ", ended early: evaluations no longer improved",
        (Some(_), Some(Ending::Limit)) => ", ended early: the KL from the reference passed its limit",
        (Some(_), _) => "",
        (None, Some(Ending::Stopped)) => ", stopped",
        (None, Some(Ending::Failed)) => ", ended with an error",
        (None, _) => ", not finished",
    };
    let resumed: Vec<String> = processes
        .iter()
        .skip(1)
        .filter_map(|process| process.steps)
        .filter(|(step, _)| *step < done)
        .map(|(step, _)| count(step))
        .collect();
    if !resumed.is_empty() {
        text += &format!("; resumed after step {}", resumed.join(" and "));
    }
    text
}

/// Returns the start, and the time of all processes.
fn when(run: &Run) -> Option<String> {
    let history = run.history.as_ref()?;
    let start = history.processes.first()?.opened?.format("%Y-%m-%d %H:%M UTC");
    let (seconds, complete) = history.seconds();
    let processes = match history.processes.len() {
        1 => String::new(),
        n => format!(", in {n} processes"),
    };
    Some(match complete {
        true => format!("{start}, for {}{processes}", duration(seconds)),
        // The answer about the cost has an estimate.
        false => format!("{start}{processes}"),
    })
}

fn device(run: &Run) -> Option<String> {
    let versions = run.versions.as_ref()?;
    let devices = versions.get("devices")?.as_array()?;
    // As Burn writes them: `Device<Flex(Cpu)>`.
    let short = |name: &'_ str| name.trim_start_matches("Device<").trim_end_matches('>').to_owned();
    let names: Vec<String> = devices.iter().filter_map(serde_json::Value::as_str).map(short).take(16).collect();
    let version = versions.get("setpoint").and_then(serde_json::Value::as_str).unwrap_or("unknown");
    Some(format!("{}, setpoint {version}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::DataPart;
    use crate::training::history::{End, History, Process};

    fn run(job: &str, settings: &str) -> Run {
        Run { job: job.into(), settings: settings.parse().unwrap(), ..Run::default() }
    }

    fn fact(run: &Run, name: &str) -> Option<String> {
        let (first, further) = facts(run);
        first.into_iter().chain(further).find(|fact| fact.name == name).map(|fact| fact.value)
    }

    #[test]
    fn a_run_says_what_was_trained_from_what() {
        let dro =
            run("align", "model.path = 'sft/model'\ndata.path = 'r.jsonl'\nalign = { method = 'dro', beta = 0.5 }");
        assert_eq!(
            (kind(&dro).as_str(), loss(&dro).as_str()),
            ("Alignment by DRO (Direct Reward Optimization)", "DRO")
        );
        assert_eq!(fact(&dro, "From").as_deref(), Some("sft/model"));
        assert_eq!(fact(&dro, "Method").as_deref(), Some("beta = 0.5"));
        let sft = run("sft", "model.from_scratch = 'c.json'");
        assert_eq!(fact(&sft, "From").as_deref(), Some("random weights, shaped by c.json"));
        assert_eq!((fact(&sft, "Data"), fact(&sft, "When")), (None, None));
        // A method of a later version.
        assert_eq!(kind(&run("align", "align = { method = 'later' }")), "Alignment");
    }

    #[test]
    fn a_run_on_several_data_sets_says_what_an_epoch_has_of_each() {
        let mut sft =
            run("sft", "data = { path = '', sources = [{ path = 'a.jsonl', weight = 1.0 }, { path = 'b/c' }] }");
        let part = |path: &str, visits| DataPart { path: path.into(), weight: None, examples: 9, visits };
        let parts = vec![part("a.jsonl", 3), part("b/c", 9)];
        sft.history = Some(History { examples: Some(18), parts, ..History::default() });
        assert_eq!(fact(&sft, "Data").as_deref(), Some("a.jsonl, b/c (18 examples)"));
        assert_eq!(fact(&sft, "Epoch").as_deref(), Some("a.jsonl: 3 of 9 examples; b/c: 9 of 9 examples"));
        assert_eq!(fact(&run("sft", "data.path = 'a.jsonl'"), "Epoch"), None);
    }

    #[test]
    fn runs_with_one_loss_say_in_what_they_differ() {
        let dro = |beta: f64| run("align", &format!("seed = 0\nalign = {{ method = 'dro', beta = {beta} }}"));
        let runs = [dro(0.1), dro(0.5), run("align", "seed = 1\nalign.method = 'dpo'")];
        let found = runs.each_ref().map(|run| differences(run, &runs).map(|fact| fact.value));
        assert_eq!(found, [Some("align.beta = 0.1".into()), Some("align.beta = 0.5".into()), None]);
    }

    #[test]
    fn an_unfinished_and_resumed_run_says_so() {
        let process = |step| Process { steps: Some((step, 40)), ..Process::default() };
        let mut run = run("sft", "");
        run.metrics.insert("loss".into(), vec![(1.0, 1.0), (12.0, 1.0)]);
        run.history = Some(History { processes: vec![process(0)], ..History::default() });
        assert_eq!(fact(&run, "Steps").as_deref(), Some("12 of 40, not finished"));
        let end = End { time: None, ending: Ending::Finished, step: Some(40), peak_memory: None };
        let last = Process { end: Some(end), ..process(10) };
        run.history = Some(History { processes: vec![process(0), last], ..History::default() });
        run.finished = Some(40);
        assert_eq!(fact(&run, "Steps").as_deref(), Some("40; resumed after step 10"));
    }
}
