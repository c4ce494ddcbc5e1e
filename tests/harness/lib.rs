//! What the integration tests share: real bundles, real runtimes, a containerd of their own and the
//! built `tracer`, each with a deadline on everything and a `Drop` that takes away what it made.
//!
//! | variable | what it does |
//! |---|---|
//! | `TRACER_BIN` | the binary under test, instead of `target/release/tracer` of this workspace |
//! | `KUBECTL_TRACER_BIN` | likewise the `kubectl-tracer`, instead of `target/release/kubectl-tracer` |
//! | `TRACER_REQUIRE_ALL=1` | a test that cannot run here fails, instead of being skipped |
//! | `TRACER_TEST_CRIU` | a criu that works with this kernel, instead of the prepared one or that on the `PATH` |
//! | `TRACER_TEST_HOOK` | the `--hook` that every `tracer trace open` of the tests gets |
//! | `KUBEBUILDER_ASSETS` | a folder with `etcd` and `kube-apiserver`, to test with a real API server |
//! | `TRACER_TEST_KUBECONFIG` | a cluster to test with instead, which may get a namespace of its own |
//! | `TRACER_TEST_PROGRAMS` | a directory with the C [programs](program) compiled: no compiler is needed |
//! | `TRACER_TEST_SLOW=1` | what takes long, or takes a CPU away meanwhile, is tested as well: `cargo xtask faults` |
//! | `TRACER_TEST_SLOWNESS` | by what factor deadlines are longer, for emulated machines |
//!
//! | module | what it is for |
//! |---|---|
//! | [`suite`] | a list of tests with what each needs; the `main` of every test binary |
//! | [`tracer`] | starts the binary under test, collects its lines, ends it |
//! | [`bundle`] | OCI bundles: rootfs, `config.json`, annotations of containerd and CRI-O |
//! | [`runtime`] | runc, crun and youki, with a root directory of their own |
//! | [`nested`] | a privileged container that runs such runtimes itself |
//! | [`containerd`] | an own containerd and its CRI over the socket |
//! | [`docker`], [`podman`], [`engine`] | an own dockerd, a podman with own storage, and their containers |
//! | [`agent`] | the container that `kubectl tracer` has on each node |
//! | [`apiserver`] | an API server of one's own, with agents in which `tracer` or something else is executed |
//! | [`envtest`] | a real API server, where there is one |
//! | [`printing`] | nodes that print what a script has, for tests of the client |
//! | [`bpf`] | the BPF programs, maps and links that a process holds |
//! | [`loopback`], [`tls`], [`proxy`], [`front`] | servers on ports of our own; TLS before one that has none; a way to it; one that answers in its place |
//! | [`program`] | C programs compiled at test time or before, for calls no shell can make |
//! | [`shape`] | the fields that the contract gives to an event |
//! | [`scratch`], [`wait`], [`leftovers`] | names, directories, deadlines, and what must not stay behind |

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::return_self_not_must_use,
    reason = "a harness fails a test by panicking with what went wrong; what checks itself may hand itself on"
)]

pub mod admission;
pub mod agent;
pub mod apiserver;
pub mod bpf;
pub mod bundle;
#[path = "../../xtask/src/cache.rs"]
mod cache;
pub mod containerd;
mod controllers;
mod cri;
pub mod docker;
pub mod engine;
pub mod envtest;
pub mod front;
pub mod leftovers;
pub mod loopback;
pub mod need;
pub mod nested;
mod objects;
#[path = "../../xtask/src/pins.rs"]
#[expect(dead_code, reason = "one of the pins is for here")]
mod pins;
pub mod podman;
pub mod printing;
pub mod program;
pub mod proxy;
mod remote_command;
pub mod runtime;
pub mod scratch;
pub mod shape;
pub mod suite;
pub mod tls;
pub mod tracer;
pub mod wait;

pub use bundle::{Bundle, Dialect, Pod};
pub use need::Need;
pub use runtime::{Kind, Naming, Runtime};
pub use suite::Suite;
pub use tracer::{Finished, Launch, Tracer};

/// A user without any right: nobody, on Debian.
pub const NOBODY: u32 = 65534;
