//! What user space does for each event, in nanoseconds: `cargo bench --features testing --bench hot_path`.
//!
//! Each figure is for [`EVENTS`] events; criterion's throughput says how many a second.

use std::hint::black_box;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use tracer::testing::{HotPath, Load, Selected};

const EVENTS: u32 = 1000;
const LOADS: [(&str, Load); 2] = [("one process", Load::ONE), ("mixed", Load::MIXED)];
const KINDS: [&str; 3] = ["open", "exec", "exit"];

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(EVENTS.into()));
    group
}

/// A record's bytes become an event.
fn decode(criterion: &mut Criterion) {
    let mut group = group(criterion, "decode");
    for kind in KINDS {
        let path = HotPath::new(kind, Load::MIXED, EVENTS, "json", Selected::Yes);
        group.bench_function(kind, |bencher| bencher.iter(|| black_box(path.decode())));
    }
}

/// All that is done behind the ring but writing.
fn whole(criterion: &mut Criterion) {
    for output in ["json", "columns"] {
        let mut group = group(criterion, &format!("whole {output}"));
        for (name, load) in LOADS {
            for kind in KINDS {
                group.bench_function(format!("{kind} {name}"), |bencher| {
                    let mut path = HotPath::new(kind, load, EVENTS, output, Selected::Yes);
                    bencher.iter(|| path.handle());
                });
            }
        }
    }
}

/// Attributing and selecting, where no container is selected: all but rendering.
fn select(criterion: &mut Criterion) {
    let mut group = group(criterion, "attribute and select");
    for (name, load) in LOADS {
        group.bench_function(name, |bencher| {
            let mut path = HotPath::new("open", load, EVENTS, "json", Selected::No);
            bencher.iter(|| path.handle());
        });
    }
}

criterion_group!(benches, decode, select, whole);
criterion_main!(benches);
