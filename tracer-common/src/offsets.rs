//! Offsets of kernel structures' fields, which differ between kernels.
//!
//! Rust has no CO-RE relocations, so user space resolves the offsets from the kernel's BTF and sets them as read-only globals
//! before the programs are loaded. The verifier takes them for constants.
//!
//! A program that needs a field declares a global with the names of the structure and the field in its own:
//! `offset__task_struct__tgid`, with `__` for each dot of a path through nested structures. `offset_if_any__` before the
//! names means that the programs can do without the field.

/// An offset that this kernel does not have: what depends on it is left out, never guessed.
pub const UNKNOWN: u32 = u32::MAX;

/// Size of `struct upid` (include/linux/pid.h: an int and a pointer, unchanged since 2.6.24).
pub const UPID_SIZE: u32 = 16;
