//! Amounts of memory on the command line.

/// The fewest bytes that a number without a unit may mean: no job fits into less, so a smaller number lacks its unit.
const LEAST_WITHOUT_UNIT: f64 = 1_048_576.0;

/// Reads an amount of memory: `80GiB`, `80GB`, `512MiB`, `80G` (binary, as in docker) or a number of bytes.
pub fn parse_memory(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024f64.powi(2),
        "g" | "gib" => 1024f64.powi(3),
        "t" | "tib" => 1024f64.powi(4),
        _ => f64::NAN,
    };
    let bytes = number.parse::<f64>().unwrap_or(f64::NAN) * factor;
    if !bytes.is_finite() || bytes <= 0.0 {
        return Err("expected an amount of memory, as in 80GiB, 80GB or a number of bytes".into());
    }
    if unit.is_empty() && bytes < LEAST_WITHOUT_UNIT {
        return Err(format!("{number} without a unit is {number} bytes: give the unit, as in 80GiB or 80GB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory() {
        let gib = f64::from(1u32 << 30);
        for (text, bytes) in [
            ("80GiB", 80.0 * gib),
            ("80 GiB", 80.0 * gib),
            ("0.5g", gib / 2.0),
            ("80GB", 80e9),
            ("1.5TB", 1.5e12),
            ("512MiB", gib / 2.0),
            ("80000000000", 80e9),
            ("1000B", 1000.0),
        ] {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "80XB", "-1GiB", "0", "1e400", "inf", "80GiB!", "1.2.3GB"] {
            parse_memory(text).expect_err(text);
        }
        for text in ["80", "24.5", "1000"] {
            let said = parse_memory(text).expect_err(text);
            assert!(said.contains("give the unit, as in 80GiB"), "{said}");
        }
    }
}
