//! Placeholders for kernel functions that the programs call where the kernel has them.
//!
//! eBPF programs call kernel functions ("kfuncs") by their BTF ids. The compiler emits a call of a helper with a
//! number that no helper has; before the programs are loaded, user space replaces it with a call of the kernel
//! function, or with nothing.

/// `bpf_preempt_disable()`, Linux 6.10.
pub const PREEMPT_DISABLE: u32 = 0x7472_6301;
/// `bpf_preempt_enable()`, Linux 6.10.
pub const PREEMPT_ENABLE: u32 = 0x7472_6302;
/// `bpf_local_irq_save()`, Linux 6.14.
pub const IRQ_SAVE: u32 = 0x7472_6303;
/// `bpf_local_irq_restore()`, Linux 6.14.
pub const IRQ_RESTORE: u32 = 0x7472_6304;

/// All placeholders, with the names of the kernel functions.
pub const FUNCTIONS: [(u32, &str); 4] = [
    (PREEMPT_DISABLE, "bpf_preempt_disable"),
    (PREEMPT_ENABLE, "bpf_preempt_enable"),
    (IRQ_SAVE, "bpf_local_irq_save"),
    (IRQ_RESTORE, "bpf_local_irq_restore"),
];
