//! Exact rational numbers.

/// A fraction in lowest terms with a positive denominator. Operations give `None` where a part does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rational {
    numerator: i128,
    denominator: i128,
}

/// The largest exponent that is multiplied out.
const LARGEST_EXPONENT: i128 = 128;

impl Rational {
    fn new(numerator: i128, denominator: i128) -> Option<Self> {
        if denominator == 0 || numerator == i128::MIN || denominator == i128::MIN {
            return None;
        }
        let divisor = greatest_common_divisor(numerator.abs(), denominator.abs());
        let sign = denominator.signum();
        Some(Self { numerator: sign * (numerator / divisor), denominator: sign * (denominator / divisor) })
    }

    /// Reads digits with at most one point.
    pub(super) fn parse(digits: &str) -> Option<Self> {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let fraction = fraction.trim_end_matches('0');
        let all = format!("{whole}{fraction}");
        let numerator = if all.is_empty() { 0 } else { all.parse().ok()? };
        Self::new(numerator, 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)
    }

    /// Returns numerator and denominator.
    pub(super) fn parts(self) -> (i128, i128) {
        (self.numerator, self.denominator)
    }

    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Self::new(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    pub(super) fn times(self, other: Self) -> Option<Self> {
        Self::new(self.numerator.checked_mul(other.numerator)?, self.denominator.checked_mul(other.denominator)?)
    }

    pub(super) fn divided_by(self, other: Self) -> Option<Self> {
        self.times(Self::new(other.denominator, other.numerator)?)
    }

    pub(super) fn negative(self) -> Option<Self> {
        Self::new(self.numerator.checked_neg()?, self.denominator)
    }

    pub(super) fn magnitude(self) -> Option<Self> {
        Self::new(self.numerator.checked_abs()?, self.denominator)
    }

    /// Raises it to a whole power, or to a half, if that is a rational number.
    pub(super) fn to_the(self, exponent: Self) -> Option<Self> {
        match exponent.parts() {
            (n, 1) if n.abs() <= LARGEST_EXPONENT => {
                let base = if n < 0 { Self::new(self.denominator, self.numerator)? } else { self };
                let n = u32::try_from(n.abs()).ok()?;
                Self::new(base.numerator.checked_pow(n)?, base.denominator.checked_pow(n)?)
            }
            (1, 2) => self.square_root(),
            _ => None,
        }
    }

    /// Computes the square root, if it is a rational number.
    pub(super) fn square_root(self) -> Option<Self> {
        let root = |n: i128| {
            let root = n.checked_isqrt()?;
            (root * root == n).then_some(root)
        };
        Self::new(root(self.numerator)?, root(self.denominator)?)
    }

    pub(super) fn factorial(self) -> Option<Self> {
        let (n, denominator) = self.parts();
        if denominator != 1 || !(0..=33).contains(&n) {
            return None;
        }
        (1..=n)
            .try_fold(1_i128, |product, factor| product.checked_mul(factor))
            .and_then(|product| Self::new(product, 1))
    }
}

fn greatest_common_divisor(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Rational {
        Rational::parse(text).unwrap()
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(of("0.50").parts(), (1, 2));
        assert_eq!(of(".125").parts(), (1, 8));
        assert_eq!(of("0").parts(), (0, 1));
        assert_ne!(of("9007199254740993"), of("9007199254740992"));
        assert_eq!(Rational::parse(&"9".repeat(60)), None);
    }

    #[test]
    fn operations_stay_in_lowest_terms_or_fail() {
        let (half, third) = (of("0.5"), of("1").divided_by(of("3")).unwrap());
        assert_eq!(half.plus(third).unwrap().parts(), (5, 6));
        assert_eq!(half.times(third).unwrap().parts(), (1, 6));
        assert_eq!(half.negative().unwrap().divided_by(third).unwrap().parts(), (-3, 2));
        assert_eq!(half.to_the(of("3").negative().unwrap()).unwrap().parts(), (8, 1));
        assert_eq!(of("2.25").square_root().unwrap().parts(), (3, 2));
        assert_eq!(of("2").square_root(), None);
        assert_eq!(of("1").negative().unwrap().square_root(), None);
        assert_eq!(of("1").divided_by(of("0")), None);
        assert_eq!(of("0").to_the(of("1").negative().unwrap()), None);
        assert_eq!(of("10").to_the(of("100")), None);
        assert_eq!(of("5").factorial().unwrap().parts(), (120, 1));
        assert_eq!(of("34").factorial(), None);
    }
}
