//! Lines out of bytes that come in pieces, of bounded length.

/// A line, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// As much of it as is kept, since it is too long, or did not end.
    Cut(&'a [u8]),
}

/// What has come of a line so far.
#[derive(Debug)]
pub(super) struct Lines {
    /// How much of a line is kept, in bytes.
    max: usize,
    begun: Vec<u8>,
    /// Whether the line goes on behind what is kept.
    cut: bool,
}

impl Lines {
    pub(super) const fn new(max: usize) -> Self {
        Self { max, begun: Vec::new(), cut: false }
    }

    /// Hands over each line that ends in `bytes`, and keeps what begins there.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.begun.is_empty() && !self.cut && line.len() <= self.max {
                each(Line::Whole(line));
                continue;
            }
            self.keep(line);
            each(if self.cut { Line::Cut(&self.begun) } else { Line::Whole(&self.begun) });
            self.reset();
        }
        self.keep(bytes);
    }

    /// Hands over what began and did not end.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.begun.is_empty() || self.cut {
            each(Line::Cut(&self.begun));
        }
        self.reset();
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.max - self.begun.len();
        self.cut |= bytes.len() > room;
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn reset(&mut self) {
        /// What is kept for the next line, in bytes: most have room.
        const USUAL: usize = 8192;
        self.begun.clear();
        self.begun.shrink_to(USUAL);
        self.cut = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(max: usize, pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let (mut lines, mut found) = (Lines::new(max), Vec::new());
        let mut each = |line: Line<'_>| match line {
            Line::Whole(line) => found.push((true, line.to_owned())),
            Line::Cut(line) => found.push((false, line.to_owned())),
        };
        for piece in pieces {
            lines.feed(piece, &mut each);
        }
        lines.finish(&mut each);
        found
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        let expected = [(false, b"abc".to_vec()), (true, b"xyz".to_vec()), (false, b"e".to_vec())];
        assert_eq!(lines(3, &[b"abcd", b"efg\nxyz\ne"]), expected);
        assert_eq!(lines(3, &[b"abcdefg\nxyz\ne"]), expected);
        assert_eq!(lines(3, &[b"", b"\n", b""]), [(true, vec![])]);
    }

    proptest! {
        #[test]
        fn how_it_is_cut_into_pieces_does_not_matter(
            text in "[ab\n]{0,60}",
            cuts in prop::collection::vec(0..60_usize, 0..6),
            max in 1..10_usize,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([text.len()]);
            let starts = [0].into_iter().chain(cuts.iter().copied());
            let pieces: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &text.as_bytes()[start..end]).collect();
            prop_assert_eq!(lines(max, &pieces), lines(max, &[text.as_bytes()]));
        }
    }
}
