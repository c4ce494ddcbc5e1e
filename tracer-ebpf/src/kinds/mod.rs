//! The traced kinds, one module each: a kind's programs, and what it does at the return of its system calls.

mod seccomp;
mod uring;

use tracer_common::kinds::schema::bit;

use crate::{
    arch::{Call, Registers},
    globals,
};

/// A kind of event.
pub trait EventKind {
    /// Its number (`tracer_common::kinds::schema::Kind::number`).
    const NUMBER: u32;

    /// One of the kind's system calls has returned `ret`: called by the program `sys_exit`. A kind without system calls has
    /// nothing to do here.
    #[inline(always)]
    fn on_return(_call: &Call, _registers: &Registers, _ret: i64) {}
}

macro_rules! kinds {
    ($($kind:ident)*) => {
        $(mod $kind;)*

        /// A call that some kind traces has returned.
        #[inline(always)]
        pub fn on_return(call: &Call, registers: &Registers, ret: i64) {
            $(on_return_of::<$kind::Events>(call, registers, ret);)*
        }
    };
}
tracer_common::with_kinds!(kinds);

/// The verifier leaves out what is not traced: to it the global is a constant.
#[inline(always)]
fn on_return_of<K: EventKind>(call: &Call, registers: &Registers, ret: i64) {
    if globals::KINDS.load() & bit(K::NUMBER) != 0 && call.kind == K::NUMBER {
        K::on_return(call, registers, ret);
    }
}
