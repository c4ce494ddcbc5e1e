//! What sees the files that io_uring opens, which is not a system call for each.

use tracer_common::kinds::{
    open,
    schema::{Buffer, Kind, Tracepoint},
};

use crate::bpf::{btf::KernelTypes, programs::Hooked};

/// The kernel's tracepoints of io_uring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uring {
    pub(crate) programs: Vec<Hooked>,
    /// Which argument of the first one is the request.
    pub(crate) request_argument: u32,
    /// Whether the second one has the result as an argument.
    pub(crate) has_result: bool,
    /// Which argument of the one for refused entries is the error.
    pub(crate) error_argument: u32,
}

impl Uring {
    /// As this kernel has them, if opens are traced; `None` if they do not identify the request that they are about.
    pub(crate) fn of_kernel(kinds: &[&'static Kind], types: &KernelTypes) -> Option<Self> {
        let position = kinds.iter().position(|kind| kind.number == open::NUMBER)?;
        Self::find(position, |tracepoint| types.tracepoint_arguments(tracepoint))
    }

    fn find<'t>(position: usize, arguments: impl Fn(&str) -> Option<Vec<&'t str>>) -> Option<Self> {
        let (target, of_submission) = ["io_uring_submit_req", "io_uring_submit_sqe"]
            .into_iter()
            .find_map(|target| Some((target, arguments(target)?)))?;
        let request_argument = match of_submission[..] {
            ["io_kiocb", ..] => 0,
            // The ring, then the request.
            ["void", "void", ..] => 1,
            _ => return None,
        };
        let of_completion = arguments("io_uring_complete")?;
        if !matches!(of_completion.get(1), Some(&("void" | "io_kiocb"))) {
            return None;
        }
        let hooked = |program, buffer, tracepoint| {
            Hooked::at_tracepoint(&Tracepoint { program, buffer, tracepoint, first: false }, vec![position])
        };
        let mut programs = vec![
            // What is submitted is complete later.
            hooked("uring_complete", Buffer::None, "io_uring_complete"),
            hooked("uring_submit", Buffer::Short, target),
        ];
        let overflow = "io_uring_cqe_overflow";
        if arguments(overflow).is_some() {
            programs.insert(0, hooked("uring_overflow", Buffer::None, overflow));
        }
        let refusal = "io_uring_req_failed";
        let of_refusal = arguments(refusal).unwrap_or_default();
        let error_argument = match of_refusal[..] {
            ["io_uring_sqe", _, _] => 2,
            ["io_uring_sqe", _, _, _] => 3,
            _ => 0,
        };
        if error_argument > 0 {
            programs.push(hooked("uring_refusal", Buffer::Short, refusal));
        }
        Some(Self { programs, request_argument, has_result: of_completion.len() > 3, error_argument })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tracepoints, with the arguments that kernels of these versions have.
    fn uring(submission: (&str, &[&'static str]), completion: &[&'static str]) -> Option<Uring> {
        Uring::find(0, |tracepoint| match tracepoint {
            "io_uring_complete" => Some(completion.to_vec()),
            _ if tracepoint == submission.0 => Some(submission.1.to_vec()),
            _ => None,
        })
    }

    #[test]
    fn request_is_found_among_the_arguments_of_every_kernel() {
        let arguments = |found: Option<Uring>| found.map(|found| (found.request_argument, found.has_result));
        let newest = uring(("io_uring_submit_req", &["io_kiocb"]), &["io_ring_ctx", "void", "io_uring_cqe"]);
        assert_eq!(arguments(newest), Some((0, false)));
        let result = ["void", "void", "", "", "", "", ""];
        let of_6_1 = uring(("io_uring_submit_sqe", &["io_kiocb", ""]), &result);
        assert_eq!(arguments(of_6_1), Some((0, true)));
        let of_5_18 = uring(("io_uring_submit_sqe", &["void", "void", "", "", "", "", ""]), &result);
        assert_eq!(arguments(of_5_18), Some((1, true)));
        assert_eq!(uring(("io_uring_submit_sqe", &["void", "", "", "", ""]), &["void", "", ""]), None);
        assert_eq!(uring(("io_uring_submit_sqe", &["void", "void", ""]), &["void", "", ""]), None);
    }
}
