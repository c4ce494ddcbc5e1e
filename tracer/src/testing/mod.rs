//! What tests, benchmarks and fuzz targets outside this crate use of it. Not an interface for anything else.

#![expect(clippy::expect_used, reason = "it is part of tests")]

mod hot_path;
mod properties;
mod records;

pub use hot_path::{HotPath, Load, Selected};
pub use properties::{TARGETS, Target};

#[cfg(feature = "testing")]
pub use crate::{
    cri::{Client, Engine, Error, PodLabels, SocketError, WatchEnd},
    model::{ContainerType, EngineContainer, Pod},
};
