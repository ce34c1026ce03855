//! Prompt templates with `{name}` fields.

/// Replaces every `{name}` for which `value` knows something, in one pass: braces in the values stay as they are, and so do fields
/// that `value` does not know.
///
/// # Example
/// ```
/// let text = setpoint_eval::fill_template("{a} and {b}, {c}", |name| match name {
///     "a" => Some("{b}"),
///     "b" => Some("2"),
///     _ => None,
/// });
/// assert_eq!(text, "{b} and 2, {c}");
/// ```
pub fn fill_template<'a>(template: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, field) = rest.split_at(open);
        out.push_str(before);
        let end = field.find('}');
        match end.and_then(|end| Some((end, value(&field[1..end])?))) {
            Some((end, text)) => {
                out.push_str(text);
                rest = &field[end + 1..];
            }
            None => {
                out.push('{');
                rest = &field[1..];
            }
        }
    }
    out.push_str(rest);
    out
}
