//! Numbers in running text, compared as decimals.

/// A decimal number in lowest terms: `±digits · 10^exponent`, so that equal numbers are equal values.
///
/// Decimals and not `f64`: 9007199254740993 is not 9007199254740992, while 0.50 is 0.5 and 1e3 is 1,000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty for 0.
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn new(negative: bool, whole: &str, fraction: &str, exponent: i64) -> Self {
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let digits = significant.trim_end_matches('0');
        if digits.is_empty() {
            return Self { negative: false, digits: String::new(), exponent: 0 };
        }
        let dropped = (significant.len() - digits.len()) as i64;
        Self { negative, digits: digits.to_owned(), exponent: exponent - fraction.len() as i64 + dropped }
    }

    /// The nearest `f64`.
    pub(super) fn to_f64(&self) -> f64 {
        let sign = if self.negative { "-" } else { "" };
        let digits = if self.digits.is_empty() { "0" } else { &self.digits };
        // The text has the grammar of a float, for which parsing has no error.
        format!("{sign}{digits}e{}", self.exponent).parse().unwrap_or(f64::NAN)
    }
}

/// All numbers of `text`, in order.
///
/// A number is digits with optional thousands commas (in groups of three), a fraction and an exponent. A sign counts unless it
/// joins two words or numbers ("5-3"); a currency sign may stand between sign and digits ("-$5"). Digits that follow a letter
/// or an underscore belong to a name ("km2", "x_1") and are skipped.
pub(super) fn numbers(text: &str) -> Vec<Decimal> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        // ".5" is a number; the second point of "1.2.3" only separates.
        let fraction_only = bytes[at] == b'.' && digit(at + 1) && !(at > 0 && digit(at - 1));
        if !(digit(at) || fraction_only) {
            at += 1;
            continue;
        }
        let (number, end) = scan(text, at);
        // Digits are ASCII, so every index here is a character boundary.
        let before = text[..at].chars().next_back();
        let name = before.is_some_and(|c| c.is_alphabetic() || c == '_');
        if let Some(number) = number.filter(|_| !name) {
            found.push(number);
        }
        at = end;
    }
    found
}

/// The number that starts at byte `start`, and where it ends.
fn scan(text: &str, start: usize) -> (Option<Decimal>, usize) {
    let bytes = text.as_bytes();
    let digits_from = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = start;
    let first = digits_from(at);
    let mut whole = text[at..at + first].to_owned();
    at += first;
    // "1,234" is a number and "1,2" a list: a comma counts before exactly three digits, after one to three.
    while (1..=3).contains(&first) && bytes.get(at) == Some(&b',') && digits_from(at + 1) == 3 {
        whole.push_str(&text[at + 1..at + 4]);
        at += 4;
    }
    let mut fraction = "";
    if bytes.get(at) == Some(&b'.') {
        let length = digits_from(at + 1);
        fraction = &text[at + 1..at + 1 + length];
        // A full stop after a number ends the sentence.
        at += if length > 0 { 1 + length } else { 0 };
    }
    let mut exponent = Some(0);
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let length = if at + 1 + sign <= bytes.len() { digits_from(at + 1 + sign) } else { 0 };
        if length > 0 {
            // An exponent beyond i64 is no number that anybody wrote on purpose.
            exponent = text[at + 1..at + 1 + sign + length].parse::<i64>().ok();
            at += 1 + sign + length;
        }
    }
    let number = exponent.map(|exponent| Decimal::new(negative(&text[..start]), &whole, fraction, exponent));
    (number, at)
}

/// Returns whether the number after `before` has a minus sign.
fn negative(before: &str) -> bool {
    let before = before.trim_end_matches(['$', '€', '£', '¥', '\\']);
    let Some(rest) = before.strip_suffix(['-', '\u{2212}']) else { return false };
    // A minus between two operands is a hyphen, a range or a subtraction.
    !rest.chars().next_back().is_some_and(|c| c.is_alphanumeric() || matches!(c, ')' | ']' | '}' | '%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<f64> {
        numbers(text).iter().map(Decimal::to_f64).collect()
    }

    #[test]
    fn numbers_as_people_write_them() {
        for (text, expected) in [
            ("72", vec![72.0]),
            ("It costs $1,234.50.", vec![1234.5]),
            ("-3 and \u{2212}4.5", vec![-3.0, -4.5]),
            ("-$5, -\\$6", vec![-5.0, -6.0]),
            (".5 of 1.", vec![0.5, 1.0]),
            ("6.02e23 and 1E-3", vec![6.02e23, 1e-3]),
            ("1,2,3", vec![1.0, 2.0, 3.0]),
            ("1234,567", vec![1234.0, 567.0]),
            ("12,345,678", vec![12_345_678.0]),
            ("5-3", vec![5.0, 3.0]),
            ("2e", vec![2.0]),
            ("12.05.2024", vec![12.05, 2024.0]),
            ("7 km2 for x_1 and H2O", vec![7.0]),
            ("50% of 3:30", vec![50.0, 3.0, 30.0]),
            ("no number, é\u{2212}", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
    }

    #[test]
    fn equal_numbers_are_equal_decimals() {
        let only = |text: &str| numbers(text).pop().unwrap();
        for (a, b) in [("1,000", "1e3"), ("0.50", ".5"), ("007", "7.000"), ("-0", "0"), ("120", "1.2e2")] {
            assert_eq!(only(a), only(b), "{a} {b}");
        }
        // Equal as f64, different as numbers.
        assert_ne!(only("9007199254740993"), only("9007199254740992"));
        assert_ne!(only("5"), only("-5"));
    }

    #[test]
    fn an_absurd_exponent_is_no_number() {
        assert_eq!(values("1e99999999999999999999"), Vec::<f64>::new());
    }
}
