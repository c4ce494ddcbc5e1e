//! What fuzzing checks holds for what it starts from: whole, cut off, and with a byte turned over. It takes no fuzzer to
//! run, and finds what is broken for everybody.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod properties;

use properties::{TARGETS, Target};

/// In how many places each seed is changed.
const PLACES: usize = 8;

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
            let mut turned = seed.clone();
            if let Some(byte) = turned.get_mut(at) {
                *byte = !*byte;
            }
            (target.check)(&turned);
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
replays!(annotations command_line config_json cri_info events lifecycle node_lines selectors);
