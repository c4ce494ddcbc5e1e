//! How long ago something was, as kubectl shows it.

const MINUTE: i128 = 60;
const HOUR: i128 = 60 * MINUTE;
const DAY: i128 = 24 * HOUR;
const YEAR: i128 = 365 * DAY;

/// The age of what began `nanoseconds` ago: the less exact the older, in two units where the second one tells much.
/// The clocks of who notes a time and who reads it may differ by a second, so the future begins behind that.
pub(crate) fn format(nanoseconds: i128) -> String {
    match nanoseconds / 1_000_000_000 {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        seconds if seconds < 2 * MINUTE => format!("{seconds}s"),
        seconds if seconds < 10 * MINUTE => in_two(seconds, (MINUTE, "m"), (1, "s")),
        seconds if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        seconds if seconds < 8 * HOUR => in_two(seconds, (HOUR, "h"), (MINUTE, "m")),
        seconds if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        seconds if seconds < 8 * DAY => in_two(seconds, (DAY, "d"), (HOUR, "h")),
        seconds if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        seconds if seconds < 8 * YEAR => in_two(seconds, (YEAR, "y"), (DAY, "d")),
        seconds => format!("{}y", seconds / YEAR),
    }
}

/// In two units, or one where nothing is left for the second.
fn in_two(seconds: i128, large: (i128, &str), small: (i128, &str)) -> String {
    match seconds % large.0 / small.0 {
        0 => format!("{}{}", seconds / large.0, large.1),
        rest => format!("{}{}{rest}{}", seconds / large.0, large.1, small.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectls() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (45, "45s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (9 * MINUTE + 59, "9m59s"),
            (10 * MINUTE + 1, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 12 * MINUTE + 59, "3h12m"),
            (8 * HOUR - 1, "7h59m"),
            (8 * HOUR + 59 * MINUTE, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (5 * DAY, "5d"),
            (7 * DAY + 23 * HOUR + 59, "7d23h"),
            (8 * DAY + HOUR, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + 9 * DAY, "2y9d"),
            (8 * YEAR - 1, "7y364d"),
            (8 * YEAR + 9 * DAY, "8y"),
        ] {
            assert_eq!(format(seconds * 1_000_000_000), text, "{seconds} s");
        }
        assert_eq!(format(999_999_999), "0s");
        assert_eq!(format(-1_999_999_999), "0s");
    }
}
