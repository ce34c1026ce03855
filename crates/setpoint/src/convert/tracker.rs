//! How trackers are carried over.

use serde_json::Value as Json;

use super::draft::Draft;
use super::rules::Names;

/// The trackers that exist here, each with axolotl's switch for it.
const TRACKERS: [(&str, &str); 3] = [("wandb", "use_wandb"), ("mlflow", "use_mlflow"), ("trackio", "use_trackio")];
/// Files of TensorBoard, which every run writes.
const TENSORBOARD: &str = "tensorboard";
/// The most characters of a name.
const LONGEST: usize = 128;

/// Carries over the tracker that the file reports to, with its project and the name of the run.
pub fn tracker(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((kind, by)) = kind(draft, names) else { return };
    draft.set("tracker.kind", kind);
    draft.lose(
        by,
        format!(
            "carried over as tracker.kind = \"{kind}\": metrics go to the tool's files on this machine, and Python needs its package \
             (docs/TRACKERS.md)"
        ),
    );
    for (key, ours) in [
        ("project", ["project", &format!("{kind}_project"), "mlflow_experiment_name", &format!("{kind}_project_name")]),
        ("name", ["run_name", &format!("{kind}_name"), &format!("{kind}_run_name"), ""]),
    ] {
        let of_kind = names.iter().filter(|name| !name.starts_with("mlflow") || kind == "mlflow");
        let mut of_key = of_kind.filter(|name| ours.contains(*name));
        let found = of_key.find_map(|name| Some((*name, draft.get(name)?)));
        let Some((name, value)) = found else { continue };
        let is_odd = |c: char| c.is_control() || (key == "project" && "/\\#?%:".contains(c));
        match value.as_str() {
            Some(text) if !text.trim().is_empty() && text.chars().count() <= LONGEST && !text.contains(is_odd) => {
                draft.set(&format!("tracker.{key}"), text);
            }
            _ => draft.misread(name, &format!("a name that tracker.{key} can have")),
        }
    }
}

/// Returns the tracker that a file reports to, and the name that says so. Of several, the first that exists here is taken.
fn kind(draft: &mut Draft<'_>, names: Names<'_>) -> Option<(&'static str, &'static str)> {
    if let Some((name, value)) = draft.first(&["report_to"]).filter(|_| names.contains(&"report_to")) {
        return reported(draft, name, value);
    }
    // axolotl reports to Weights & Biases if a project is named.
    let is_asked = |(kind, switch): &(&'static str, &'static str)| {
        let named = *kind == "wandb" && draft.text("wandb_project").is_some_and(|project| !project.is_empty());
        let by = if draft.is_on(switch) { Some(*switch) } else { named.then_some("wandb_project") };
        by.filter(|name| names.contains(name)).map(|name| (*kind, name))
    };
    let asked: Vec<(&'static str, &'static str)> = TRACKERS.iter().filter_map(is_asked).collect();
    for (kind, by) in asked.iter().skip(1) {
        draft.lose(by, several(kind));
    }
    asked.first().copied()
}

/// Reads `report_to`: a text or a list of texts.
fn reported(draft: &mut Draft<'_>, name: &'static str, value: &Json) -> Option<(&'static str, &'static str)> {
    let asked: Vec<&str> = match value {
        Json::Array(list) => list.iter().filter_map(Json::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    };
    if asked.is_empty() && value.as_array().is_none_or(|list| !list.is_empty()) {
        draft.misread(name, "names of trackers");
    }
    let mut found = None;
    for asked in asked {
        match TRACKERS.iter().find(|(kind, _)| *kind == asked) {
            Some((kind, _)) if found.is_none() => found = Some((*kind, name)),
            Some((kind, _)) => draft.lose(name, several(kind)),
            None if ["none", ""].contains(&asked) => draft.agree(name),
            None if asked == TENSORBOARD => draft.lose(name, "every run writes TensorBoard files to its folder"),
            None if asked == "all" => draft.lose(name, "a run has one tracker: set tracker.kind"),
            None => draft.lose(
                name,
                format!(
                    "there is no tracker `{asked}`: tracker.kind can be \"csv\", \"wandb\", \"mlflow\" or \"trackio\""
                ),
            ),
        }
    }
    found
}

fn several(kind: &str) -> String {
    format!("a run has one tracker, so `{kind}` is left out")
}
