//! Enumerations that keep what they do not know.

/// Declares an enumeration whose unknown values survive as `Unknown(n)`.
macro_rules! enumeration {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// A value of a later version.
            Unknown(u32),
        }

        impl $name {
            /// All values that this version knows.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),+];

            /// The value on the wire.
            #[must_use]
            pub const fn code(self) -> u32 {
                match self {
                    $(Self::$variant => $value,)+
                    Self::Unknown(code) => code,
                }
            }

            /// The name as it stands in `wasmbed.cddl`, in CamelCase.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                    Self::Unknown(_) => "Unknown",
                }
            }
        }

        impl From<u32> for $name {
            fn from(code: u32) -> Self {
                match code {
                    $($value => Self::$variant,)+
                    other => Self::Unknown(other),
                }
            }
        }
    };
}

pub(crate) use enumeration;
