//! What tests, benchmarks and fuzz targets outside this crate use of it. Not an interface for anything else.

#![expect(clippy::expect_used, reason = "it is part of tests")]

mod hot_path;
mod properties;
mod records;
mod stream;

pub use hot_path::{HotPath, Load, Selected};
pub use properties::{TARGETS, Target};
pub use stream::Stream;

#[cfg(feature = "testing")]
pub use crate::{
    cri::{Client, Engine, Error, PodLabels, SocketError, WatchEnd},
    model::{ContainerType, EngineContainer, Pod},
};
