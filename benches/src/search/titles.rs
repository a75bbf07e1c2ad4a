//! Real titles with the hours that they were watched: `title-hours.csv.gz` of the directory that `LARDER_TRACES` names, or else
//! the small selection that stands with the tests of `search`.

use std::{
    env, fs,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

/// The selection: `title<TAB>hours` a line.
const SELECTION: &str = "../search/tests/quality/titles.tsv";

/// A title of the list, and for how many hours it was watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    pub title: String,
    pub hours: u64,
}

/// The directory of traces, if one is named.
pub fn traces() -> Option<PathBuf> {
    env::var_os("LARDER_TRACES").map(PathBuf::from)
}

/// The whole list, in the directory `traces`.
pub fn all(traces: &Path) -> io::Result<Vec<Watched>> {
    let mut text = String::new();
    MultiGzDecoder::new(File::open(traces.join("title-hours.csv.gz"))?).read_to_string(&mut text)?;
    let row = |line: &str| {
        let fields = fields(line);
        let [title, _, _, hours] = fields.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a row of the list: {line:?}")));
        };
        let hours = hours.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("not hours: {line:?}")))?;
        Ok(Watched { title: title.clone(), hours })
    };
    text.lines().skip(1).map(row).collect()
}

/// The selection.
pub fn selection() -> io::Result<Vec<Watched>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(SELECTION))?;
    let row = |line: &str| {
        let (title, hours) = line.split_once('\t')?;
        Some(Watched { title: title.to_owned(), hours: hours.parse().ok()? })
    };
    Ok(text.lines().filter_map(row).collect())
}

/// The fields of a line of CSV (RFC 4180); no field of the list has a line break.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is one from the beginning");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_are_read() {
        assert_eq!(
            fields(r#""ONE PIECE: The ""Water Seven"" Chapter, 1",No,,17"#),
            [r#"ONE PIECE: The "Water Seven" Chapter, 1"#, "No", "", "17"]
        );
    }
}
