//! Access to the operating system: processes and files of the node, standard streams, clocks, threads, capabilities.

pub(crate) mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod file_helper;
pub(crate) mod files;
pub(crate) mod host_root;
pub(crate) mod log_limit;
pub(crate) mod proc_table;
pub(crate) mod process_handle;
mod runtime_copy;
pub(crate) mod signals;
pub(crate) mod stderr;
pub(crate) mod stdout;
pub(crate) mod thread;
