//! Records as the programs write them, and containers that they are of.

use std::{io, sync::Arc};

use tokio::sync::oneshot;
use tracer_common::{
    comm_of,
    container::ContainerKey,
    kinds::{
        Header,
        exec::{self, Exec},
        open::{self, Open},
    },
};
use zerocopy::IntoBytes as _;

use crate::{
    kinds::{Kind, Kinds},
    model::{Choice, Container, ContainerType, Pod},
    output::{EventRenderer, Format, Look},
    pipeline::{Attributor, Router, Sink, Stop, Tally, View},
    registry::{Attribution, Lookup},
};

pub(crate) const NODE: &str = "worker-1";

/// Paths of opens.
const PATHS: [&str; 5] = [
    "/etc/ld.so.cache",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/etc/hosts",
    "/usr/share/zoneinfo/Europe/Vienna",
    "/var/lib/postgresql/data/base/16384/1259_fsm",
];

/// How many containers have events, and of how many processes each.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Containers.
    pub containers: u32,
    /// Processes in each.
    pub processes: u32,
}

/// Whether the containers are selected.
#[derive(Clone, Copy, Debug)]
pub enum Selected {
    /// All of them.
    Yes,
    /// None of them.
    No,
}

impl Load {
    /// One process in a loop.
    pub const ONE: Self = Self { containers: 1, processes: 1 };
    /// Processes of several containers at once.
    pub const MIXED: Self = Self { containers: 5, processes: 4 };

    /// The header of the event with this number. No two in a row are of the same process, if there is more than one.
    fn header(self, kind: u32, number: u32) -> Header {
        let container = number % self.containers;
        let process = number / self.containers % self.processes;
        let pid = 337_091 + container * 100 + process;
        Header {
            timestamp: 1_000_000_000 + u64::from(number) * 667,
            container: ContainerKey::new(container + 1, 1),
            kind,
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

    /// The record of an open of this path.
    pub(crate) fn open(self, number: u32, path: &[u8]) -> Vec<u8> {
        let failed = number.is_multiple_of(7);
        let open = Open {
            header: self.header(open::NUMBER, number),
            flags: 0o2_000_000,
            resolve: 0,
            ret: if failed { -2 } else { 11 },
            dirfd: -100,
            mode: 0,
            handle_type: 0,
            path_len: path.len().try_into().unwrap_or(0),
            handle_len: 0,
            event_flags: 0,
            call: open::OPENAT,
            reserved: 0,
        };
        [open.as_bytes(), path].concat()
    }

    /// The record of an execution.
    fn exec(self, number: u32) -> Vec<u8> {
        let (path, args) =
            (b"/usr/bin/curl", b"curl\0--silent\0-o\0/dev/null\0http://localhost:8080/healthz\0");
        let exec = Exec {
            header: self.header(exec::NUMBER, number),
            ret: 0,
            dirfd: 0,
            path_len: path.len().try_into().unwrap_or(0),
            args_len: args.len().try_into().unwrap_or(0),
            event_flags: 0,
            reserved: 0,
        };
        [exec.as_bytes(), &path[..], &args[..]].concat()
    }

    /// A record of another kind: numbers that differ, and a text in each part.
    fn other(self, kind: &Kind, number: u32) -> Vec<u8> {
        let schema = &kind.schema;
        let mut record = self.header(schema.number, number).as_bytes().to_vec();
        let own = (record.len()..schema.record_size).map(|at| u8::try_from(at % 5).unwrap_or(0));
        record.extend(own);
        for at in &schema.parts {
            let text = PATHS[number as usize % PATHS.len()].as_bytes();
            let len = u16::try_from(text.len()).unwrap_or(0);
            record[*at..*at + 2].copy_from_slice(&len.to_le_bytes());
            record.extend_from_slice(text);
        }
        record
    }

    /// Records of this kind, numbered.
    pub(crate) fn records(self, kind: &str, count: u32) -> Vec<Vec<u8>> {
        let kinds = Kinds::by_name(&[kind]).expect("the kind is declared");
        let kind = kinds.single().expect("it is one");
        let record = |number: u32| match kind.schema.number {
            open::NUMBER => self.open(number, PATHS[number as usize % PATHS.len()].as_bytes()),
            exec::NUMBER => self.exec(number),
            _ => self.other(kind, number),
        };
        (0..count).map(record).collect()
    }
}

/// A container as Kubernetes runs them.
fn container(key: ContainerKey) -> Container {
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
        ..Container::of_pod(pod)
    }
}

/// Knows every container, and makes the same choice for all.
pub(crate) struct All(pub(crate) Selected);

impl All {
    fn attribution(&self, key: ContainerKey) -> Attribution {
        let choice = match self.0 {
            Selected::Yes => Choice::Selected,
            Selected::No => Choice::Rejected,
        };
        Attribution { key, container: Arc::new(container(key)), choice, host: false }
    }
}

impl Attributor for All {
    fn update(&mut self) -> u64 {
        0
    }

    fn look_up(&self, key: ContainerKey) -> Lookup {
        Lookup::Known(Arc::new(self.attribution(key)))
    }

    fn report_missing(&self, _key: ContainerKey) {}

    fn unresolved(&self) -> Attribution {
        self.attribution(ContainerKey::HOST)
    }
}

/// Everything behind the ring.
pub(crate) fn router<A: Attributor>(
    attributor: A,
    kinds: &Arc<Kinds>,
    output: &str,
    write: impl FnMut(&[u8]) -> (usize, io::Result<()>) + Send + 'static,
) -> (Router<A>, Arc<Tally>, oneshot::Receiver<Stop>) {
    let format = Format::parse(output).expect("the format exists");
    let renderer = EventRenderer::new(&format, kinds, NODE, Look::plain(None)).expect("the columns exist");
    let tally = Arc::new(Tally::new(kinds.len()));
    let (stop, stopped) = oneshot::channel();
    let sink = Sink::new(
        Arc::clone(kinds),
        View::Text(renderer),
        NODE.into(),
        None,
        Arc::clone(&tally),
        Box::new(write),
        stop,
    );
    (Router::new(Arc::clone(kinds), attributor, sink), tally, stopped)
}
