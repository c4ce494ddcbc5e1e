//! Properties that hold for any input: the tests here check them with known inputs, the targets in `fuzz/` with those of
//! libFuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]

mod annotations;
mod command_line;
mod config_json;
mod cri_info;
mod events;
mod fixtures;
mod frames;
mod lifecycle;
mod script;
mod selectors;
mod shown;

/// Something that reads what others have written.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As `cargo xtask fuzz` calls it.
    pub name: &'static str,
    /// Panics if a property does not hold.
    pub check: fn(&[u8]),
    /// What engines and programs have really written, and what once led to a finding.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    annotations::TARGET,
    command_line::TARGET,
    config_json::TARGET,
    cri_info::TARGET,
    events::TARGET,
    frames::TARGET,
    lifecycle::TARGET,
    selectors::TARGET,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// In how many places each seed is changed.
    const PLACES: usize = 8;

    /// Checks a target's seeds: whole, cut off, and with a byte inverted.
    fn replay(name: &str) {
        let target: &Target = TARGETS.iter().find(|target| target.name == name).unwrap();
        let seeds = (target.seeds)();
        assert!(seeds.len() >= 7, "{} seeds", seeds.len());
        (target.check)(b"");
        for seed in seeds {
            (target.check)(&seed);
            for place in 0..PLACES {
                let at = seed.len() * place / PLACES;
                (target.check)(&seed[..at]);
                let mut inverted = seed.clone();
                if let Some(byte) = inverted.get_mut(at) {
                    *byte = !*byte;
                }
                (target.check)(&inverted);
            }
        }
    }

    macro_rules! replays {
        ($($name:ident)*) => {
            $(
                #[test]
                fn $name() {
                    replay(stringify!($name));
                }
            )*

            #[test]
            fn every_target_is_replayed() {
                let replayed = [$(stringify!($name)),*];
                assert_eq!(TARGETS.map(|target| target.name), replayed);
            }
        };
    }
    replays!(annotations command_line config_json cri_info events frames lifecycle selectors);
}
