//! P-values in texts.

/// Returns a p-value with its sign, with the given number of decimals: `= 0.031`, or `< 0.001` for one that would be rounded to zero.
///
/// ```
/// use setpoint_eval::p_value_text;
///
/// assert_eq!(p_value_text(0.0312, 3), "= 0.031");
/// assert_eq!(p_value_text(1e-9, 4), "< 0.0001");
/// ```
pub fn p_value_text(p: f64, decimals: usize) -> String {
    let least = 0.1f64.powi(decimals as i32);
    if p < least { format!("< {least:.decimals$}") } else { format!("= {p:.decimals$}") }
}
