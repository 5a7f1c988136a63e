//! [`keyed!`]: a structure of the model together with the keys that its mapping has in a Compose file.

/// Defines a structure and, from the same lines, which keys its mapping may have ([`Keys`](crate::keys::Keys)) and how
/// each is read (`decode` from a [`Reader`](super::Reader), `read` from a node), so that a key stands in one place.
///
/// ```text
/// keyed! {
///     pub struct Port = "a port" {                     what the mapping is called in refusals
///         pub name: Option<String> => opt(string),     the key `name`, by `reader.opt("name", string)`
///         pub kind: Kind => "type": opt(kind),         the key `type`, in a field of another name
///         pub labels: Texts => later,                  a key that whoever calls `decode` reads itself
///         pub extensions: Extensions,                  no key
///     }
///     elsewhere: "extends";                            keys that have no field here and are obeyed elsewhere
///     refused: "isolation" => "leave it out";          keys of the specification that we do not do, and the reason
/// }
/// ```
///
/// Fields that are not read here have their default after `decode`.
macro_rules! keyed {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Name:ident = $what:literal {
            $(
                $(#[$field_meta:meta])*
                $field_vis:vis $field:ident: $Type:ty $(=> $($key:literal:)? $how:ident $(($($arg:expr),*))?)?,
            )*
        }
        $(elsewhere: $($elsewhere:literal),*;)?
        $(refused: $($refused:literal => $reason:expr),*;)?
    ) => {
        $(#[$meta])*
        $vis struct $Name {
            $($(#[$field_meta])* $field_vis $field: $Type,)*
        }

        impl $Name {
            pub(crate) const KEYS: $crate::keys::Keys = $crate::keys::Keys {
                what: $what,
                done: &[
                    $($($crate::read::keyed!(@key $how $field $($key)?),)?)*
                    $($($elsewhere,)*)?
                ],
                refused: &[$($(($refused, $reason),)*)?],
            };

            /// From a mapping whose keys have been checked.
            pub(crate) fn decode(reader: &$crate::read::Reader<'_>) -> $crate::read::Result<Self> {
                Ok(Self {
                    $($field: $crate::read::keyed!(@read reader $field $($how [$($key)?] $(($($arg),*))?)?),)*
                })
            }

            #[allow(dead_code, reason = "some structures need more than their own mapping")]
            pub(crate) fn read(node: &$crate::yaml::Node, path: &str) -> $crate::read::Result<Self> {
                Self::decode(&$crate::read::Reader::new(node, &Self::KEYS, path)?)
            }
        }
    };
    (@key $how:ident $field:ident) => { stringify!($field) };
    (@key $how:ident $field:ident $key:literal) => { $key };
    (@read $reader:ident $field:ident) => { Default::default() };
    (@read $reader:ident $field:ident later []) => { Default::default() };
    (@read $reader:ident $field:ident $how:ident [$($key:literal)?] ($($arg:expr),*)) => {
        $reader.$how($crate::read::keyed!(@key $how $field $($key)?), $($arg),*)?
    };
}

pub(crate) use keyed;
