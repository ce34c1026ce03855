//! The parts that Qwen2 and Qwen3 have in common.

use super::layer_types;
use crate::Error;
use crate::config::Reader;
use crate::design::LayerDesign;

/// The window of a file that does not state one.
const WINDOW: usize = 4096;

/// The first layer with a window in files that do not state it.
const FIRST: usize = 28;

/// Reads the windows: those of the layers from `max_window_layers` on if `use_sliding_window` is true. Most files state a window together
/// with `false`.
pub(super) fn layers(file: &Reader<'_>) -> Result<Vec<LayerDesign>, Error> {
    let window = if file.optional_bool("use_sliding_window")?.unwrap_or(false) {
        let stated = file.keys().any(|key| key == "sliding_window");
        file.window()?.or((!stated).then_some(WINDOW))
    } else {
        None
    };
    let first = file.optional_size("max_window_layers")?.unwrap_or(FIRST);
    let sliding = layer_types(file, |i| window.is_some() && i >= first)?;
    if window.is_none() && sliding.contains(&true) {
        let expected = "a list with \"full_attention\" for each layer, unless `use_sliding_window` is true";
        return Err(file.unsupported("layer_types", expected));
    }
    let layer = |sliding| LayerDesign { window: window.filter(|_| sliding), ..LayerDesign::default() };
    Ok(sliding.into_iter().map(layer).collect())
}
