//! Answers of control as people read them: columns, lines of facts, figures with units.
//!
//! Takes whatever JSON there is: a control of another version may say more, or less. What came from elsewhere never moves the cursor of a
//! terminal.

use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use serde_json::Value;

/// Rows under heads. A column in which nothing stands is not shown. The last one may be long.
pub(crate) struct Table<const COLUMNS: usize> {
    heads: [&'static str; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) const fn new(heads: [&'static str; COLUMNS]) -> Self {
        Self { heads, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, heads first; none without rows.
    pub(crate) fn lines(&self) -> Vec<String> {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let shown: Vec<(usize, usize)> =
            (0..COLUMNS).map(|column| (column, width(column))).filter(|(_, width)| *width > 0).collect();
        let line = |cells: [&str; COLUMNS]| {
            let cells = shown.iter().map(|(column, width)| {
                let (cell, width) = (cells[*column], (*width).max(self.heads[*column].chars().count()));
                format!("{cell:width$}")
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let rows = self.rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
        if self.is_empty() { Vec::new() } else { std::iter::once(line(self.heads)).chain(rows).collect() }
    }
}

/// A value in words; nothing for what is not there.
pub(crate) fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), |number| HumanCount(number).to_string()),
        Value::Array(values) => values.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(_) => plain(&value.to_string()),
    }
}

/// `text` without characters that a terminal obeys.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

/// Bytes with a unit.
pub(crate) fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(|| words(value), |bytes| HumanBytes(bytes).to_string())
}

/// Milliseconds of a film: "1:32:05".
pub(crate) fn clock(value: &Value) -> String {
    let shown = |ms: u64| format!("{}:{:02}:{:02}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    value.as_u64().map_or_else(|| words(value), shown)
}

/// Milliseconds that something is past: "2.1 s ago", "3 hours ago".
pub(crate) fn ago(value: &Value) -> String {
    let shown = |ms: u64| match ms {
        ..60_000 => format!("{:.1} s ago", ms as f64 / 1000.0),
        _ => format!("{} ago", HumanDuration(Duration::from_millis(ms))),
    };
    value.as_u64().map_or_else(|| words(value), shown)
}

/// Lines of what is there among `facts`: a name, and what is said of it.
pub(crate) fn facts<N: AsRef<str>>(facts: impl IntoIterator<Item = (N, String)>) -> Vec<String> {
    let facts: Vec<_> = facts.into_iter().filter(|(_, said)| !said.is_empty()).collect();
    let width = facts.iter().map(|(name, _)| name.as_ref().chars().count()).max().unwrap_or(0);
    facts.iter().map(|(name, said)| format!("  {:width$}  {said}", name.as_ref())).collect()
}

/// All that stands in an object, inner objects by "outer.inner"; what is called bytes has a unit.
pub(crate) fn everything(object: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        let name = plain(name);
        match value {
            Value::Object(_) => all.extend(everything(value).into_iter().map(|(inner, said)| (format!("{name}.{inner}"), said))),
            _ if name.to_ascii_lowercase().contains("bytes") => all.push((name, bytes(value))),
            _ => all.push((name, words(value))),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them_and_empty_ones_are_left_out() {
        let mut table = Table::new(["ID", "NOTHING", "NAME", "TITLE"]);
        assert_eq!(table.lines(), Vec::<String>::new());
        table.row(["a-long-id".into(), String::new(), "Änne".into(), "A title".into()]);
        table.row(["b".into(), String::new(), "Bo".into(), String::new()]);
        assert_eq!(table.lines(), ["ID         NAME  TITLE", "a-long-id  Änne  A title", "b          Bo"]);
    }

    #[test]
    fn what_came_from_elsewhere_is_words_and_never_a_command_to_a_terminal() {
        assert_eq!(words(&json!("a\u{1b}[2Jb\n")), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(words(&json!(["a", 1000, null, true])), "a, 1,000, , yes");
        assert_eq!(words(&json!({ "a": 1 })), "{\"a\":1}");
        assert_eq!(words(&json!(null)), "");
    }

    #[test]
    fn figures_have_units_and_what_is_no_figure_is_shown_as_it_is() {
        assert_eq!(
            (clock(&json!(5_525_999)), clock(&json!("soon")), clock(&json!(null))),
            ("1:32:05".into(), "soon".into(), "".into())
        );
        assert_eq!((ago(&json!(2100)), ago(&json!(7_200_000))), ("2.1 s ago".into(), "2 hours ago".into()));
        assert_eq!(facts([("a", "1".into()), ("none", String::new()), ("long", "2".into())]), ["  a     1", "  long  2"]);
        let all = everything(&json!({ "ramBytes": 1024, "load": { "bitsPerSecond": 1500 }, "devices": 2 }));
        let all: Vec<_> = all.iter().map(|(name, said)| format!("{name} {said}")).collect();
        assert_eq!(all, ["devices 2", "load.bitsPerSecond 1,500", "ramBytes 1.00 KiB"]);
    }
}
