//! The one reader of configuration files: TOML in; typed values, and every error with key, line and expectation, out.
//!
//! A role asks for each key it knows. What it did not ask for is refused by [`Document::finish`], so a misspelt key is found and
//! not ignored. Nothing stops at the first error: an operator sees all of them at once. This module knows no role and no file
//! system; the caller prefixes a file's name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    str::FromStr,
    time::Duration,
};

use serde::Serialize;
use toml::de::{DeTable, DeValue};

/// A parsed file, the problems found in it so far, and the values in effect so far.
#[derive(Debug)]
pub struct Document {
    written: BTreeMap<String, Written>,
    /// Lines of `[table]` headers, for keys that are missing in them.
    tables: BTreeMap<String, usize>,
    asked: BTreeSet<String>,
    problems: Vec<Problem>,
    settings: Vec<Setting>,
}

/// What the file has under one dotted key.
#[derive(Debug)]
struct Written {
    line: usize,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Scalar(Scalar),
    List(Vec<(usize, Self)>),
    Table,
}

/// A string, number, boolean or date: its text for parsing, and as it stands in the file.
#[derive(Debug)]
struct Scalar {
    text: String,
    shown: String,
}

impl Document {
    /// Reads TOML 1.0. The problem, if the text is not TOML, is the syntax error and has no key.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let lines = Lines::of(text);
        let table = DeTable::parse(text).map_err(|error| Problem {
            key: String::new(),
            line: error.span().map_or(1, |span| lines.at(&span)),
            expected: "TOML".into(),
            found: format!("a syntax error: {}", error.message()),
        })?;
        let mut document = Self {
            written: BTreeMap::new(),
            tables: BTreeMap::new(),
            asked: BTreeSet::new(),
            problems: Vec::new(),
            settings: Vec::new(),
        };
        document.flatten("", table.get_ref(), &lines);
        Ok(document)
    }

    fn flatten(&mut self, prefix: &str, table: &DeTable<'_>, lines: &Lines) {
        for (name, value) in table {
            self.note(format!("{prefix}{}", name.get_ref()), lines.at(&name.span()), value.get_ref(), lines);
        }
    }

    /// Files `value` and all that is in it. The tables of an array are `key[0]`, `key[1]` and so on.
    fn note(&mut self, key: String, line: usize, value: &DeValue<'_>, lines: &Lines) {
        match value {
            DeValue::Table(inner) => {
                self.tables.insert(key.clone(), line);
                self.flatten(&format!("{key}."), inner, lines);
            }
            DeValue::Array(items) => {
                let tables = items.iter().enumerate().filter(|(_, item)| item.get_ref().is_table());
                tables.for_each(|(at, item)| self.note(format!("{key}[{at}]"), lines.at(&item.span()), item.get_ref(), lines));
            }
            _ => {}
        }
        self.written.insert(key, Written { line, value: Value::of(value, lines) });
    }

    /// The value of `key` ("listen", "tokens.issuer"), or `default` when the file has none. `None` only after a problem was
    /// recorded: the key is missing and has no default, or its value is not what was `expected`. Strings, numbers and booleans
    /// are all parsed from their text.
    pub fn value<T: FromStr + fmt::Display>(&mut self, key: &str, default: Option<T>, expected: &'static str) -> Option<T> {
        self.asked.insert(key.into());
        if self.written.contains_key(key) {
            return self.parsed(key, expected);
        }
        match &default {
            Some(value) => self.settings.push(Setting { key: key.into(), value: Some(value.to_string()), is_default: true }),
            None => self.problem(key, expected),
        }
        default
    }

    /// The value of `key`, where it may be absent. `None` also after a problem was recorded.
    pub fn optional<T: FromStr + fmt::Display>(&mut self, key: &str, expected: &'static str) -> Option<T> {
        self.asked.insert(key.into());
        if !self.written.contains_key(key) {
            self.settings.push(Setting { key: key.into(), value: None, is_default: true });
            return None;
        }
        self.parsed(key, expected)
    }

    /// The items of the array `key`; absent is empty. Items that are not what was `expected` are recorded and left out.
    pub fn list<T: FromStr + fmt::Display>(&mut self, key: &str, expected: &'static str) -> Vec<T> {
        self.asked.insert(key.into());
        let mut values = Vec::new();
        let written = self.written.get(key);
        let items = match written.map(|written| &written.value) {
            None => &[][..],
            Some(Value::List(items)) => items,
            Some(value) => {
                let found = value.to_string();
                self.report(key, format!("an array, each item {expected}"), found);
                return values;
            }
        };
        let mut wrong = Vec::new();
        for (line, item) in items {
            match item.parse() {
                Some(value) => values.push(value),
                None => wrong.push(Problem { key: key.into(), line: *line, expected: expected.into(), found: item.to_string() }),
            }
        }
        let value = values.iter().map(T::to_string).collect::<Vec<_>>().join(", ");
        self.settings.push(Setting { key: key.into(), value: Some(format!("[{value}]")), is_default: written.is_none() });
        self.problems.append(&mut wrong);
        values
    }

    /// The tables of the array `key`, each by its own key (`devices[0]`), below which its values are; absent is empty. `expected` says what such a table has.
    pub fn tables(&mut self, key: &str, expected: &'static str) -> Vec<String> {
        self.asked.insert(key.into());
        let items = match self.written.get(key).map(|written| &written.value) {
            None => {
                self.settings.push(Setting { key: key.into(), value: None, is_default: true });
                return Vec::new();
            }
            Some(Value::List(items)) => items,
            Some(value) => {
                let found = value.to_string();
                self.report(key, format!("an array, each item {expected}"), found);
                return Vec::new();
            }
        };
        let (mut tables, mut wrong) = (Vec::new(), Vec::new());
        for (at, (line, item)) in items.iter().enumerate() {
            match item {
                Value::Table => tables.push(format!("{key}[{at}]")),
                _ => wrong.push(Problem { key: key.into(), line: *line, expected: expected.into(), found: item.to_string() }),
            }
        }
        self.problems.append(&mut wrong);
        tables
    }

    /// Records a problem that the role itself found in the value of `key`, such as a range or a contradiction with another key.
    /// The line, and what was found there, come from the file.
    pub fn problem(&mut self, key: &str, expected: impl Into<String>) {
        let found = self.written.get(key).map_or("nothing".into(), |written| written.value.to_string());
        self.report(key, expected.into(), found);
    }

    /// The effective configuration in the order in which it was asked for, or all problems in the order of their lines.
    pub fn finish(mut self) -> Result<Effective, Vec<Problem>> {
        self.refuse_unknown();
        if self.problems.is_empty() {
            return Ok(Effective { settings: self.settings });
        }
        self.problems.sort_by_key(|problem| problem.line);
        Err(self.problems)
    }

    fn parsed<T: FromStr + fmt::Display>(&mut self, key: &str, expected: &'static str) -> Option<T> {
        let Some(value) = self.written.get(key).and_then(|written| written.value.parse::<T>()) else {
            self.problem(key, expected);
            return None;
        };
        self.settings.push(Setting { key: key.into(), value: Some(value.to_string()), is_default: false });
        Some(value)
    }

    fn report(&mut self, key: &str, expected: String, found: String) {
        let line = self.line(key);
        self.problems.push(Problem { key: key.into(), line, expected, found });
    }

    /// The line of `key`, or else of the innermost table that would hold it, or else the first.
    fn line(&self, key: &str) -> usize {
        if let Some(written) = self.written.get(key) {
            return written.line;
        }
        let parents = key.rmatch_indices('.').map(|(at, _)| &key[..at]);
        parents.filter_map(|parent| self.tables.get(parent)).next().copied().unwrap_or(1)
    }

    fn refuse_unknown(&mut self) {
        let is_inside = |key: &str, table: &str| key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
        let is_of = |key: &str, array: &str| key.strip_prefix(array).is_some_and(|rest| rest.starts_with('['));
        let mut unknown: Vec<Problem> = Vec::new();
        for (key, written) in &self.written {
            let holds_known = self.asked.iter().any(|asked| is_inside(asked, key));
            let is_refused_already = self.asked.iter().any(|asked| is_inside(key, asked))
                || unknown.iter().any(|problem| is_inside(key, &problem.key) || is_of(key, &problem.key));
            if self.asked.contains(key) || is_refused_already || (holds_known && matches!(written.value, Value::Table)) {
                continue;
            }
            let expected = match self.asked.iter().min_by_key(|asked| edits(asked, key)) {
                _ if holds_known => format!("a table [{key}]"),
                Some(near) if edits(near, key) <= EDITS_MAX => format!("a key that is known here, perhaps {near}"),
                _ => "no key of this name".into(),
            };
            unknown.push(Problem { key: key.clone(), line: written.line, expected, found: written.value.to_string() });
        }
        unknown.append(&mut self.problems);
        self.problems = unknown;
    }
}

/// How far from a known key a word may be for us to suppose that the known key was meant.
const EDITS_MAX: usize = 3;

/// The Levenshtein distance of two keys.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

impl Value {
    fn of(value: &DeValue<'_>, lines: &Lines) -> Self {
        let (text, shown) = match value {
            DeValue::Table(_) => return Self::Table,
            DeValue::Array(items) => {
                return Self::List(items.iter().map(|item| (lines.at(&item.span()), Self::of(item.get_ref(), lines))).collect());
            }
            DeValue::String(text) => (text.to_string(), format!("{text:?}")),
            DeValue::Integer(number) => {
                let decimal = i128::from_str_radix(number.as_str(), number.radix()).map(|number| number.to_string());
                (decimal.unwrap_or_else(|_| number.to_string()), number.to_string())
            }
            DeValue::Float(number) => (number.to_string(), number.to_string()),
            DeValue::Boolean(truth) => (truth.to_string(), truth.to_string()),
            DeValue::Datetime(date) => (date.to_string(), date.to_string()),
        };
        Self::Scalar(Scalar { text, shown })
    }

    fn parse<T: FromStr>(&self) -> Option<T> {
        match self {
            Self::Scalar(scalar) => scalar.text.parse().ok(),
            Self::List(_) | Self::Table => None,
        }
    }
}

/// As it stands in the file, or what kind of thing it is.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => f.write_str(&scalar.shown),
            Self::List(_) => f.write_str("an array"),
            Self::Table => f.write_str("a table"),
        }
    }
}

/// Where each line of a text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    /// The line, from 1, in which `span` begins.
    fn at(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|start| *start <= span.start) + 1
    }
}

/// One thing that is wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The dotted key; empty when the file is not TOML at all.
    pub key: String,
    /// From 1.
    pub line: usize,
    pub expected: String,
    pub found: String,
}

/// `12: listen: expected an address and port such as 0.0.0.0:443, found "abc"`; the caller writes `edge.toml:` before it.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, line, expected, found } = self;
        let colon = if key.is_empty() { "" } else { ": " };
        write!(f, "{line}: {key}{colon}expected {expected}, found {found}")
    }
}

/// A configuration in effect: every key that the role knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Effective {
    pub settings: Vec<Setting>,
}

/// One key of an effective configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    pub key: String,
    /// `None` where an optional key is absent.
    pub value: Option<String>,
    pub is_default: bool,
}

/// A number of bytes: `512`, `"64KiB"`, `"256MiB"`, `"1GiB"`, `"2TiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Largest first, as [`fmt::Display`] picks the first that divides.
const BYTE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        with_unit(text, &BYTE_UNITS).map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_unit(f, self.0, &BYTE_UNITS)
    }
}

/// A duration in whole milliseconds, with its unit: `"250ms"`, `"5s"`, `"30m"`, `"6h"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub Duration);

/// In milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Seconds {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        with_unit(text, &TIME_UNITS).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u64::try_from(self.0.as_millis()) {
            Ok(0) => f.write_str("0s"),
            Ok(ms) => write_unit(f, ms, &TIME_UNITS),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

/// A rate of transmission: `"500Mbit/s"`, `"40Gbit/s"`; the units are powers of ten, as networks have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitsPerSecond(pub u64);

/// Largest first.
const RATE_UNITS: [(&str, u64); 4] =
    [("Tbit/s", 1_000_000_000_000), ("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000)];

impl FromStr for BitsPerSecond {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        with_unit(text, &RATE_UNITS).map(Self)
    }
}

impl fmt::Display for BitsPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_unit(f, self.0, &RATE_UNITS)
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| UnitError)?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start()).ok_or(UnitError)?;
    number.checked_mul(*scale).ok_or(UnitError)
}

fn write_unit(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |(_, scale): &&(&str, u64)| number != 0 && number.is_multiple_of(*scale);
    match units.iter().find(fits) {
        Some((unit, scale)) => write!(f, "{}{unit}", number / scale),
        None => write!(f, "{number}"),
    }
}

/// Not a whole number with a unit that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a whole number with a unit (KiB, MiB, GiB, TiB; ms, s, m, h, d; kbit/s, Mbit/s, Gbit/s, Tbit/s)")]
pub struct UnitError;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const ADDRESS: &str = "an address and port such as 0.0.0.0:443";

    fn problems(doc: Document) -> Vec<String> {
        doc.finish().map_or_else(|problems| problems.iter().map(Problem::to_string).collect(), |_| Vec::new())
    }

    #[test]
    fn values_defaults_and_lists_are_in_effect() {
        let text =
            "listen = \"127.0.0.1:8443\"\n[cache]\nram = \"256MiB\"\nslice = 65_536\n[tokens]\nopen_paths = [\"/a\", '/b']\n";
        let mut doc = Document::parse(text).unwrap();
        assert_eq!(doc.value::<SocketAddr>("listen", None, ADDRESS).unwrap().port(), 8443);
        assert_eq!(doc.value("cache.ram", None, "a size"), Some(Bytes(256 << 20)));
        assert_eq!(doc.value("cache.slice", None, "a size"), Some(Bytes(65_536)));
        assert_eq!(
            doc.value("origin.timeout", Some(Seconds(Duration::from_millis(2_500))), "a duration").unwrap().0.as_millis(),
            2_500
        );
        assert_eq!(doc.optional::<String>("control.url", "a URL"), None);
        assert_eq!(doc.list::<String>("tokens.open_paths", "a path"), ["/a", "/b"]);
        let settings = doc.finish().unwrap().settings;
        let shown: Vec<_> = settings.iter().map(|s| (s.key.as_str(), s.value.as_deref(), s.is_default)).collect();
        assert_eq!(
            shown,
            [
                ("listen", Some("127.0.0.1:8443"), false),
                ("cache.ram", Some("256MiB"), false),
                ("cache.slice", Some("64KiB"), false),
                ("origin.timeout", Some("2500ms"), true),
                ("control.url", None, true),
                ("tokens.open_paths", Some("[/a, /b]"), false),
            ]
        );
    }

    #[test]
    fn every_problem_is_found_at_once_and_says_line_and_expectation() {
        let text =
            "listen = \"abc\"\nworkres = 4\n\n[tokens]\nopen_paths = [\"/a\",\n  3.5]\nissuer = \"x\"\n[other]\ndeep = 1\n";
        let mut doc = Document::parse(text).unwrap();
        assert_eq!(doc.value::<SocketAddr>("listen", None, ADDRESS), None);
        assert_eq!(doc.value("workers", Some(2), "a number of threads"), Some(2));
        assert_eq!(doc.list::<crate::object::ObjectPath>("tokens.open_paths", "a path").len(), 1);
        assert_eq!(doc.value::<String>("tokens.keys_file", None, "a file"), None);
        assert!(doc.value::<String>("tokens.issuer", None, "a name").is_some());
        doc.problem("tokens.issuer", "a name with a dot");
        assert_eq!(
            problems(doc),
            [
                "1: listen: expected an address and port such as 0.0.0.0:443, found \"abc\"",
                "2: workres: expected a key that is known here, perhaps workers, found 4",
                "4: tokens.keys_file: expected a file, found nothing",
                "6: tokens.open_paths: expected a path, found 3.5",
                "7: tokens.issuer: expected a name with a dot, found \"x\"",
                "8: other: expected no key of this name, found a table",
            ]
        );
    }

    #[test]
    fn tables_scalars_and_arrays_are_not_taken_for_each_other() {
        let mut doc = Document::parse("tokens = 5\nlisten = [1]\nname = { a = 1 }\npaths = \"/a\"\n").unwrap();
        assert_eq!(doc.value("tokens.leeway", Some(1), "seconds"), Some(1));
        assert_eq!(doc.value::<u16>("listen", None, "a port"), None);
        assert_eq!(doc.optional::<String>("name", "a name"), None);
        assert!(doc.list::<String>("paths", "a path").is_empty());
        assert_eq!(
            problems(doc),
            [
                "1: tokens: expected a table [tokens], found 5",
                "2: listen: expected a port, found an array",
                "3: name: expected a name, found a table",
                "4: paths: expected an array, each item a path, found \"/a\"",
            ]
        );
    }

    #[test]
    fn tables_in_an_array_are_read_one_by_one_each_problem_with_its_line() {
        let text = "a = 1\ndevices = [\n  { path = \"/a\", size = \"4KiB\" },\n  { pth = \"/b\", size = 4.5 },\n  7,\n]\n[[others]]\nx = 1\n";
        let mut doc = Document::parse(text).unwrap();
        assert_eq!(doc.value("a", None, "a number"), Some(1));
        let tables = doc.tables("devices", "a table with a path");
        assert_eq!(tables, ["devices[0]", "devices[1]"]);
        let paths: Vec<_> = tables.iter().map(|table| doc.value::<String>(&format!("{table}.path"), None, "a path")).collect();
        assert_eq!(paths, [Some("/a".into()), None]);
        let sizes: Vec<_> = tables.iter().map(|table| doc.optional::<Bytes>(&format!("{table}.size"), "a size")).collect();
        assert_eq!(sizes, [Some(Bytes(4096)), None]);
        assert_eq!(
            problems(doc),
            [
                "4: devices[1].pth: expected a key that is known here, perhaps devices[1].path, found \"/b\"",
                "4: devices[1].path: expected a path, found nothing",
                "4: devices[1].size: expected a size, found 4.5",
                "5: devices: expected a table with a path, found 7",
                "7: others: expected no key of this name, found an array",
            ]
        );
        let mut doc = Document::parse("[[devices]]\npath = \"/a\"\n[[devices]]\npath = \"/b\"\n").unwrap();
        let tables = doc.tables("devices", "a table with a path");
        let paths: Vec<_> = tables.iter().map(|table| doc.value::<String>(&format!("{table}.path"), None, "a path")).collect();
        assert_eq!(paths, [Some("/a".into()), Some("/b".into())]);
        assert_eq!(doc.tables("none", "a table"), Vec::<String>::new());
        assert_eq!(doc.finish().unwrap().settings.len(), 3);
        let mut doc = Document::parse("devices = 5\n").unwrap();
        assert!(doc.tables("devices", "a table with a path").is_empty());
        assert_eq!(problems(doc), ["1: devices: expected an array, each item a table with a path, found 5"]);
    }

    #[test]
    fn text_that_is_not_toml_names_the_line() {
        let problem = Document::parse("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!((problem.line, problem.key.as_str()), (2, ""));
        assert!(problem.to_string().starts_with("2: expected TOML, found a syntax error: "), "{problem}");
        assert_eq!(Document::parse("a = 1\na = 2\n").unwrap_err().line, 2);
    }

    #[test]
    fn sizes_and_durations_round_trip_and_never_overflow() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("4KiB", 4096), ("1GiB", 1 << 30), ("1536MiB", 1536 << 20), ("3TiB", 3 << 40)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (text, ms) in [("0s", 0), ("250ms", 250), ("5s", 5_000), ("90s", 90_000), ("2h", 7_200_000), ("7d", 604_800_000)] {
            assert_eq!(text.parse(), Ok(Seconds(Duration::from_millis(ms))));
            assert_eq!(Seconds(Duration::from_millis(ms)).to_string(), text);
        }
        for (text, rate) in [("64kbit/s", 64_000), ("40Gbit/s", 40_000_000_000), ("2500Mbit/s", 2_500_000_000)] {
            assert_eq!(text.parse(), Ok(BitsPerSecond(rate)));
            assert_eq!(BitsPerSecond(rate).to_string(), text);
        }
        assert_eq!("40Gbps".parse::<BitsPerSecond>(), Err(UnitError));
        for text in ["", "MiB", "-1", "1.5GiB", "5 apples", "18446744073709551615TiB", "1gib"] {
            assert_eq!(text.parse::<Bytes>(), Err(UnitError), "{text}");
        }
        for text in ["", "5", "s", "1y", "99999999999999999999d"] {
            assert_eq!(text.parse::<Seconds>(), Err(UnitError), "{text}");
        }
    }
}
