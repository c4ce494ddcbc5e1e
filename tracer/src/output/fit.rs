//! Fits the columns of a table to a terminal.

use crate::output::columns::{Column, NODE, Rows};

/// What a column gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitted {
    /// So many characters.
    Width(usize),
    /// It is left out.
    Hidden,
}

/// The columns that are left out where there is no room for them, in this order.
const HIDDEN: [&str; 2] = [NODE, "FD"];
/// No column is made narrower, or not to this anyway where its name is longer.
const WIDTH_MIN: usize = 8;
/// The column with what people look for: it is made narrower after the others, and not as narrow.
const POD: &str = "POD";
const POD_MIN: usize = 12;
/// A part of a time says nothing.
const TIME: &str = "TIME";
/// A last column that is at least so wide, like a path, is what people look for: it is not made narrower than [`LAST_MIN`].
const LAST: usize = 32;
/// Rows that are longer for that are wrapped by the terminal.
const LAST_MIN: usize = 40;

/// The widths of columns on a terminal, or elsewhere. What all want is left out or taken away where it does not fit; what is left
/// over goes to the last column.
pub(super) fn fit<K: Rows>(columns: &[Column<K>], terminal: Option<usize>, may_hide: bool) -> Vec<Fitted> {
    let mut fitted: Vec<Fitted> = columns.iter().map(|column| Fitted::Width(column.width())).collect();
    let (Some(terminal), Some((last, others))) = (terminal, columns.split_last()) else { return fitted };
    fitted[others.len()] = Fitted::Width(if last.width() < LAST { last.width() } else { LAST_MIN });
    for name in HIDDEN {
        if may_hide
            && total(&fitted) > terminal
            && let Some(index) = others.iter().position(|column| column.name() == name)
        {
            fitted[index] = Fitted::Hidden;
        }
    }
    let least = |column: &Column<K>| {
        let least = match column.name() {
            POD => POD_MIN,
            TIME => column.width(),
            _ => WIDTH_MIN,
        };
        least.max(column.name().len())
    };
    while total(&fitted) > terminal {
        let wider = fitted.iter_mut().zip(others).filter_map(|(fitted, column)| match fitted {
            Fitted::Width(width) if *width > least(column) => Some((column.name() != POD, width)),
            _ => None,
        });
        match wider.max_by_key(|(is_other, width)| (*is_other, **width)) {
            Some((_, widest)) => *widest -= 1,
            // A terminal too narrow for all of them.
            None => return fitted,
        }
    }
    let left = terminal - total(&fitted);
    if let Some(Fitted::Width(width)) = fitted.last_mut() {
        *width += left;
    }
    fitted
}

/// How wide a row is, with a blank between columns.
fn total(fitted: &[Fitted]) -> usize {
    let widths = fitted.iter().map(|fitted| match fitted {
        Fitted::Width(width) => width + 1,
        Fitted::Hidden => 0,
    });
    widths.sum::<usize>().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(name: &'static str, width: usize) -> Column {
        Column::new(name, width, |_, _| Ok(()))
    }

    fn widths(columns: &[(&'static str, usize)], terminal: usize) -> Vec<Option<usize>> {
        let columns: Vec<Column> = columns.iter().map(|(name, width)| column(name, *width)).collect();
        let width = |fitted: Fitted| match fitted {
            Fitted::Width(width) => Some(width),
            Fitted::Hidden => None,
        };
        fit(&columns, Some(terminal), true).into_iter().map(width).collect()
    }

    /// Columns of opens, as wide as a pod of a deployment needs.
    const OPENS: [(&str, usize); 8] = [
        ("NODE", 8),
        ("NAMESPACE", 11),
        ("POD", 24),
        ("CONTAINER", 9),
        ("PID", 7),
        ("COMM", 15),
        ("FD", 4),
        ("PATH", 32),
    ];

    #[test]
    fn path_keeps_its_room_and_the_node_goes_first() {
        assert_eq!(widths(&OPENS, 200)[7], Some(200 - 8 - 11 - 24 - 9 - 7 - 15 - 4 - 7));
        let narrower: [Option<usize>; 8] =
            [None, Some(11), Some(24), Some(9), Some(7), Some(15), Some(4), Some(44)];
        assert_eq!(widths(&OPENS, 120), narrower);
        let narrow = [None, Some(9), Some(12), Some(9), Some(7), Some(8), None, Some(40)];
        assert_eq!(widths(&OPENS, 86), narrow);
    }

    #[test]
    fn path_of_forty_characters_is_whole_at_any_width() {
        for terminal in [20, 50, 80, 100, 120, 200] {
            assert!(widths(&OPENS, terminal)[7] >= Some(40), "{terminal}");
        }
    }

    proptest! {
        #[test]
        fn rows_fit_where_there_is_room(
            widths in prop::collection::vec(1..60_usize, 1..12),
            terminal in 0..300_usize,
        ) {
            let columns: Vec<Column> = widths.iter().map(|width| column("X", *width)).collect();
            let fitted = fit(&columns, Some(terminal), false);
            let (last, others) = widths.split_last().unwrap();
            let least: usize = others.iter().map(|width| (*width).min(WIDTH_MIN) + 1).sum();
            let least = least + if *last < LAST { *last } else { LAST_MIN };
            prop_assert_eq!(total(&fitted), terminal.max(least));
        }
    }
}
