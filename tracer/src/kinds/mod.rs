//! The traced kinds: what a record of each holds, and how it is shown.
//!
//! A new kind is a module here with a [`Tracer`], a variant of [`Payload`] and a line in [`TRACERS`].

mod exec;
mod open;

use std::{fmt::Debug, io};

use serde::{Deserialize, Serialize};
use tracer_common::{
    comm_bytes,
    event::{Header, Kind, SECCOMP_KILL, SECCOMP_TRAP},
};

pub(crate) use open::{ACCESS_MODES, FLAGS, RESOLVE};

use crate::{
    bpf::wire,
    output::{Call, Column, Memo},
};

/// A traced kind.
pub(crate) trait Tracer: Sync + Debug {
    /// Its kind on the kernel's side.
    fn kind(&self) -> Kind;
    /// As `tracer trace` and the field `event` call it.
    fn name(&self) -> &'static str;
    /// One line of help.
    fn about(&self) -> &'static str;
    /// The columns behind those that all kinds share.
    fn columns(&self) -> &'static [Column];
    /// What a record holds behind its header.
    fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Payload<'a>>;
}

/// Every traced kind.
pub(crate) static TRACERS: [&dyn Tracer; 2] = [&open::OpenTracer, &exec::ExecTracer];

/// One traced event, borrowing from its record.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// What all kinds share.
    pub(crate) header: Header,
    /// What this kind has.
    pub(crate) payload: Payload<'a>,
}

/// What an event of each kind has, in the form that JSON shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Payload<'a> {
    /// A file was opened, or was not.
    Open(open::Open<'a>),
    /// A program was executed, or was not.
    Exec(exec::Exec<'a>),
}

impl Payload<'_> {
    /// Appends it as the last field of a JSON object, as serde would flatten it into that. `calls` keeps texts for it.
    pub(crate) fn write_json(&self, calls: &mut Memo<Call>, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Open(open) => {
                out.extend_from_slice(br#","open":"#);
                open.write_json(calls, out)
            }
            Self::Exec(exec) => {
                out.extend_from_slice(br#","exec":"#);
                exec.write_json(out)
            }
        }
    }
}

/// Appends the fields that tell what is missing of a record.
fn write_marks(truncated: bool, fault: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if truncated { br#","truncated":true"# } else { br#","truncated":false"# });
    if fault {
        out.extend_from_slice(br#","fault":true"#);
    }
}

/// How a seccomp filter ended a call that was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Seccomp {
    /// By a signal that the process may handle.
    Trap,
    /// With the process, or with the thread.
    Kill,
}

impl Seccomp {
    /// As a record's marks have it.
    pub(crate) const fn of(marks: u8) -> Option<Self> {
        if marks & SECCOMP_KILL != 0 {
            Some(Self::Kill)
        } else if marks & SECCOMP_TRAP != 0 {
            Some(Self::Trap)
        } else {
            None
        }
    }

    /// The mark.
    pub(crate) const fn mark(self) -> u8 {
        match self {
            Self::Trap => SECCOMP_TRAP,
            Self::Kill => SECCOMP_KILL,
        }
    }

    /// Appends the field, where there is one.
    fn write_json(seccomp: Option<Self>, out: &mut Vec<u8>) {
        out.extend_from_slice(match seccomp {
            Some(Self::Trap) => br#","seccomp":"trap""#,
            Some(Self::Kill) => br#","seccomp":"kill""#,
            None => b"",
        });
    }
}

impl<'a> Event<'a> {
    /// From the bytes of a record; None where they make no sense.
    #[must_use]
    pub(crate) fn decode(tracer: &dyn Tracer, bytes: &'a [u8]) -> Option<Self> {
        let header: Header = wire::read(bytes)?;
        if Kind::try_from(header.kind) != Ok(tracer.kind()) {
            return None;
        }
        Some(Self { header, payload: tracer.decode(bytes)? })
    }

    /// The task's comm, up to its NUL.
    #[must_use]
    pub(crate) fn comm(&self) -> &[u8] {
        comm_bytes(&self.header.comm)
    }
}

/// The errno of a failed call, or 0. A call that a signal ends returns a code of the kernel's own (`ERESTARTSYS` and
/// its kin, 512 to 516, include/linux/errno.h), of which the process gets to see EINTR, or nothing if it is restarted.
const fn errno(ret: i32) -> u32 {
    match ret {
        0.. => 0,
        -516..=-512 => libc::EINTR.unsigned_abs(),
        _ => ret.unsigned_abs(),
    }
}

#[cfg(test)]
mod tests {
    use super::errno;

    #[test]
    fn the_kernels_own_codes_are_not_shown() {
        assert_eq!((errno(3), errno(-2), errno(-512), errno(-514)), (0, 2, 4, 4));
    }
}
