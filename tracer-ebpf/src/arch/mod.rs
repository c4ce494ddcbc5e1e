//! System calls as the architecture passes them.
//!
//! Only what `sys_exit` leaves readable: the registers that held the arguments still do when a call returns,
//! but for arm64's first one, which has a copy.

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64;
#[cfg(bpf_target_arch = "x86_64")]
mod x86_64;

#[cfg(bpf_target_arch = "aarch64")]
pub use aarch64::{
    Registers, exec_call, is_rolled_back, is_sigreturn, may_be_rolled_back, may_execute, may_open, open_call,
    result,
};
#[cfg(bpf_target_arch = "x86_64")]
pub use x86_64::{
    Registers, exec_call, is_rolled_back, is_sigreturn, may_be_rolled_back, may_execute, may_open, open_call,
    result,
};

/// A call that executes a program, and how wide its pointers are.
#[derive(Clone, Copy)]
pub struct ExecCall {
    /// Whether a directory's file descriptor comes first (execveat).
    pub at: bool,
    /// Whether the argument vector holds 32-bit pointers.
    pub compat: bool,
}

/// The first arguments of a system call. Of those of a 32-bit call the upper halves are 0; of a 64-bit call they are
/// what the caller left in the registers, also where the kernel takes an `int`.
#[derive(Clone, Copy)]
pub struct Arguments(pub [u64; 5]);
