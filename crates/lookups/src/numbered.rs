//! Values that have a number in the journal and a name for people.
//!
//! Knows: how they are declared. Must not know: any of them.

/// Declares an enum of such values: documentation, name in the code, number, name. A number that has been
/// used is never given to another value, since journals are read years later.
#[macro_export]
macro_rules! numbered {
    (
        $(#[$about:meta])*
        pub enum $Type:ident { $($(#[$doc:meta])* $Value:ident = $number:literal, $name:literal;)+ }
    ) => {
        $(#[$about])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum $Type { $($(#[$doc])* $Value = $number),+ }

        impl $Type {
            /// All of them, in the order of their numbers.
            pub const ALL: [$Type; [$($number),+].len()] = [$($Type::$Value),+];

            /// The one with this number.
            pub fn from_number(number: u8) -> Option<$Type> {
                $Type::ALL.into_iter().find(|value| *value as u8 == number)
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $($Type::$Value => $name),+ }
            }
        }
    };
}
