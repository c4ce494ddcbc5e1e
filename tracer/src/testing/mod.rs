//! What tests, benchmarks and fuzz targets outside this crate use of it. Not an interface for anything else.

mod hot_path;
mod properties;
mod records;

pub use hot_path::{HotPath, Load, Selected};
pub use properties::{TARGETS, Target};

pub use crate::{
    cri::{Client, Ended, Error, PodLabels, SocketError},
    model::{ContainerType, EngineContainer, Pod},
};
