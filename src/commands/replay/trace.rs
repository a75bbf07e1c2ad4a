//! Traces of requests, read one by one: CSV or libCacheSim's oracleGeneral, plain or compressed, told apart by what is in them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use xxhash_rust::xxh3::xxh3_64;

/// How much is read from the file, and from what decompresses it, at once.
const BUFFER_BYTES: usize = 256 << 10;
/// A longer line is no request.
const LINE_BYTES_MAX: u64 = 4096;
/// A larger object is a mistake.
const OBJECT_BYTES_MAX: u64 = 1 << 44;
/// A record of oracleGeneral.
const RECORD_BYTES: usize = 24;

/// One request: the first `bytes` of `object`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) object: u64,
    pub(super) bytes: u64,
}

/// A trace that is not what it should be. Exit code 1.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceError {
    #[error("cannot read the trace {}: {error}", file.display())]
    Io { file: PathBuf, error: io::Error },
    #[error("{}: {problem}", file.display())]
    Content { file: PathBuf, problem: String },
}

/// Requests in the order in which they came.
pub(super) struct Trace {
    file: PathBuf,
    input: Box<dyn BufRead>,
    format: Format,
    /// Lines or records so far.
    count: u64,
    progress: Progress,
    line: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    OracleGeneral,
}

/// How far a trace is read.
#[derive(Clone)]
pub(super) struct Progress {
    read: Arc<AtomicU64>,
    /// The file's length in bytes.
    pub(super) bytes: u64,
}

impl Progress {
    /// Bytes of the file that were read.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl Trace {
    pub(super) fn open(path: &Path) -> Result<Self, TraceError> {
        let failed = |error| TraceError::Io { file: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let progress = Progress { read: Arc::default(), bytes: file.metadata().map_err(failed)?.len() };
        let counted = Counted { file, read: progress.read.clone() };
        let mut input = decompressed(BufReader::with_capacity(BUFFER_BYTES, counted)).map_err(failed)?;
        let start = input.fill_buf().map_err(failed)?;
        let is_text =
            start.iter().take(256).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || !byte.is_ascii());
        let format = if is_text { Format::Csv } else { Format::OracleGeneral };
        Ok(Self { file: path.to_owned(), input, format, count: 0, progress, line: Vec::new() })
    }

    /// To watch from elsewhere.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn line(&mut self) -> Result<Option<Request>, TraceError> {
        loop {
            self.line.clear();
            self.count += 1;
            let read = (&mut self.input).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
            if read.map_err(|error| self.unreadable(error))? == 0 {
                return Ok(None);
            }
            let line = self.line.trim_ascii();
            match request_of_line(line) {
                Some(request) => return Ok(Some(request)),
                // A blank line says nothing, and the first may say what the columns are.
                None if line.is_empty() || self.count == 1 && !line.iter().any(u8::is_ascii_digit) => {}
                None => {
                    let found: String = String::from_utf8_lossy(line).chars().take(60).collect();
                    return Err(self.wrong(&format!("expected time,object,kilobytes, found {found:?}")));
                }
            }
        }
    }

    fn record(&mut self) -> Result<Option<Request>, TraceError> {
        let is_at_end = self.input.fill_buf().map(<[u8]>::is_empty);
        if is_at_end.map_err(|error| self.unreadable(error))? {
            return Ok(None);
        }
        self.count += 1;
        let mut record = [0; RECORD_BYTES];
        if let Err(error) = self.input.read_exact(&mut record) {
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => self.wrong("it ends in the middle of a record of 24 bytes (oracleGeneral)"),
                _ => self.unreadable(error),
            });
        }
        let [_, _, _, _, object @ .., s0, s1, s2, s3, n0, n1, n2, n3, n4, n5, n6, n7] = record;
        // −1, and in some traces −2 or the largest number, say that it does not come again.
        if i64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]) < -2 {
            return Err(
                self.wrong("it is neither time,object,kilobytes nor oracleGeneral: the next access lies before the beginning")
            );
        }
        Ok(Some(Request { object: u64::from_le_bytes(object), bytes: u32::from_le_bytes([s0, s1, s2, s3]).into() }))
    }

    fn unreadable(&self, error: io::Error) -> TraceError {
        match error.kind() {
            // What decompresses says so of what is damaged.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
                let after = self.count.saturating_sub(1);
                let problem = format!("it is damaged after {} {after}: {error}", self.unit());
                TraceError::Content { file: self.file.clone(), problem }
            }
            _ => TraceError::Io { file: self.file.clone(), error },
        }
    }

    fn wrong(&self, problem: &str) -> TraceError {
        let problem = format!("{} {}: {problem}", self.unit(), self.count);
        TraceError::Content { file: self.file.clone(), problem }
    }

    fn unit(&self) -> &'static str {
        if self.format == Format::Csv { "line" } else { "record" }
    }
}

impl Iterator for Trace {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.format {
            Format::Csv => self.line(),
            Format::OracleGeneral => self.record(),
        }
        .transpose()
    }
}

/// `time,object,kilobytes`: the time is not used, the object is any text without a comma, a kilobyte is 1000 bytes.
fn request_of_line(line: &[u8]) -> Option<Request> {
    let mut fields = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let (time, object, kilobytes) = (fields.next()?, fields.next()?, fields.next()?);
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<f64>().ok().filter(|number| number.is_finite());
    let bytes = (number(kilobytes)? * 1000.0).round();
    let is_sound = fields.next().is_none() && number(time).is_some() && !object.is_empty();
    (is_sound && (0.0..=OBJECT_BYTES_MAX as f64).contains(&bytes))
        .then(|| Request { object: xxh3_64(object), bytes: bytes as u64 })
}

fn decompressed(mut input: BufReader<Counted>) -> io::Result<Box<dyn BufRead>> {
    Ok(match input.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = StreamingDecoder::new(input).map_err(io::Error::other)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
        _ => Box::new(input),
    })
}

/// Counts what is read, for the progress.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use tempfile::NamedTempFile;

    use super::*;

    fn written(bytes: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("writes");
        file
    }

    fn read(bytes: &[u8]) -> Result<Vec<Request>, String> {
        let file = written(bytes);
        let trace = Trace::open(file.path()).map_err(|error| error.to_string())?;
        trace.map(|request| request.map_err(|error| error.to_string())).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("writes");
        encoder.finish().expect("writes")
    }

    fn record(object: u64, bytes: u32, next: i64) -> Vec<u8> {
        [&7_u32.to_le_bytes()[..], &object.to_le_bytes(), &bytes.to_le_bytes(), &next.to_le_bytes()].concat()
    }

    const CSV: &[u8] = b"time,object,kilobytes\n1,7,30\r\n2,/a/b.m4s, 0.5\n\n3.5,7,30";

    fn csv() -> Vec<Request> {
        let request = |object: &str, bytes| Request { object: xxh3_64(object.as_bytes()), bytes };
        vec![request("7", 30_000), request("/a/b.m4s", 500), request("7", 30_000)]
    }

    #[test]
    fn csv_and_oracle_general_are_told_apart_plain_and_compressed() {
        assert_eq!(read(CSV), Ok(csv()));
        assert_eq!(read(&gzip(CSV)), Ok(csv()));
        let zstd = ruzstd::encoding::compress_to_vec(CSV, ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(read(&zstd), Ok(csv()));

        let records = [record(1 << 40, 4096, 3), record(2, 0, -1), record(1 << 40, u32::MAX, i64::MAX)].concat();
        let request = |object, bytes: u32| Request { object, bytes: bytes.into() };
        let expected = vec![request(1 << 40, 4096), request(2, 0), request(1 << 40, u32::MAX)];
        assert_eq!(read(&records), Ok(expected.clone()));
        assert_eq!(read(&gzip(&records)), Ok(expected));
        assert_eq!(read(b""), Ok(vec![]));
    }

    #[test]
    fn a_gzip_file_of_several_members_is_read_whole() {
        let members = [gzip(b"1,a,1\n"), gzip(b"2,b,2\n")].concat();
        assert_eq!(read(&members).map(|requests| requests.len()), Ok(2));
    }

    #[test]
    fn an_error_names_the_file_the_line_and_what_was_expected() {
        for (bytes, words) in [
            (&b"1,a,1\n2,b\n"[..], &["line 2", "expected time,object,kilobytes, found \"2,b\""][..]),
            (b"1,a,1\n2,b,-1\n", &["line 2"]),
            (b"1,a,1\n2,b,1e300\n", &["line 2"]),
            (b"1,a,1\n2,b,NaN\n", &["line 2"]),
            (b"1,,1\n", &["line 1"]),
            (b"x,a,1\n", &["line 1"]),
            (b"1,a,1,1\n", &["line 1"]),
            (&[&b"1,a,1\n"[..], &[b'x'; 10_000]].concat(), &["line 2", "found \"xxx"]),
            (&record(1, 1, -1)[..20], &["record 1", "ends in the middle"]),
            (&[record(1, 1, 2), record(1, 1, i64::MIN)].concat(), &["record 2", "neither"]),
        ] {
            let error = read(bytes).expect_err("it is wrong");
            for word in words {
                assert!(error.contains(word), "{word:?} is not in {error}");
            }
        }
        let cut_off = gzip(&b"1,a,1\n".repeat(1000));
        let error = read(&cut_off[..cut_off.len() / 2]).expect_err("it is cut off");
        assert!(error.contains("damaged after line"), "{error}");
        let missing = Trace::open(Path::new("/does/not/exist.csv")).err().expect("it is not there").to_string();
        assert!(missing.contains("/does/not/exist.csv") && missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn progress_ends_at_the_files_length() {
        let file = written(&gzip(&b"1,a,1\n".repeat(1001)));
        let trace = Trace::open(file.path()).expect("a trace");
        let progress = trace.progress();
        assert!(trace.count() > 1000);
        assert_eq!(progress.read(), progress.bytes);
    }
}
