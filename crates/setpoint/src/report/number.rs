//! Numbers as a reader likes them: short, with a unit.

use crate::session;
pub use crate::session::duration;

/// Returns a number in at most four significant digits, for axes and tables.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let text = if value == 0.0 || !value.is_finite() {
        if value == 0.0 { "0".to_owned() } else { "not finite".to_owned() }
    } else if value.fract() == 0.0 && size < 1e6 {
        format!("{value:.0}")
    } else if (1e-3..1e6).contains(&size) {
        let digits = 3 - size.log10().floor() as i32;
        let text = format!("{value:.*}", digits.clamp(0, 6) as usize);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
    };
    text.replace('-', "−")
}

/// Returns a number with its sign.
pub fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", number(value)) } else { number(value) }
}

/// Returns a number with its standard error, in as many digits as the error warrants.
pub fn with_error(value: f64, error: f64) -> String {
    if !(error > 0.0 && error.is_finite() && (1e-6..1e6).contains(&value.abs())) {
        return format!("{} ± {}", number(value), number(error));
    }
    let digits = (1 - error.log10().floor() as i32).clamp(0, 6) as usize;
    format!("{value:.digits$} ± {error:.digits$}").replace('-', "−")
}

/// Returns a p-value.
pub fn p_value(p: f64) -> String {
    if p < 1e-4 { "below 0.0001".to_owned() } else { format!("{p:.4}") }
}

/// Returns a share as a percentage.
pub fn percent(share: f64) -> String {
    // The space does not break.
    format!("{:.1}\u{a0}%", 100.0 * share).replace('-', "−")
}

/// Returns a whole number with its digits in groups: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a count with its noun: `1 step`, `2,000 steps`.
pub fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// Returns bytes in the unit that suits them.
pub fn bytes(bytes: u64) -> String {
    session::memory::size(bytes as f64)
}

/// Returns a number of parameters: `0.5 million`, `7.2 billion`.
pub fn parameters(value: u64) -> String {
    match value as f64 {
        value if value >= 1e9 => format!("{:.1} billion", value / 1e9),
        value if value >= 1e5 => format!("{:.1} million", value / 1e6),
        _ => count(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 12.0, 0.12345, 1234.5678, 2.5e-7, -0.5, 100.04, f64::NAN].map(number);
        assert_eq!(shown, ["0", "12", "0.1235", "1235", "2.5e−7", "−0.5", "100", "not finite"]);
        assert_eq!((signed(0.25), signed(-0.25), signed(0.0)), ("+0.25".into(), "−0.25".into(), "0".into()));
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((counted(1, "step"), counted(40, "step")), ("1 step".into(), "40 steps".into()));
        assert_eq!([300 << 20, 3 << 30].map(bytes), ["300 MiB", "3.00 GiB"]);
        assert_eq!([12_345, 540_000, 7_240_000_000].map(parameters), ["12,345", "0.5 million", "7.2 billion"]);
        assert_eq!(
            [0.01, 0.84, 9.96, 59.0, 200.0, 7500.0].map(duration),
            ["under 0.1 s", "0.8 s", "10 s", "59 s", "3 min 20 s", "2 h 5 min"]
        );
        assert_eq!(
            [(0.5665, 0.07239), (5.493, 0.3698), (-1200.0, 34.5), (2.0, 0.0)].map(|(v, e)| with_error(v, e)),
            ["0.567 ± 0.072", "5.49 ± 0.37", "−1200 ± 34", "2 ± 0"]
        );
        assert_eq!([0.5, 1e-9].map(p_value), ["0.5000", "below 0.0001"]);
        assert_eq!(percent(0.7125), "71.2\u{a0}%");
    }
}
