//! Containers, pods and selections as plain data. The lowest layer: it depends on nothing else in this crate.

mod container;
mod engine_container;
pub(crate) mod json;
mod label_selector;
mod selection;

pub(crate) use container::{Container, Nested, Source, Unknown, without_added_labels};
pub use container::{ContainerType, Isolation, Pod};
pub use engine_container::EngineContainer;
pub(crate) use label_selector::LabelSelector;
pub(crate) use selection::{Choice, Pattern, Selection};
