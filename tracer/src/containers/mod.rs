//! What is known about containers: from a key in an event to a name, and whether anybody asked for it.

mod container;
mod labels;
mod registry;
mod selection;
mod shares;
mod state;

pub use container::{
    Container, ContainerType, Isolation, Nested, Pod, Source, Unknown, without_added_labels,
};
pub use labels::LabelSelector;
pub use registry::{Attribution, ContainerName, First, Gaps, Known, Listed, Lookup, Registry};
pub use selection::{Choice, Pattern, Selection};
pub use state::{FreeSlots, RegistryMaps};
