//! Points in time as text.

use std::{cell::RefCell, fmt::Write as _};

use jiff::{Timestamp, tz::TimeZone};

/// RFC 3339 in UTC, to the nanosecond.
pub(crate) fn format_timestamp(nanoseconds: i128) -> String {
    let mut text = String::with_capacity(30);
    if let Ok(timestamp) = Timestamp::from_nanosecond(nanoseconds) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{timestamp:.9}");
    }
    text
}

/// Appends the time of day in the local time zone, to the millisecond.
pub(crate) fn write_time(nanoseconds: i128, out: &mut Vec<u8>) {
    thread_local! {
        /// The second that was shown last, and its text up to the point before its fraction.
        static LAST: RefCell<(i128, String)> = const { RefCell::new((i128::MIN, String::new())) };
    }
    let (second, fraction) = (nanoseconds.div_euclid(SECOND), nanoseconds.rem_euclid(SECOND));
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            (*last, *text) = (second, time_of_day(nanoseconds, TimeZone::system()));
        }
        out.extend_from_slice(text.as_bytes());
    });
    let fraction = nine_digits(u32::try_from(fraction).unwrap_or(0));
    out.push(b'.');
    out.extend_from_slice(&fraction[..3]);
}

/// The time of day to the second.
fn time_of_day(nanoseconds: i128, zone: TimeZone) -> String {
    let timestamp = Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = timestamp.to_zoned(zone).time();
    format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

const SECOND: i128 = 1_000_000_000;
/// `2026-11-20T22:15:01.`
const UP_TO_FRACTION: usize = 20;

/// Writes timestamps, most of which are in the same second as the one before.
#[derive(Debug)]
pub(crate) struct Timestamps {
    /// The last second's beginning, in nanoseconds since 1970; none before the first.
    second: Option<i128>,
    /// That second, up to the point before its fraction.
    text: [u8; UP_TO_FRACTION],
}

impl Timestamps {
    pub(crate) const fn new() -> Self {
        Self { second: None, text: [0; UP_TO_FRACTION] }
    }

    /// Appends what [`format_timestamp`] makes of it.
    pub(crate) fn append(&mut self, nanoseconds: i128, out: &mut Vec<u8>) {
        let since = self.second.map(|second| nanoseconds.wrapping_sub(second));
        match since.map(u32::try_from) {
            Some(Ok(fraction)) if i128::from(fraction) < SECOND => {
                out.extend_from_slice(&self.text);
                out.extend_from_slice(&nine_digits(fraction));
                out.push(b'Z');
            }
            _ => self.append_other(nanoseconds, out),
        }
    }

    #[cold]
    fn append_other(&mut self, nanoseconds: i128, out: &mut Vec<u8>) {
        let text = format_timestamp(nanoseconds);
        out.extend_from_slice(text.as_bytes());
        // Years with other than four digits have other lengths.
        self.second = None;
        if let (30, Some(start)) = (text.len(), text.as_bytes().first_chunk()) {
            self.second = Some(nanoseconds - nanoseconds.rem_euclid(SECOND));
            self.text = *start;
        }
    }
}

/// The digits of a number below 10^9, with zeros before it.
fn nine_digits(number: u32) -> [u8; 9] {
    let digit = |power: u32| b'0' + u8::try_from(number / power % 10).unwrap_or(0);
    [
        digit(100_000_000),
        digit(10_000_000),
        digit(1_000_000),
        digit(100_000),
        digit(10_000),
        digit(1_000),
        digit(100),
        digit(10),
        digit(1),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_have_nine_digits_always() {
        assert_eq!(format_timestamp(1_700_000_000_000_000_000), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(format_timestamp(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123456789Z");
    }

    #[test]
    fn time_is_of_the_day_in_its_zone() {
        let zone = |hours| TimeZone::fixed(jiff::tz::offset(hours));
        assert_eq!(time_of_day(1_700_000_000_123_456_789, zone(0)), "22:13:20");
        assert_eq!(time_of_day(1_700_000_000_999_999_999, zone(2)), "00:13:20");
        assert_eq!(time_of_day(i128::MAX, zone(0)), "00:00:00");
        for (nanoseconds, fraction) in
            [(1_700_000_000_123_999_999, ".123"), (1_700_000_000_000_000_000, ".000")]
        {
            let mut out = Vec::new();
            write_time(nanoseconds, &mut out);
            assert!(String::from_utf8(out).unwrap().ends_with(fraction));
        }
    }

    /// Points in time close to each other, to the ends of what has a date, and any.
    fn any_time() -> impl Strategy<Value = i128> {
        prop_oneof![
            (0..3 * SECOND).prop_map(|since| 1_700_000_000 * SECOND + since),
            -2 * SECOND..2 * SECOND,
            (0..3 * SECOND).prop_map(|since| 253_402_207_200 * SECOND - since),
            // The year 0, before which years have a sign and six digits.
            (-2 * SECOND..2 * SECOND).prop_map(|since| -62_167_219_200 * SECOND + since),
            any::<i128>(),
        ]
    }

    proptest! {
        #[test]
        fn timestamps_in_a_row_are_the_same_as_one_by_one(times in prop::collection::vec(any_time(), 0..20)) {
            let mut timestamps = Timestamps::new();
            for time in times {
                let mut out = Vec::new();
                timestamps.append(time, &mut out);
                prop_assert_eq!(String::from_utf8(out).unwrap(), format_timestamp(time));
            }
        }
    }
}
