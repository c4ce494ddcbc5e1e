//! What is asked of an event besides its container: the values that a map lists, or all but those.

/// Value of a filter's global: every value matches.
pub const ANY: u32 = 0;
/// Value of a filter's global: only what its map lists.
pub const ONLY: u32 = 1;
/// Value of a filter's global: all but what its map lists.
pub const EXCEPT: u32 = 2;
