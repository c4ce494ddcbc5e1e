//! What user space does for each event, in nanoseconds: `cargo bench --bench hot_path`.
//!
//! Each figure is for [`EVENTS`] events; criterion's throughput tells how many a second.

#![allow(clippy::unwrap_used, reason = "a bench may")]

#[path = "../tests/records/mod.rs"]
mod records;

use std::{hint::black_box, io};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use records::{All, EXEC, Load, NODE, OPEN, container, router};
use tracer::{
    containers::{Choice, Container},
    render::{EventRenderer, Events, Format, Kept, Renderer, Row, Table},
    trace::{Event, Tracer},
};

const EVENTS: u32 = 1000;
const LOADS: [(&str, Load); 2] = [("one process", Load::ONE), ("mixed", Load::MIXED)];
const KINDS: [&dyn Tracer; 2] = [OPEN, EXEC];
/// 2026-11-20T22:15:01Z.
const START: i128 = 1_795_212_901_000_000_000;

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(EVENTS.into()));
    group
}

/// A record's bytes become an event.
fn decode(criterion: &mut Criterion) {
    let mut group = group(criterion, "decode");
    for tracer in KINDS {
        let records = Load::MIXED.records(tracer, EVENTS);
        group.bench_function(tracer.name(), |bencher| {
            bencher.iter(|| {
                for record in &records {
                    black_box(Event::decode(tracer, black_box(record)));
                }
            });
        });
    }
}

/// Records with the container of each.
struct Loaded {
    tracer: &'static dyn Tracer,
    records: Vec<Vec<u8>>,
    /// By slot.
    containers: Vec<Container>,
}

impl Loaded {
    fn new(tracer: &'static dyn Tracer, load: Load) -> Self {
        let containers =
            (0..=load.containers).map(|slot| container(tracer_common::container::ContainerKey::new(slot, 1)));
        Self { tracer, records: load.records(tracer, EVENTS), containers: containers.collect() }
    }

    /// Shows all of them by `row`, which is told the slot of each event's container.
    fn show(&self, out: &mut Vec<u8>, mut row: impl FnMut(&Row<'_>, usize, &mut Vec<u8>) -> io::Result<()>) {
        out.clear();
        for record in &self.records {
            let event = Event::decode(self.tracer, record).unwrap();
            let timestamp = START + i128::from(event.header.timestamp);
            let slot = event.header.container.slot() as usize;
            let container = Some(&self.containers[slot]);
            row(
                &Row { timestamp, node: NODE, kind: self.tracer.name(), event: &event, container },
                slot,
                out,
            )
            .unwrap();
        }
        black_box(out);
    }
}

/// Events become text, decoding included: as `tracer` does it, and the plain way that says what it must look like.
fn render(criterion: &mut Criterion) {
    for output in ["json", "columns"] {
        let mut group = group(criterion, &format!("render {output}"));
        let format = Format::parse(output).unwrap();
        for (name, load) in LOADS {
            for tracer in KINDS {
                let loaded = Loaded::new(tracer, load);
                let mut out = Vec::new();
                group.bench_function(format!("{} {name}", tracer.name()), |bencher| {
                    let mut renderer = EventRenderer::new(&format, tracer, NODE, None, true).unwrap();
                    let mut kept: Vec<Kept> = loaded.containers.iter().map(|_| Kept::default()).collect();
                    bencher.iter(|| {
                        loaded.show(&mut out, |row, slot, out| renderer.row(row, &mut kept[slot], out));
                    });
                });
                group.bench_function(format!("{} {name}, plain", tracer.name()), |bencher| {
                    let table = |layout: &_| Table::new(layout, tracer, NODE, None, true);
                    let mut renderer = Renderer::<Events>::new(&format, table).unwrap();
                    bencher.iter(|| loaded.show(&mut out, |row, _, out| renderer.row(row, out)));
                });
            }
        }
    }
}

/// All that is done behind the ring but writing.
fn whole(criterion: &mut Criterion) {
    for output in ["json", "columns"] {
        let mut group = group(criterion, &format!("whole {output}"));
        for (name, load) in LOADS {
            for tracer in KINDS {
                let records = load.records(tracer, EVENTS);
                group.bench_function(format!("{} {name}", tracer.name()), |bencher| {
                    let (mut router, _tally, _stopped) =
                        router(All(Choice::Selected), tracer, output, |text| (black_box(text).len(), Ok(())));
                    bencher.iter(|| records.iter().for_each(|record| router.handle(record)));
                });
            }
        }
    }
}

/// Attributing and selecting, where nobody asks for what comes: all but rendering.
fn select(criterion: &mut Criterion) {
    let mut group = group(criterion, "attribute and select");
    for (name, load) in LOADS {
        let records = load.records(OPEN, EVENTS);
        group.bench_function(name, |bencher| {
            let (mut router, _tally, _stopped) =
                router(All(Choice::Rejected), OPEN, "json", |text| (text.len(), Ok(())));
            bencher.iter(|| records.iter().for_each(|record| router.handle(record)));
        });
    }
}

criterion_group!(benches, decode, select, render, whole);
criterion_main!(benches);
