//! Names every setting of a file that is not carried over, so that none is dropped in silence.

use serde_json::{Map, Value as Json};

use super::Tool;
use super::draft::Draft;
use crate::config::{Carry, FOREIGN, nearest};

/// Said of a value that turns something off which is off here as well.
const OFF: &str = "off in the file, and nothing here turns it on";
/// Said of a name that is known, but not with this value or next to these other names.
const UNUSED: &str = "no setting follows from it in this file";

/// Notes the settings of the file that no rule has answered. Null counts as absent.
pub fn name(draft: &mut Draft<'_>, source: &Map<String, Json>) {
    for (name, value) in source.iter().filter(|(_, value)| !value.is_null()) {
        let section = format!("{name}.");
        match value {
            // A section of which single settings are known.
            Json::Object(inner) if FOREIGN.iter().any(|known| known.name.starts_with(&section)) => {
                for (key, value) in inner.iter().filter(|(_, value)| !value.is_null()) {
                    name_one(draft, &(section.clone() + key), value);
                }
            }
            _ => name_one(draft, name, value),
        }
    }
}

fn name_one(draft: &mut Draft<'_>, name: &str, value: &Json) {
    if draft.is_answered(name) {
        return;
    }
    let tool = draft.tool;
    let carried = FOREIGN.iter().any(|known| known.is_carried() && known.name == name && known.tools.contains(&tool));
    let left = FOREIGN.iter().find(|known| !known.is_carried() && known.covers(name));
    let text = match left.filter(|_| !carried) {
        Some(known) => match known.carry {
            Carry::Lost(_) if is_neutral(value) => OFF.to_owned(),
            Carry::Lost(reason) => reason.to_owned(),
            _ => known.instead(),
        },
        None if carried && is_neutral(value) => OFF.to_owned(),
        None if carried => UNUSED.to_owned(),
        None => unknown(name, tool),
    };
    draft.lose(name, text);
}

/// Returns what to say of a name that no tool has.
fn unknown(name: &str, tool: Tool) -> String {
    let known = FOREIGN.iter().filter(|known| known.tools.contains(&tool)).map(|known| known.name);
    match nearest(name, known) {
        Some(near) if near != name => format!("not known here; did you mean `{near}`?"),
        _ => "not known here".to_owned(),
    }
}

/// Returns whether a value asks for nothing.
fn is_neutral(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Bool(on) => !on,
        Json::Number(number) => number.as_f64() == Some(0.0),
        Json::String(text) => ["", "none", "no", "full", "reverse_kl"].contains(&text.as_str()),
        Json::Array(list) => list.is_empty(),
        Json::Object(map) => map.is_empty(),
    }
}
