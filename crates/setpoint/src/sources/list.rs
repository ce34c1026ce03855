//! The list of sources as settings: how a line of it becomes a setting of the jobs.

/// Defines the sections of the sources from the list.
macro_rules! reward_sources {
    (
        any { $($(#[$any_doc:meta])* $any:ident: $any_type:ty,)* }
        recorded { $($(#[$recorded_doc:meta])* $recorded:ident: $recorded_type:ty,)* }
    ) => {
        $(pub mod $any;)*
        $(pub mod $recorded;)*

        reward_sources! {
            /// The sources that can score the responses of a file.
            Sources { $($(#[$any_doc])* $any: $any_type,)* $($(#[$recorded_doc])* $recorded: $recorded_type,)* }
        }
        reward_sources! {
            /// The sources that can score any response, also one that was just sampled.
            Judges { $($(#[$any_doc])* $any: $any_type,)* }
        }
    };
    ($(#[$doc:meta])* $section:ident { $($(#[$key_doc:meta])* $key:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
        pub struct $section {
            $(
                $(#[$key_doc])*
                pub $key: $type,
            )*
        }

        impl $section {
            /// Returns the sources, each under its key.
            pub fn entries(&self) -> Vec<Entry<'_>> {
                vec![$((stringify!($key), &self.$key as &dyn SourceSettings)),*]
            }
        }

        impl Section for $section {
            const NAMES: &'static [&'static str] = &[$(stringify!($key)),*];

            fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
                match name {
                    $(stringify!($key) => self.$key = map.next_value()?,)*
                    other => return Err(serde::de::Error::unknown_field(other, Self::NAMES)),
                }
                Ok(())
            }
        }
    };
}
