//! What the fuzz targets share. What they check is in `tracer/src/testing/properties`, where tests replay it as well.

use std::{env, fs, path::PathBuf};

pub use tracer::testing::{TARGETS, Target};

/// Names the directory that the seeds of a target are written to before it begins.
pub const SEEDS: &str = "TRACER_FUZZ_SEEDS";

/// The target with that name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("the target exists")
}

/// Writes a target's seeds to the directory that the environment names, if it does.
pub fn plant(target: &Target) {
    let Some(dir) = env::var_os(SEEDS).map(PathBuf::from) else { return };
    for (seed, number) in (target.seeds)().iter().zip(0..) {
        let file = dir.join(format!("seed-{number:03}"));
        fs::write(&file, seed).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// The body of a target's program.
#[macro_export]
macro_rules! fuzz {
    ($target:ident) => {
        libfuzzer_sys::fuzz_target!(
            init: $crate::plant($crate::target(stringify!($target))),
            |input: &[u8]| ($crate::target(stringify!($target)).check)(input)
        );
    };
}
