//! The macro that makes everything which depends on the list of objectives.

/// Declares the modules of the objectives, and makes [`Method`](crate::Method), [`MixedLoss`](crate::MixedLoss) and
/// [`METHODS`](crate::METHODS) from them.
///
/// Each line is a file with its objectives: `file: Variant(Settings) = "name", …;`. The block that it is in says what the
/// objectives are trained on, and so which trait the settings implement besides [`Objective`](crate::Objective).
macro_rules! objectives {
    (
        prompts { $($a_file:ident: $($a:ident($a_settings:ident) = $a_name:literal $(or $a_alias:literal)*),+;)* }
        pairs { $($b_file:ident: $($b:ident($b_settings:ident) = $b_name:literal),+;)* }
        rows { $($c_file:ident: $($c:ident($c_settings:ident) = $c_name:literal),+;)* }
        rows_with_a_value { $d_file:ident: $d:ident($d_settings:ident) = $d_name:literal; }
        best_responses { $e_file:ident: $e:ident($e_settings:ident) = $e_name:literal; }
        sampled { $($f:ident($f_settings:ident) = $f_name:literal $(or $f_alias:literal)*;)* }
    ) => {
        $(mod $a_file; pub use $a_file::*;)*
        $(mod $b_file; pub use $b_file::*;)*
        $(mod $c_file; pub use $c_file::*;)*
        mod $d_file;
        pub use $d_file::*;
        mod $e_file;
        pub use $e_file::*;

        /// `[align]`: the method and its settings.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(tag = "method")]
        pub enum Method {
            $($(#[doc = concat!("`", $a_name, "`")] #[serde(rename = $a_name $(, alias = $a_alias)*)] $a($a_settings),)+)*
            $($(#[doc = concat!("`", $b_name, "`")] #[serde(rename = $b_name)] $b(Pairwise<$b_settings>),)+)*
            $($(#[doc = concat!("`", $c_name, "`")] #[serde(rename = $c_name)] $c($c_settings),)+)*
            #[doc = concat!("`", $d_name, "`")]
            #[serde(rename = $d_name)]
            $d($d_settings),
            #[doc = concat!("`", $e_name, "`")]
            #[serde(rename = $e_name)]
            $e($e_settings),
            $(#[doc = concat!("`", $f_name, "`")] #[serde(rename = $f_name $(, alias = $f_alias)*)] $f($f_settings),)*
            /// `mix`
            #[serde(rename = "mix")]
            Mix(Mix),
        }

        /// One loss of `method = "mix"`.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(tag = "method")]
        pub enum MixedLoss {
            $($(#[doc = concat!("`", $b_name, "`")] #[serde(rename = $b_name)] $b(Weighted<$b_settings>),)+)*
        }

        /// Every method.
        pub const METHODS: &[About] = &[
            $($(About::of::<$a_settings>($a_name, &[$($a_alias),*], TrainsOn::Responses),)+)*
            $($(About::of::<$b_settings>($b_name, &[], TrainsOn::Pairs),)+)*
            $($(About::of::<$c_settings>($c_name, &[], TrainsOn::Rows),)+)*
            About::of::<$d_settings>($d_name, &[], TrainsOn::Rows),
            About::of::<$e_settings>($e_name, &[], TrainsOn::Best),
            About::of::<Mix>("mix", &[], TrainsOn::Pairs),
        ];

        /// The methods that train on responses which the policy samples, and on no others.
        pub const SAMPLED_METHODS: &[&str] = &[$($f_name),*];

        impl Method {
            /// Returns the method of a name, with its defaults.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($($a_name $(| $a_alias)* => Some(Self::$a(Default::default())),)+)*
                    $($($b_name => Some(Self::$b(Default::default())),)+)*
                    $($($c_name => Some(Self::$c(Default::default())),)+)*
                    $d_name => Some(Self::$d(Default::default())),
                    $e_name => Some(Self::$e(Default::default())),
                    $($f_name $(| $f_alias)* => Some(Self::$f(Default::default())),)*
                    "mix" => Some(Self::Mix(Mix::default())),
                    _ => None,
                }
            }

            /// Returns its name in a config file.
            pub fn name(&self) -> &'static str {
                match self {
                    $($(Self::$a(_) => $a_name,)+)*
                    $($(Self::$b(_) => $b_name,)+)*
                    $($(Self::$c(_) => $c_name,)+)*
                    Self::$d(_) => $d_name,
                    Self::$e(_) => $e_name,
                    $(Self::$f(_) => $f_name,)*
                    Self::Mix(_) => "mix",
                }
            }

            /// Returns the method as its task needs it.
            pub fn training(&self) -> Training {
                match self {
                    $($(Self::$a(settings) => Training::Prompts(Box::new(settings.clone())),)+)*
                    $($(Self::$b(section) => {
                        let objective = Box::new(section.objective.clone());
                        let objectives = vec![WeightedObjective { name: $b_name, weight: 1.0, objective }];
                        Training::Pairs(PairwiseMethod { objectives, pairs: section.pairs, nll_weight: section.nll_weight })
                    })+)*
                    $($(Self::$c(settings) => Training::Rows(Box::new(settings.clone())),)+)*
                    Self::$d(settings) => Training::RowsWithValue(settings.clone()),
                    Self::$e(_) => Training::Best,
                    $(Self::$f(settings) => Training::Sampled(Box::new(settings.clone())),)*
                    Self::Mix(mix) => Training::Pairs(PairwiseMethod {
                        objectives: mix.losses.iter().map(MixedLoss::objective).collect(),
                        pairs: mix.pairs,
                        nll_weight: mix.nll_weight,
                    }),
                }
            }

            /// Returns the settings that its objective alone has.
            pub(crate) fn settings(&self) -> &dyn Settings {
                match self {
                    $($(Self::$a(settings) => settings,)+)*
                    $($(Self::$b(section) => section,)+)*
                    $($(Self::$c(settings) => settings,)+)*
                    Self::$d(settings) => settings,
                    Self::$e(settings) => settings,
                    $(Self::$f(settings) => settings,)*
                    Self::Mix(mix) => mix,
                }
            }
        }

        impl MixedLoss {
            pub(crate) fn objective(&self) -> WeightedObjective {
                match self {
                    $($(Self::$b(part) => WeightedObjective {
                        name: $b_name,
                        weight: part.weight,
                        objective: Box::new(part.objective.clone()),
                    },)+)*
                }
            }

            pub(crate) fn settings(&self) -> &dyn Settings {
                match self {
                    $($(Self::$b(part) => &part.objective,)+)*
                }
            }
        }
    };
}
pub(crate) use objectives;
