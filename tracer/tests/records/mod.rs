//! Records as the programs write them, and containers that they are of.

#![allow(dead_code, reason = "each user takes what it needs")]
#![allow(clippy::unwrap_used, reason = "tests and benches may")]

use std::sync::Arc;

use tokio::sync::oneshot;
use tracer::{
    containers::{Attribution, Choice, Container, ContainerType, Lookup, Pod, Source, Unknown},
    render::{EventRenderer, Format},
    trace::{Knowledge, Output, Router, Sink, Stop, TRACERS, Tally, Tracer},
    wire,
};
use tracer_common::{
    comm_of,
    container::ContainerKey,
    event::{Exec, Header, Kind, Open, OpenCall},
};

pub const OPEN: &dyn Tracer = TRACERS[0];
pub const EXEC: &dyn Tracer = TRACERS[1];
pub const NODE: &str = "worker-1";

/// What opens are made for.
const PATHS: [&str; 5] = [
    "/etc/ld.so.cache",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/etc/hosts",
    "/usr/share/zoneinfo/Europe/Vienna",
    "/var/lib/postgresql/data/base/16384/1259_fsm",
];

/// Who makes events: so many containers, with so many processes in each.
#[derive(Clone, Copy)]
pub struct Load {
    pub containers: u32,
    pub processes: u32,
}

impl Load {
    /// One process in a loop.
    pub const ONE: Self = Self { containers: 1, processes: 1 };
    /// Processes of several containers at once.
    pub const MIXED: Self = Self { containers: 5, processes: 4 };

    /// Of the event with this number. No two in a row are of the same process, if there is more than one.
    fn header(self, kind: Kind, number: u32) -> Header {
        let container = number % self.containers;
        let process = number / self.containers % self.processes;
        let pid = 337_091 + container * 100 + process;
        Header {
            timestamp: 1_000_000_000 + u64::from(number) * 667,
            container: ContainerKey::new(container + 1, 1),
            kind: kind as u32,
            pid,
            tid: pid,
            ppid: 336_990,
            container_pid: process + 1,
            uid: 101,
            gid: 101,
            reserved: 0,
            comm: comm_of("coredns"),
        }
    }

    /// The record of an open with this number.
    pub fn open(self, number: u32) -> Vec<u8> {
        let path = PATHS[number as usize % PATHS.len()].as_bytes();
        let failed = number.is_multiple_of(7);
        let open = Open {
            header: self.header(Kind::Open, number),
            flags: 0o2_000_000,
            ret: if failed { -2 } else { 11 },
            dirfd: -100,
            mode: 0,
            path_len: path.len().try_into().unwrap(),
            marks: 0,
            call: OpenCall::Openat as u8,
        };
        [wire::bytes(&open), path].concat()
    }

    /// The record of an execution with this number.
    pub fn exec(self, number: u32) -> Vec<u8> {
        let (path, args) =
            (b"/usr/bin/curl", b"curl\0--silent\0-o\0/dev/null\0http://localhost:8080/healthz\0");
        let exec = Exec {
            header: self.header(Kind::Exec, number),
            ret: 0,
            path_len: path.len().try_into().unwrap(),
            args_len: args.len().try_into().unwrap(),
            dirfd: 0,
            marks: 0,
            reserved: [0; 3],
        };
        [wire::bytes(&exec), &path[..], &args[..]].concat()
    }

    /// Records of this kind, numbered.
    pub fn records(self, tracer: &dyn Tracer, count: u32) -> Vec<Vec<u8>> {
        let record = |number| match tracer.kind() {
            Kind::Open => self.open(number),
            Kind::Exec => self.exec(number),
        };
        (0..count).map(record).collect()
    }
}

/// A container as Kubernetes runs them.
pub fn container(key: ContainerKey) -> Container {
    let pod = Pod {
        namespace: "kube-system".into(),
        name: format!("coredns-6d4b75cb6d-{:05}", key.slot()),
        pod_uid: Some("7c1c2d3e-5f60-4718-9a2b-3c4d5e6f7081".into()),
        container: Some("coredns".into()),
        labels: Some(
            [("k8s-app".into(), "kube-dns".into()), ("pod-template-hash".into(), "6d4b75cb6d".into())].into(),
        ),
    };
    Container {
        id: format!("{:064x}", key.0),
        runtime: "containerd".into(),
        kind: ContainerType::Container,
        image: Some("registry.k8s.io/coredns/coredns:v1.11.1".into()),
        source: Source::Bundle,
        why: None,
        pod: Some(pod),
        pod_known: true,
        ..Container::unknown(Unknown::Late)
    }
}

/// Knows every container, and of all the same choice.
pub struct All(pub Choice);

impl All {
    fn attribution(&self, key: ContainerKey) -> Attribution {
        Attribution { key, container: Arc::new(container(key)), choice: self.0, host: false }
    }
}

impl Knowledge for All {
    fn learn(&mut self) -> u64 {
        0
    }

    fn look_up(&self, key: ContainerKey) -> Lookup {
        Lookup::Known(Arc::new(self.attribution(key)))
    }

    fn miss(&self, _key: ContainerKey) {}

    fn unknown(&self) -> Attribution {
        self.attribution(ContainerKey::HOST)
    }
}

/// Everything behind the ring.
pub fn router<K: Knowledge>(
    knowledge: K,
    tracer: &'static dyn Tracer,
    output: &str,
    write: Output,
) -> (Router<K>, Arc<Tally>, oneshot::Receiver<Stop>) {
    let renderer = EventRenderer::new(&Format::parse(output).unwrap(), tracer, NODE, None, true).unwrap();
    let tally = Arc::new(Tally::default());
    let (stop, stopped) = oneshot::channel();
    let sink = Sink::new(tracer, renderer, NODE.into(), None, Arc::clone(&tally), write, stop);
    (Router::new(knowledge, sink), tally, stopped)
}
