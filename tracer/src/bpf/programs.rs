//! The programs that a run may load, and how they are numbered.

use tracer_common::{
    kinds::schema::{Buffer, Fexit, Function, Kind, Tracepoint},
    programs::{LIFECYCLE, SYS_EXIT, SYS_EXIT_EVENT, indices},
};

/// A program, and what it is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hooked {
    /// Its name, which that of its globals is made of.
    pub(crate) program: &'static str,
    /// Name in the object of the program that is loaded: of several variants the one for this target.
    pub(crate) name: &'static str,
    /// The tracepoint or function.
    pub(crate) target: &'static str,
    buffer: Buffer,
    /// Whether the target is a function.
    at_function: bool,
    /// The kinds of which it sees events, by position.
    kinds: Vec<usize>,
}

/// What a program counts: for one kind of event, or for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// The global by which the program finds its values.
    global: String,
    /// The position of the kind.
    pub(crate) kind: Option<usize>,
    /// The buffer that it uses for that.
    buffer: Buffer,
}

impl Hooked {
    /// A program at a tracepoint, which sees events of these kinds.
    pub(crate) fn at_tracepoint(tracepoint: &Tracepoint, kinds: Vec<usize>) -> Self {
        let Tracepoint { program, buffer, tracepoint: target, .. } = *tracepoint;
        Self { program, name: program, target, buffer, at_function: false, kinds }
    }

    /// A program at the return of a function, unless this kernel or architecture has no such function.
    fn at_function(fexit: &Fexit, kind: usize, has_function: &impl Fn(&str) -> bool) -> Option<Self> {
        let target = match fexit.function() {
            Function::Required(function) => function,
            Function::With(function, other) => has_function(other).then_some(function)?,
            Function::Absent => return None,
        };
        Some(Self {
            program: fexit.program,
            name: fexit.program,
            target,
            buffer: fexit.buffer,
            at_function: true,
            kinds: vec![kind],
        })
    }

    /// The programs at the return of functions that see all calls of these kinds; `None` if there are none for one of them.
    pub(crate) fn all_at_functions(
        kinds: &[&'static Kind],
        has_function: impl Fn(&str) -> bool,
    ) -> Option<Vec<Self>> {
        let mut programs = Vec::new();
        for (position, kind) in with_calls(kinds) {
            if kind.fexit.is_empty() {
                return None;
            }
            programs.extend(
                kind.fexit.iter().filter_map(|fexit| Self::at_function(fexit, position, &has_function)),
            );
        }
        (!programs.is_empty()).then_some(programs)
    }

    /// The program that sees the return of every system call, for these kinds.
    pub(crate) fn at_sys_exit(kinds: &[&'static Kind]) -> Self {
        Self::at_tracepoint(&SYS_EXIT, with_calls(kinds).map(|(position, _)| position).collect())
    }

    /// The same at the event that the kernel makes of it.
    pub(crate) fn at_event(self) -> Self {
        Self { name: SYS_EXIT_EVENT, ..self }
    }

    /// Whether it is attached to an event of the kernel's tracing.
    pub(crate) fn is_at_event(&self) -> bool {
        self.name == SYS_EXIT_EVENT
    }

    /// Whether a run of it that the kernel skips is a process whose container may stay unknown.
    pub(crate) fn follows_processes(&self) -> bool {
        LIFECYCLE.iter().any(|lifecycle| lifecycle.program == self.program)
    }

    /// The first kind of which it sees events.
    pub(crate) fn first_kind(&self) -> Option<usize> {
        self.kinds.first().copied()
    }

    /// What it counts.
    pub(crate) fn shares(&self, kinds: &[&'static Kind]) -> Vec<Share> {
        let global = self.program.to_ascii_uppercase();
        if self.program != SYS_EXIT.program {
            return vec![Share { global, kind: self.first_kind(), buffer: self.buffer }];
        }
        let of_kind = |position: &usize| {
            let Kind { name, call_buffer: buffer, .. } = *kinds.get(*position)?;
            let global = format!("{global}_{}", name.to_ascii_uppercase());
            Some(Share { global, kind: Some(*position), buffer: *buffer })
        };
        let of_kinds: Vec<Share> = self.kinds.iter().filter_map(of_kind).collect();
        [vec![Share { global, kind: None, buffer: Buffer::None }], of_kinds].concat()
    }
}

/// The kinds whose events are system calls, with their positions.
fn with_calls(kinds: &[&'static Kind]) -> impl Iterator<Item = (usize, &'static Kind)> {
    kinds
        .iter()
        .enumerate()
        .filter(|(_, kind)| !kind.calls.is_empty())
        .map(|(position, kind)| (position, *kind))
}

/// Whether some kind's events are system calls.
pub(crate) fn any_with_calls(kinds: &[&'static Kind]) -> bool {
    with_calls(kinds).next().is_some()
}

/// The programs at tracepoints of these kinds, that run before those which follow processes, or after them.
pub(crate) fn at_tracepoints(kinds: &[&'static Kind], first: bool) -> Vec<Hooked> {
    let of_kind = |(position, kind): (usize, &&'static Kind)| {
        let these = kind.tracepoints.iter().filter(move |tracepoint| tracepoint.first == first);
        these.map(move |tracepoint| Hooked::at_tracepoint(tracepoint, vec![position])).collect::<Vec<_>>()
    };
    kinds.iter().enumerate().flat_map(of_kind).collect()
}

/// The programs that follow processes.
pub(crate) fn lifecycle() -> [Hooked; 3] {
    LIFECYCLE.map(|tracepoint| Hooked::at_tracepoint(&tracepoint, Vec::new()))
}

/// Which values of the maps each program has for its own.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    /// The globals, with what they are set to.
    pub(crate) globals: Vec<(String, u64)>,
    /// How many values there are.
    pub(crate) counts: Counts,
}

/// How many values there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Of `STATE`.
    pub(crate) states: u32,
    /// Buffers for records with arguments, on each CPU.
    pub(crate) long: u32,
    /// Buffers for records without.
    pub(crate) short: u32,
    /// The buffers of all programs at tracepoints: with arguments, and without.
    at_tracepoints: (Option<u32>, Option<u32>),
}

impl Numbering {
    /// Numbers all programs that may be loaded: those that are, and those of one of several ways. Ways are never used
    /// together, and share values.
    ///
    /// The kernel may run a program at a function in the middle of another program, so it has a buffer of its own. Programs at
    /// tracepoints run with preemption disabled (`tracer-ebpf/src/preemption.rs`), and those with buffers not in
    /// interrupts: they run one at a time on a CPU, and share them.
    pub(crate) fn new<'a>(
        programs: impl IntoIterator<Item = &'a Hooked>,
        ways: impl IntoIterator<Item = &'a [Hooked]>,
        kinds: &[&'static Kind],
    ) -> Self {
        let mut numbering = Self::default();
        for hooked in programs {
            numbering.number(hooked, kinds);
        }
        let required = numbering.counts;
        // The kernel makes no map without an entry.
        let mut most = Counts { long: required.long.max(1), short: required.short.max(1), ..required };
        for programs in ways {
            numbering.counts = required;
            for hooked in programs {
                numbering.number(hooked, kinds);
            }
            most = most.max(numbering.counts);
        }
        Self { counts: most, ..numbering }
    }

    fn number(&mut self, hooked: &Hooked, kinds: &[&'static Kind]) {
        let Counts { states, long, short, at_tracepoints } = &mut self.counts;
        let mut own = (None, None);
        let (own_long, own_short) = if hooked.at_function { &mut own } else { at_tracepoints };
        for Share { global, buffer, .. } in hooked.shares(kinds) {
            // Variants of one program have the same globals.
            if self.globals.iter().any(|(known, _)| *known == global) {
                continue;
            }
            let buffer = match buffer {
                Buffer::None => 0,
                Buffer::Short => *own_short.get_or_insert_with(|| post_increment(short)),
                Buffer::Long => *own_long.get_or_insert_with(|| post_increment(long)),
            };
            self.globals.push((global, indices(post_increment(states), buffer)));
        }
    }

    /// The index into `STATE` of what a program counts.
    pub(crate) fn state(&self, share: &Share) -> Option<u32> {
        let (_, indices) = self.globals.iter().find(|(global, _)| *global == share.global)?;
        Some(tracer_common::programs::state_index(*indices))
    }
}

impl Counts {
    fn max(self, other: Self) -> Self {
        Self {
            states: self.states.max(other.states),
            long: self.long.max(other.long),
            short: self.short.max(other.short),
            ..self
        }
    }
}

fn post_increment(number: &mut u32) -> u32 {
    let before = *number;
    *number += 1;
    before
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSymbol as _};
    use tracer_common::{kinds::KINDS, programs::buffer_index};

    use super::*;
    use crate::bpf::load::OBJECT;

    fn all_kinds() -> Vec<&'static Kind> {
        KINDS.iter().collect()
    }

    /// Every program that any run may load: those that are, and those of each way.
    fn all_programs(kinds: &[&'static Kind]) -> (Vec<Hooked>, [Vec<Hooked>; 3]) {
        let functions = kinds.iter().enumerate().flat_map(|(position, kind)| {
            kind.fexit.iter().map(move |fexit| Hooked {
                program: fexit.program,
                name: fexit.program,
                target: "",
                buffer: fexit.buffer,
                at_function: true,
                kinds: vec![position],
            })
        });
        let mut required = at_tracepoints(kinds, true);
        required.extend(lifecycle());
        required.extend(at_tracepoints(kinds, false));
        let sys_exit = Hooked::at_sys_exit(kinds);
        (required, [functions.collect(), vec![sys_exit.clone()], vec![sys_exit.at_event()]])
    }

    #[test]
    fn no_two_programs_of_a_run_have_the_same_state_or_buffer() {
        let kinds = all_kinds();
        let (required, ways) = all_programs(&kinds);
        let numbering = Numbering::new(&required, ways.iter().map(Vec::as_slice), &kinds);
        for way in &ways {
            let shares = required.iter().chain(way).flat_map(|hooked| hooked.shares(&kinds));
            let mut states: Vec<u32> = shares.map(|share| numbering.state(&share).unwrap()).collect();
            let all = states.len();
            states.sort_unstable();
            states.dedup();
            assert_eq!(states.len(), all, "{way:?}");
            assert!(states.iter().all(|state| *state < numbering.counts.states));
        }
        for (way, buffer) in ways.iter().flat_map(|way| [(way, Buffer::Long), (way, Buffer::Short)]) {
            let mut taken = Vec::new();
            for hooked in required.iter().chain(way) {
                let shares = hooked.shares(&kinds).into_iter().filter(|share| share.buffer == buffer);
                let mut own: Vec<u32> = shares
                    .map(|share| {
                        let of_share = |(global, _): &&(String, u64)| *global == share.global;
                        buffer_index(numbering.globals.iter().find(of_share).unwrap().1)
                    })
                    .collect();
                own.dedup();
                assert!(own.len() <= 1, "{hooked:?}");
                assert!(!hooked.at_function || own.iter().all(|index| !taken.contains(index)), "{hooked:?}");
                taken.extend(own);
            }
            let count = if buffer == Buffer::Long { numbering.counts.long } else { numbering.counts.short };
            assert!(taken.iter().all(|index| *index < count), "{taken:?} of {count}");
        }
    }

    #[test]
    fn object_has_every_declared_program_and_its_globals() {
        let file = object::File::parse(OBJECT).unwrap();
        let symbols: Vec<&str> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
        let kinds = all_kinds();
        let (required, ways) = all_programs(&kinds);
        for hooked in required.into_iter().chain(ways.into_iter().flatten()) {
            assert!(symbols.contains(&hooked.name), "{hooked:?}");
            for share in hooked.shares(&kinds) {
                assert!(symbols.contains(&share.global.as_str()), "{share:?}");
            }
        }
    }

    #[test]
    fn programs_without_a_function_to_attach_to_are_left_out() {
        let open = [&KINDS[0]];
        let programs = Hooked::all_at_functions(&open, |_| false).unwrap();
        assert_eq!(
            programs.iter().map(|hooked| hooked.name).collect::<Vec<_>>(),
            ["open_return", "openat2_return"]
        );
        assert_eq!(Hooked::all_at_functions(&all_kinds(), |_| true), None, "exec has no such programs");
    }
}
