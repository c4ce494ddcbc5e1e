//! Inputs that hold several pieces: each has a byte that says what it is, its length (16 bits, little-endian) and so many
//! bytes. Whatever the bytes, they are a script; the last piece ends where they do.

/// A piece: what it is, and its bytes.
pub type Piece<'a> = (u8, &'a [u8]);

/// Reads the pieces of a script.
pub(super) fn pieces(mut script: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        let ([what, low, high], rest) = script.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (piece, rest) = rest.split_at(len);
        script = rest;
        Some((*what, piece))
    })
}

/// Makes a script of pieces.
pub(super) fn of(pieces: &[Piece<'_>]) -> Vec<u8> {
    let bytes = |(what, piece): &Piece<'_>| {
        let len = u16::try_from(piece.len()).unwrap().to_le_bytes();
        [&[*what], &len[..], piece].concat()
    };
    pieces.iter().flat_map(bytes).collect()
}
