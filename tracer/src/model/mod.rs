//! Containers, pods and selections as plain data. The lowest layer: it depends on nothing else in this crate.

mod container;
mod engine_container;
mod exit_status;
pub(crate) mod json;
mod label_selector;
mod matches;
pub(crate) mod name;
pub(crate) mod pattern;
mod selection;

pub(crate) use container::{Container, Nested, Source, Unknown, without_added_labels};
pub use container::{ContainerType, Isolation, Pod};
pub use engine_container::EngineContainer;
pub(crate) use exit_status::ExitStatus;
pub(crate) use label_selector::LabelSelector;
pub(crate) use matches::Matches;
pub(crate) use pattern::Pattern;
pub(crate) use selection::{Choice, Selection};
