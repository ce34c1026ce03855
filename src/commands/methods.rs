//! `setpoint methods`: what each alignment method needs, its settings and their defaults.

use serde_json::{Value as Json, json};
use setpoint_align::{About, METHODS, Method, TrainsOn};
use tabled::builder::Builder;
use tabled::settings::Style;
use toml::{Table, Value};

use crate::progress;
use setpoint::Outcome;
use setpoint::align::to_value;
use setpoint::config::load::to_table;

/// Prints the table, or the same as JSON.
pub fn run(json: bool) -> Outcome {
    if json {
        let methods: Vec<Json> = METHODS.iter().map(as_json).collect::<Outcome<_>>()?;
        progress::say_json(&serde_json::to_string_pretty(&methods)?);
        return Ok(());
    }
    progress::say(table(progress::width()));
    progress::say(
        "Each also trains in rounds, on responses that the policy samples:\nsetpoint align --rounds N (docs/ROUNDS.md).\nppo (or rlhf), rloo, grpo and reinforce_pp train in no other way (docs/ONLINE.md).",
    );
    Ok(())
}

/// Returns the methods as a table; if it is wider than the terminal, with one text for each method.
fn table(width: Option<usize>) -> tabled::Table {
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    rows.extend(METHODS.iter().map(|about| cells(about, " = ").to_vec()));
    for row in &mut rows {
        for (column, width) in [(1, 34), (2, 26), (6, 48)] {
            row[column] = progress::cell(&row[column], width);
        }
    }
    let mut table = Builder::from_iter(rows).build();
    table.with(Style::rounded());
    let Some(width) = width.filter(|&width| table.total_width() > width) else { return table };
    let text = |about: &About| {
        // A setting without spaces is never broken.
        let [name, title, source, trains_on, reference, rewards, settings] = cells(about, "=");
        let needs = format!("trains on {trains_on}; reference: {reference}, rewards: {rewards}");
        vec![name, format!("{title} ({source})\n{needs}\n{settings}").trim_end().to_owned()]
    };
    progress::narrowed(&METHODS.iter().map(text).collect::<Vec<_>>(), width, |rows| {
        let mut narrow = Builder::from_iter(rows).build();
        narrow.with(Style::modern_rounded());
        narrow
    })
}

const HEADER: [&str; 7] =
    ["method", "what it is", "source", "trains on", "reference", "rewards", "settings and defaults"];

/// Returns the cells of a method's row; `equals` is between a setting and its value.
fn cells(about: &About, equals: &str) -> [String; 7] {
    let needed = |needed: bool| if needed { "yes" } else { "no" };
    // A mixture needs what its losses do.
    let (reference, rewards) = match about.name {
        "mix" => ("as its losses", "as its losses"),
        _ => (needed(about.reference), needed(about.rewards)),
    };
    let trains_on = match about.trains_on {
        TrainsOn::Responses => "all responses of a prompt",
        TrainsOn::Pairs => "pairs",
        TrainsOn::Rows => "single responses",
        TrainsOn::Best => "the best response of each prompt",
        TrainsOn::Prompts => "prompts, with responses sampled during training",
    };
    let list = |settings: Vec<(String, Value)>| {
        settings.iter().map(|(key, value)| format!("{key}{equals}{value}")).collect::<Vec<_>>().join(", ")
    };
    let presets = presets(about).map(|(name, settings)| format!("; preset{equals}\"{name}\": {}", list(settings)));
    let settings = list(defaults(about.name)) + &presets.collect::<String>();
    [about.name, about.title, about.source, trains_on, reference, rewards, &settings].map(str::to_owned)
}

/// A method's presets, each with the settings that it stands for.
fn presets(about: &About) -> impl Iterator<Item = (&'static str, Vec<(String, Value)>)> {
    about.presets.iter().map(|preset| {
        let settings = preset.settings.iter().map(|(key, value)| ((*key).to_owned(), to_value(*value)));
        (preset.name, Table::from_iter(settings).into_iter().collect())
    })
}

/// A method's settings with their defaults.
fn defaults(name: &str) -> Vec<(String, Value)> {
    let table = Method::named(name).map_or_else(Table::new, |method| to_table(&method));
    table.into_iter().filter(|(key, _)| key != "method").collect()
}

fn as_json(about: &About) -> Outcome<Json> {
    let settings = defaults(about.name).into_iter().map(|(key, value)| Ok((key, serde_json::to_value(value)?)));
    let mut json = serde_json::to_value(about)?;
    json["settings"] = settings.collect::<Outcome<serde_json::Map<_, _>>>()?.into();
    let presets =
        presets(about).map(|(name, settings)| Ok((name.to_owned(), serde_json::to_value(Table::from_iter(settings))?)));
    json["presets"] = presets.collect::<Outcome<serde_json::Map<_, _>>>()?.into();
    json["aliases"] = json!(about.aliases);
    Ok(json)
}

/// The table as it stands in docs/METHODS.md.
#[cfg(test)]
fn markdown() -> String {
    let row = |cells: [String; 7]| format!("| {} |\n", cells.join(" | "));
    let mut text = row(HEADER.map(str::to_owned)) + "|---|---|---|---|---|---|---|\n";
    for about in METHODS {
        let mut cells = cells(about, " = ");
        cells[0] = format!("`{}`", cells[0]);
        cells[6] = if cells[6].is_empty() { "none".to_owned() } else { format!("`{}`", cells[6]) };
        text += &row(cells);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_have_the_same_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METHODS.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table: String = text.lines().filter(|line| line.starts_with('|')).map(|line| format!("{line}\n")).collect();
        assert!(table == markdown(), "docs/METHODS.md must hold this table:\n{}", markdown());
    }

    #[test]
    fn the_table_fits_the_terminal() {
        let widest = |width| table(width).to_string().lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest(None) > 120);
        for width in [60, 80, 100] {
            assert!(widest(Some(width)) <= width, "{width}");
        }
        let text = table(Some(80)).to_string();
        // A cell begins with one space of padding, and no line of it with another.
        assert!(!text.lines().any(|line| line.split('│').nth(2).is_some_and(|cell| cell.starts_with("  "))), "{text}");
        // Without the borders, so that a cell of several lines is in one piece.
        let shown: String = text.split_whitespace().filter(|word| *word != "│").collect();
        for about in METHODS {
            let [name, _, source, ..] = cells(about, " = ").map(|cell| cell.split_whitespace().collect::<String>());
            assert!(shown.contains(&name), "{name}");
            // A source on one line is found whole.
            assert!(source.len() > 20 || shown.contains(&source), "{source}:\n{text}");
        }
    }

    #[test]
    fn every_method_is_found_by_its_name_and_reads_its_own_defaults() {
        for about in METHODS {
            let method = Method::named(about.name).unwrap();
            assert_eq!(method.name(), about.name);
            let table = to_table(&method);
            assert_eq!(table["method"].as_str(), Some(about.name));
            let again: Method = Value::Table(table.clone()).try_into().unwrap_or_else(|e| panic!("{table}: {e}"));
            assert_eq!(again, method);
            assert_eq!(method.pairwise().is_some(), about.trains_on == TrainsOn::Pairs, "{}", about.name);
            let mut wrong = table;
            wrong.insert("strength".into(), 1.0.into());
            let read: Result<Method, _> = Value::Table(wrong).try_into();
            assert!(read.is_err(), "{} takes an unknown setting", about.name);
        }
        assert_eq!(Method::named("rao").unwrap().name(), "dro");
        assert_eq!(Method::named("rlhf").unwrap().name(), "ppo");
        assert!(Method::named("xpo").is_none());
    }

    #[test]
    fn a_mixture_needs_what_its_losses_need() {
        let mix = |losses: &str| -> Method {
            toml::from_str(&format!("method = \"mix\"\nlosses = [{losses}]"))
                .unwrap_or_else(|e| panic!("{losses}: {e}"))
        };
        let plain = mix("{ method = \"simpo\" }, { method = \"slic_hf\", weight = 0.5, lambda = 0.2 }");
        assert!(!plain.about().reference && !plain.about().rewards);
        let all = mix("{ method = \"simpo\" }, { method = \"rpo\", weight = 2, beta = 1 }");
        assert!(all.about().reference && all.about().rewards);
        let weights: Vec<f64> = all.pairwise().unwrap().objectives.iter().map(|o| o.weight).collect();
        assert_eq!(weights, [1.0, 2.0]);
        toml::from_str::<Method>("method = \"mix\"\nlosses = [{ method = \"dpo\", tau = 1.0 }]").unwrap_err();
    }
}
