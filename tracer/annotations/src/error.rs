use std::fmt;

use crate::Engine;

/// Why annotations with the marker of an engine do not name a pod.
///
/// Messages are safe to print: they escape and shorten values from annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A required annotation is missing.
    Missing {
        /// The engine whose marker is present.
        engine: Engine,
        /// The missing key.
        key: &'static str,
    },
    /// A required annotation is empty.
    Empty {
        /// The engine whose marker is present.
        engine: Engine,
        /// The key whose value is empty.
        key: &'static str,
    },
    /// The container type is neither `sandbox` nor `container`.
    UnknownType {
        /// The engine whose marker is present.
        engine: Engine,
        /// The key of the container type.
        key: &'static str,
        /// Its value, complete and not escaped.
        value: String,
    },
    /// The markers of two engines are present, and the annotations do not show which one is forged. A caller that
    /// knows the engine can use [`Engine::resolve`].
    Contested {
        /// The keys of the two markers.
        keys: [&'static str; 2],
    },
}

/// Characters of an unknown value that a message shows.
const CHARS_SHOWN: usize = 64;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { engine, key } => write!(f, "annotations of {engine} have no `{key}`"),
            Self::Empty { engine, key } => write!(f, "annotations of {engine} have an empty `{key}`"),
            Self::UnknownType { engine, key, value } => {
                let end = value.char_indices().nth(CHARS_SHOWN).map(|(at, _)| at);
                let (shown, more) = end.map_or((value.as_str(), ""), |at| (&value[..at], "…"));
                write!(f, "annotations of {engine} have an unknown `{key}`: {shown:?}{more}")
            }
            Self::Contested { keys: [one, other] } => {
                write!(f, "annotations have the markers of two engines: `{one}` and `{other}`")
            }
        }
    }
}

impl std::error::Error for Error {}
