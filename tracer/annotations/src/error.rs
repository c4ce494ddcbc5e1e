use std::fmt;

use crate::Engine;

/// Why annotations that an engine marked as its own do not name a pod.
///
/// Its message is safe to print: a value out of the annotations is escaped in it, and cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A required annotation is not there.
    Missing {
        /// The engine whose mark is there.
        engine: Engine,
        /// The key that is not.
        key: &'static str,
    },
    /// A required annotation is empty.
    Empty {
        /// The engine whose mark is there.
        engine: Engine,
        /// The key whose value is empty.
        key: &'static str,
    },
    /// The container is neither a `sandbox` nor a `container`.
    UnknownType {
        /// The engine whose mark is there.
        engine: Engine,
        /// The key of the container's type.
        key: &'static str,
        /// What it says, in full and not escaped.
        value: String,
    },
    /// The marks of two engines are there, and nothing in the annotations tells which is the forged one.
    /// [`Engine::resolve`] answers for a caller who can tell.
    Contested {
        /// The keys of the two marks.
        keys: [&'static str; 2],
    },
}

/// As much of an unknown value as a message shows.
const SHOWN_CHARS: usize = 64;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { engine, key } => write!(f, "annotations of {engine} lack `{key}`"),
            Self::Empty { engine, key } => write!(f, "annotations of {engine} have an empty `{key}`"),
            Self::UnknownType { engine, key, value } => {
                let end = value.char_indices().nth(SHOWN_CHARS).map(|(at, _)| at);
                let (shown, more) = end.map_or((value.as_str(), ""), |at| (&value[..at], "…"));
                write!(f, "annotations of {engine} have an unknown `{key}`: {shown:?}{more}")
            }
            Self::Contested { keys: [one, other] } => {
                write!(f, "annotations carry the marks of two engines: `{one}` and `{other}`")
            }
        }
    }
}

impl std::error::Error for Error {}
