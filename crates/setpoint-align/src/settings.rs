//! Settings of objectives, declared once: fields, defaults and the values that each may take.

use crate::error::Error;

/// The values that a setting may take.
pub(crate) struct Range {
    /// The description of them in a message.
    pub(crate) expected: &'static str,
    contains: fn(f64) -> bool,
}

/// Greater than 0: a factor, which neither takes a value out of the numbers of 32 bits nor makes it 0.
pub(crate) const POSITIVE: Range =
    Range { expected: "a number from 1e-30 to 1e30", contains: |value| (1e-30..=1e30).contains(&value) };
/// Finite and at least 0.
pub(crate) const NON_NEGATIVE: Range =
    Range { expected: "a finite number of at least 0", contains: |value| value.is_finite() && value >= 0.0 };
/// Any finite number.
pub(crate) const FINITE: Range = Range { expected: "a finite number", contains: f64::is_finite };
/// A share below one half: the rate at which labels are wrong.
pub(crate) const BELOW_HALF: Range =
    Range { expected: "at least 0 and below 0.5", contains: |value| (0.0..0.5).contains(&value) };
/// A share of more than nothing and less than one half.
pub(crate) const WITHIN_HALF: Range =
    Range { expected: "above 0 and below 0.5", contains: |value| value > 0.0 && value < 0.5 };
/// A share of more than nothing.
pub(crate) const SHARE: Range =
    Range { expected: "above 0 and at most 1", contains: |value| value > 0.0 && value <= 1.0 };

/// From 0 to 1, both included: a discount.
pub(crate) const UNIT: Range = Range { expected: "from 0 to 1", contains: |value| (0.0..=1.0).contains(&value) };
/// The width of a clipping range below 1: `1 − ε` stays positive.
pub(crate) const BELOW_ONE: Range =
    Range { expected: "above 0 and below 1", contains: |value| value > 0.0 && value < 1.0 };
/// The largest ratio of two probabilities that counts as it is.
pub(crate) const ABOVE_ONE: Range =
    Range { expected: "a finite number above 1", contains: |value| value.is_finite() && value > 1.0 };

impl Range {
    /// Checks the numbers of a setting.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first that is outside.
    pub(crate) fn check(&self, name: &'static str, setting: &impl Numbers) -> Result<(), Error> {
        match setting.numbers(name).into_iter().find(|(_, value)| !(self.contains)(*value)) {
            Some((name, value)) => Err(Error::Setting { name, expected: self.expected, found: shown(value) }),
            None => Ok(()),
        }
    }
}

/// Writes a number, with an exponent where it would have many digits.
fn shown(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-9..1e15).contains(&size) { format!("{value:e}") } else { value.to_string() }
}

/// A setting that consists of numbers.
pub(crate) trait Numbers {
    /// Its numbers, each under its full name in a config file.
    fn numbers(&self, name: &'static str) -> Vec<(&'static str, f64)>;
}

impl Numbers for f64 {
    fn numbers(&self, name: &'static str) -> Vec<(&'static str, f64)> {
        vec![(name, *self)]
    }
}

impl Numbers for Option<f64> {
    fn numbers(&self, name: &'static str) -> Vec<(&'static str, f64)> {
        self.iter().map(|&value| (name, value)).collect()
    }
}

/// The settings of an objective.
pub trait Settings {
    /// Checks the range of every setting.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    fn validate(&self) -> Result<(), Error>;

    /// Returns everything that is wrong with them, for a user who is to correct all of it at once.
    fn problems(&self) -> Vec<Problem> {
        self.validate().err().into_iter().map(|error| Problem::new(None, error.to_string())).collect()
    }
}

/// Something that is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, if it is about one of several that could be meant.
    pub setting: Option<&'static str>,
    /// The problem, in a sentence.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(setting: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { setting, message: message.into() }
    }
}

/// Declares the settings of an objective: `name: type = default, RANGE;` for each, the range only for numbers.
///
/// It makes a struct that is read from and written to config files (unknown keys are refused, missing ones take their
/// default), its `Default` and its [`Settings`].
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[$field_about:meta])* $field:ident: $type:ty = $default:expr $(, $range:ident)?;)*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$field_about])*
                $(#[schemars(extend("x-values" = $crate::settings::$range.expected))])?
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::settings::Settings for $name {
            fn validate(&self) -> Result<(), $crate::error::Error> {
                $($($crate::settings::$range.check(stringify!($field), &self.$field)?;)?)*
                Ok(())
            }
        }
    };
}
pub(crate) use settings;

/// Declares objectives that share their settings: a type for each, which reads and writes the settings as they are.
macro_rules! share_settings {
    ($settings:ident: $($(#[$about:meta])* $name:ident),+) => {
        $(
            $(#[$about])*
            #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
            #[serde(transparent)]
            pub struct $name(pub $settings);

            impl $crate::settings::Settings for $name {
                fn validate(&self) -> Result<(), $crate::error::Error> {
                    $crate::settings::Settings::validate(&self.0)
                }
            }
        )+
    };
}
pub(crate) use share_settings;
