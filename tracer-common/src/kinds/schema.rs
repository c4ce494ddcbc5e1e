//! The language in which a kind of event declares itself: its record, its fields, what is attached for it.
//!
//! A record is a `repr(C)` structure that begins with a [`Header`](super::Header), followed by *parts* of variable length:
//! strings and bytes whose lengths are `u16` fields of the structure, in the order of [`Kind::parts`].

/// A kind of event.
#[derive(Debug)]
pub struct Kind {
    /// Number of the kind in [`Header::kind`](super::Header::kind); never used for another kind, 1 to 31.
    pub number: u32,
    /// Name, as `tracer trace` takes it and the JSON field `event` shows it.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// What is traced and what is not: a paragraph for the documentation.
    pub doc: &'static str,
    /// What it is good for: shown by `--help`.
    pub examples: &'static [Example],
    /// The oldest kernel that has what the kind needs: major and minor version.
    pub since: (u8, u8),
    /// What `--failed` selects; `None` if nothing of this kind can fail.
    pub failure: Option<&'static str>,
    /// Size of the structure that every record begins with, in bytes.
    pub record_size: usize,
    /// Offset of the kind's flags, a `u16`.
    pub flags_at: usize,
    /// Offsets of the `u16` lengths of the parts that follow the structure.
    pub parts: &'static [usize],
    /// The fields, in the order in which JSON shows them.
    pub fields: &'static [Field],
    /// The kind's own columns, in their order.
    pub columns: &'static [Column],
    /// System calls that are events of this kind.
    pub calls: &'static [SystemCall],
    /// The buffer in which the program at `sys_exit` puts their records together.
    pub call_buffer: Buffer,
    /// Programs that see the same calls without a cost for other calls; empty if there are none.
    pub fexit: &'static [Fexit],
    /// Programs at tracepoints.
    pub tracepoints: &'static [Tracepoint],
}

/// An example of `tracer trace KIND`.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// What it shows.
    pub shows: &'static str,
    /// The options behind the kind.
    pub options: &'static str,
}

impl Example {
    /// An example.
    #[must_use]
    pub const fn new(shows: &'static str, options: &'static str) -> Self {
        Self { shows, options }
    }
}

/// A field of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: &'static str,
    /// What is shown.
    pub value: Value,
    /// Flags of the record without which the field is absent; 0 for a field that is always there.
    pub when: u16,
    /// Whether many events in a row have the same value: its text is kept.
    pub steady: bool,
    /// One line of documentation.
    pub doc: &'static str,
}

/// The value of a field. Offsets are in bytes from the start of the record.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// An unsigned number at `at`, of `size` 1, 2, 4 or 8 bytes.
    Unsigned {
        /// Offset.
        at: usize,
        /// Size in bytes.
        size: u8,
    },
    /// An `i32` at that offset.
    Signed(usize),
    /// The file descriptor in the result of a call, an `i32` at that offset: -1 if the call has failed or its result is
    /// [`UNREPORTED`].
    FileDescriptor(usize),
    /// The error number in the result of a call, an `i32` at that offset: 0 if it has not failed.
    Errno(usize),
    /// The names of the bits that are set in a `u64` at `at`.
    Bits {
        /// Offset.
        at: usize,
        /// The names.
        names: &'static BitNames,
    },
    /// The name of the value of a `u8` at `at`; absent if it has none.
    Choice {
        /// Offset.
        at: usize,
        /// Values with their names.
        names: &'static [(u8, &'static str)],
    },
    /// Whether one of these flags of the record is set.
    Flag {
        /// The flags.
        mask: u16,
        /// Whether the field is absent if none is.
        only_true: bool,
    },
    /// The name of the first of these flags of the record that is set; absent if none is.
    FirstFlag(&'static [(u16, &'static str)]),
    /// The number of a signal, a `u8` at that offset, shown by name (`SIGKILL`); absent if it is 0.
    Signal(usize),
    /// Nanoseconds, a `u64` at that offset.
    Nanoseconds(usize),
    /// A part that is text: UTF-8 or not. If it is not, a field with `Hex` behind its name has the bytes.
    Text(u8),
    /// A part that is a list of texts, each with a NUL behind it, the last one perhaps without.
    Texts(u8),
    /// A part that is bytes, shown as hexadecimal digits.
    Bytes(u8),
    /// Fields of a JSON object.
    Object(&'static [Field]),
}

/// Result of a call that was not reported.
pub const UNREPORTED: i32 = i32::MIN;

/// Names of the bits of a number.
#[derive(Debug)]
pub struct BitNames {
    /// Names of the values that the lowest bits have as a number of their own; a power of two of them, or none.
    pub low: &'static [&'static str],
    /// The other bits. Of names whose bits include those of others, the larger come first.
    pub bits: &'static [(u64, &'static str)],
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub title: &'static str,
    /// Width in characters, where there is room for it.
    pub width: u8,
    /// What is shown.
    pub shows: Shows,
    /// Whether it is one of `wide` and `custom-columns` only.
    pub wide: bool,
    /// Whether any value but 0 marks a failure.
    pub alarm: bool,
}

/// What a column shows.
#[derive(Clone, Copy, Debug)]
pub enum Shows {
    /// The field with this name.
    Field(&'static str),
    /// The process id of the parent.
    Ppid,
    /// The field with this name, an error number, by its name: `ENOENT`, or `0`.
    Error(&'static str),
    /// Of the field with this name, bits, a letter for each of these names that is set.
    Letters(&'static str, &'static [(&'static str, &'static str)]),
    /// The arguments in the first field as one line, or, if there are none, the path in the second.
    CommandLine(&'static str, &'static str),
}

/// A system call of a kind, by its number in each of the kernel's tables. 0 where there is none: no kind traces `read`, the
/// only call with that number.
#[derive(Clone, Copy, Debug)]
pub struct SystemCall {
    /// Number that the kind's program knows the call by: 1 to 255.
    pub id: u8,
    /// x86_64 (arch/x86/entry/syscalls/syscall_64.tbl), the numbers of x32 without their mark.
    pub x86_64: u16,
    /// i386 (arch/x86/entry/syscalls/syscall_32.tbl).
    pub i386: u16,
    /// aarch64 (include/uapi/asm-generic/unistd.h).
    pub aarch64: u16,
    /// 32-bit arm (arch/arm64/tools/syscall_32.tbl).
    pub arm: u16,
}

/// The buffer in which a program puts a record together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// None: records fit on the stack.
    None,
    /// For records with a path at the most.
    Short,
    /// For records with arguments.
    Long,
}

/// A program at the return of a function of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Fexit {
    /// Name of the program in the object.
    pub program: &'static str,
    /// The buffer that it needs.
    pub buffer: Buffer,
    /// The function on x86_64.
    pub x86_64: Function,
    /// The function on aarch64.
    pub aarch64: Function,
}

/// A function of the kernel that a program is attached to.
#[derive(Clone, Copy, Debug)]
pub enum Function {
    /// Every kernel of that architecture has it.
    Required(&'static str),
    /// The first one, on kernels that have the second.
    With(&'static str, &'static str),
    /// There is nothing to attach to on this architecture.
    Absent,
}

impl Function {
    /// A function that not every kernel has.
    #[must_use]
    pub const fn optional(name: &'static str) -> Self {
        Self::With(name, name)
    }
}

/// A program at a tracepoint.
#[derive(Clone, Copy, Debug)]
pub struct Tracepoint {
    /// Name of the program in the object.
    pub program: &'static str,
    /// The buffer that it needs.
    pub buffer: Buffer,
    /// The tracepoint (`tp_btf`).
    pub tracepoint: &'static str,
    /// Whether it has to run before the programs that follow processes, which forget them at their exit.
    pub first: bool,
}

/// Bit of the kind with this number in a set of kinds.
#[must_use]
pub const fn bit(number: u32) -> u32 {
    1 << number
}

impl Kind {
    /// Bit of the kind in a set of kinds.
    #[must_use]
    pub const fn bit(&self) -> u32 {
        bit(self.number)
    }
}

impl Field {
    const fn new(name: &'static str, value: Value, doc: &'static str) -> Self {
        Self { name, value, when: 0, steady: false, doc }
    }

    /// A `u32`.
    #[must_use]
    pub const fn u32(name: &'static str, at: usize, doc: &'static str) -> Self {
        Self::new(name, Value::Unsigned { at, size: 4 }, doc)
    }

    /// A `u8`.
    #[must_use]
    pub const fn u8(name: &'static str, at: usize, doc: &'static str) -> Self {
        Self::new(name, Value::Unsigned { at, size: 1 }, doc)
    }

    /// An `i32`.
    #[must_use]
    pub const fn i32(name: &'static str, at: usize, doc: &'static str) -> Self {
        Self::new(name, Value::Signed(at), doc)
    }

    /// See [`Value::FileDescriptor`].
    #[must_use]
    pub const fn file_descriptor(name: &'static str, at: usize, doc: &'static str) -> Self {
        Self::new(name, Value::FileDescriptor(at), doc)
    }

    /// See [`Value::Errno`].
    #[must_use]
    pub const fn errno(name: &'static str, at: usize, doc: &'static str) -> Self {
        Self::new(name, Value::Errno(at), doc)
    }

    /// See [`Value::Bits`].
    #[must_use]
    pub const fn bits(name: &'static str, at: usize, names: &'static BitNames, doc: &'static str) -> Self {
        Self::new(name, Value::Bits { at, names }, doc)
    }

    /// See [`Value::Choice`].
    #[must_use]
    pub const fn choice(
        name: &'static str,
        at: usize,
        names: &'static [(u8, &'static str)],
        doc: &'static str,
    ) -> Self {
        Self::new(name, Value::Choice { at, names }, doc)
    }

    /// True if one of these flags is set, false if none is.
    #[must_use]
    pub const fn flag(name: &'static str, mask: u16, doc: &'static str) -> Self {
        Self::new(name, Value::Flag { mask, only_true: false }, doc)
    }

    /// True if one of these flags is set, absent if none is.
    #[must_use]
    pub const fn only_if(name: &'static str, mask: u16, doc: &'static str) -> Self {
        Self::new(name, Value::Flag { mask, only_true: true }, doc)
    }

    /// See [`Value::FirstFlag`].
    #[must_use]
    pub const fn first_flag(
        name: &'static str,
        names: &'static [(u16, &'static str)],
        doc: &'static str,
    ) -> Self {
        Self::new(name, Value::FirstFlag(names), doc)
    }

    /// See [`Value::Signal`].
    #[must_use]
    pub const fn signal(name: &'static str, at: usize, doc: &'static str) -> Self {
        Self::new(name, Value::Signal(at), doc)
    }

    /// See [`Value::Nanoseconds`].
    #[must_use]
    pub const fn nanoseconds(name: &'static str, at: usize, doc: &'static str) -> Self {
        Self::new(name, Value::Nanoseconds(at), doc)
    }

    /// See [`Value::Text`].
    #[must_use]
    pub const fn text(name: &'static str, part: u8, doc: &'static str) -> Self {
        Self::new(name, Value::Text(part), doc)
    }

    /// See [`Value::Texts`].
    #[must_use]
    pub const fn texts(name: &'static str, part: u8, doc: &'static str) -> Self {
        Self::new(name, Value::Texts(part), doc)
    }

    /// See [`Value::Bytes`].
    #[must_use]
    pub const fn bytes(name: &'static str, part: u8, doc: &'static str) -> Self {
        Self::new(name, Value::Bytes(part), doc)
    }

    /// See [`Value::Object`].
    #[must_use]
    pub const fn object(name: &'static str, fields: &'static [Field], doc: &'static str) -> Self {
        Self::new(name, Value::Object(fields), doc)
    }

    /// Only in records with one of these flags.
    #[must_use]
    pub const fn when(self, flags: u16) -> Self {
        Self { when: flags, ..self }
    }

    /// With a value that many events in a row have.
    #[must_use]
    pub const fn steady(self) -> Self {
        Self { steady: true, ..self }
    }
}

impl Column {
    /// A column that shows a field.
    #[must_use]
    pub const fn field(title: &'static str, width: u8, field: &'static str) -> Self {
        Self::new(title, width, Shows::Field(field))
    }

    /// A column that shows this.
    #[must_use]
    pub const fn new(title: &'static str, width: u8, shows: Shows) -> Self {
        Self { title, width, shows, wide: false, alarm: false }
    }

    /// Only in `wide` and `custom-columns`.
    #[must_use]
    pub const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }

    /// With values that mark failures, unless they are 0.
    #[must_use]
    pub const fn alarm(self) -> Self {
        Self { alarm: true, ..self }
    }
}

impl Fexit {
    /// The function on the architecture that this is compiled for.
    #[must_use]
    pub const fn function(&self) -> Function {
        if cfg!(target_arch = "aarch64") { self.aarch64 } else { self.x86_64 }
    }
}

impl SystemCall {
    /// Its numbers on the architecture that this is compiled for: of 64-bit programs, and of 32-bit ones.
    #[must_use]
    pub const fn numbers(&self) -> [u16; 2] {
        if cfg!(target_arch = "aarch64") { [self.aarch64, self.arm] } else { [self.x86_64, self.i386] }
    }
}
