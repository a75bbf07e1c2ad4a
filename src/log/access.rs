//! The access log: a line a request, the same as tracing-subscriber would write, at a small part of its cost.
//!
//! An edge writes some ten thousand lines a second. tracing-subscriber's own formatting and its system call a line were a quarter of what a small
//! request cost (`benches/RESULTS.md`). Here a line is written into its thread's memory without a detour, and memory is written to standard
//! error when it is [`GATHERED_BYTES_MAX`] full, after [`GATHERED_MAX`], and at the end. A process that is killed loses what it had gathered.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    io::{self, Write as _},
    sync::{Arc, Once},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Condvar, Mutex};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime as Clock},
    },
    registry::LookupSpan,
};

/// The target of its events.
const TARGET: &str = "larder::access";
/// What a thread gathers.
const GATHERED_BYTES_MAX: usize = 32 << 10;
/// How long a line waits.
const GATHERED_MAX: Duration = Duration::from_millis(250);
/// Digits of a date and time to the second, as RFC 3339 writes it.
const SECOND_CHARS: usize = "2026-01-01T00:00:00".len();

/// Formats events: those of the access log by `line`, all else by `other`.
pub(super) struct Format<F> {
    /// Writes a line for an event that happened at a time (RFC 3339, to the microsecond).
    pub(super) line: fn(&Event<'_>, time: &dyn fmt::Display, line: &mut String),
    pub(super) other: F,
}

impl<S, N, F> FormatEvent<S, N> for Format<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if event.metadata().target() != TARGET {
            return self.other.format_event(context, writer, event);
        }
        thread_local! {
            static LINE: RefCell<String> = const { RefCell::new(String::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            (self.line)(event, &Now::read(), line);
            writer.write_str(line)
        })
    }
}

/// A line as people read it.
pub(super) fn text(event: &Event<'_>, time: &dyn fmt::Display, line: &mut String) {
    // Writing to a string does not fail, here and below.
    let _ = write!(line, "{time} {:>5} {TARGET}:", event.metadata().level());
    event.record(&mut Text(line));
    line.push('\n');
}

/// A line as machines read it.
pub(super) fn json(event: &Event<'_>, time: &dyn fmt::Display, line: &mut String) {
    let _ = write!(line, r#"{{"timestamp":"{time}","level":"{}","fields":{{"#, event.metadata().level());
    event.record(&mut Json { line, is_first: true });
    let _ = writeln!(line, r#"}},"target":"{TARGET}"}}"#);
}

struct Text<'a>(&'a mut String);

impl Text<'_> {
    fn name(&mut self, field: &Field) -> &mut String {
        self.0.push(' ');
        self.0.push_str(field.name());
        self.0.push('=');
        self.0
    }
}

impl Visit for Text<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        decimal(value, self.name(field));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        float(value, self.name(field));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        quote(value, self.name(field), |value, line| {
            let _ = write!(line, "{value:?}");
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.name(field), "{value:?}");
    }
}

struct Json<'a> {
    line: &'a mut String,
    is_first: bool,
}

impl Json<'_> {
    fn name(&mut self, field: &Field) -> &mut String {
        if !std::mem::take(&mut self.is_first) {
            self.line.push(',');
        }
        let _ = write!(self.line, "\"{}\":", field.name());
        self.line
    }
}

impl Visit for Json<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        decimal(value, self.name(field));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        float(value, self.name(field));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        quote(value, self.name(field), |value, line| line.push_str(&serde_json::Value::from(value).to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Writes a number without fmt's detours.
fn decimal(mut value: u64, line: &mut String) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.push_str(std::str::from_utf8(&digits[from..]).expect("digits are ASCII"));
}

/// Writes what `{:?}` writes; quickly, if `value` has at most three decimals, as milliseconds to the microsecond have.
fn float(value: f64, line: &mut String) {
    const EXACT_MAX: f64 = 1e12;
    let thousandths = (value * 1000.0).round();
    if !(0.0..EXACT_MAX).contains(&value) || value.is_sign_negative() || thousandths / 1000.0 != value {
        let _ = write!(line, "{value:?}");
        return;
    }
    let thousandths = thousandths as u64;
    decimal(thousandths / 1000, line);
    let digits = [100, 10, 1].map(|place| b'0' + (thousandths / place % 10) as u8);
    let digits = std::str::from_utf8(&digits).expect("digits are ASCII").trim_end_matches('0');
    line.push('.');
    line.push_str(if digits.is_empty() { "0" } else { digits });
}

/// Writes `value` in quotation marks; `escape` does so where something in it must not stand as it is.
fn quote(value: &str, line: &mut String, escape: fn(&str, &mut String)) {
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        line.push('"');
        line.push_str(value);
        line.push('"');
    } else {
        escape(value, line);
    }
}

/// The time of an event. The date is made once a second on each thread.
struct Now {
    second: [u8; SECOND_CHARS],
    micros: u32,
}

impl Now {
    fn read() -> Self {
        thread_local! {
            static MADE: RefCell<(u64, [u8; SECOND_CHARS])> = const { RefCell::new((0, [0; SECOND_CHARS])) };
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        MADE.with_borrow_mut(|(made, second)| {
            if *made != now.as_secs() {
                let mut text = String::new();
                let _ = Clock.format_time(&mut Writer::new(&mut text));
                // Between the two readings a second may have begun; then the next line makes it anew.
                if let Some(text) = text.as_bytes().first_chunk() {
                    (*made, *second) = (now.as_secs(), *text);
                }
            }
            Self { second: *second, micros: now.subsec_micros() }
        })
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b".000000Z";
        let mut micros = self.micros;
        for digit in text[1..7].iter_mut().rev() {
            *digit = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        f.write_str(std::str::from_utf8(&self.second).map_err(|_| fmt::Error)?)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Where lines go: standard error, at once or gathered.
pub(super) struct Out;

/// One line's way there.
pub(super) enum Line {
    AtOnce,
    Gathered,
}

impl<'a> MakeWriter<'a> for Out {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line::AtOnce
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        if event.target() == TARGET { Line::Gathered } else { Line::AtOnce }
    }
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::AtOnce => io::stderr().write(line),
            Self::Gathered => {
                gather(line);
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Gathered = Arc<Mutex<Vec<u8>>>;

/// What all threads have gathered, and whether any of it waits.
static ALL: Mutex<Vec<Gathered>> = Mutex::new(Vec::new());
static WAITS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn gather(line: &[u8]) {
    thread_local! {
        static OWN: Gathered = {
            let own = Gathered::default();
            ALL.lock().push(own.clone());
            own
        };
    }
    // A thread that is about to end has no place of its own any more.
    let gathered = OWN.try_with(|own| {
        let mut own = own.lock();
        let is_first = own.is_empty();
        own.extend_from_slice(line);
        if own.len() >= GATHERED_BYTES_MAX {
            write_out(&mut own);
        } else if is_first {
            tell();
        }
    });
    if gathered.is_err() {
        write_out(&mut line.to_vec());
    }
}

/// A first line waits.
fn tell() {
    static WRITER: Once = Once::new();
    WRITER.call_once(|| {
        // Without it, lines are written when there are enough of them.
        let _ = thread::Builder::new().name("access-log".into()).spawn(write_now_and_then);
    });
    let (waits, told) = &WAITS;
    *waits.lock() = true;
    told.notify_one();
}

fn write_now_and_then() {
    let (waits, told) = &WAITS;
    loop {
        told.wait_while(&mut waits.lock(), |waits| !*waits);
        thread::park_timeout(GATHERED_MAX);
        *waits.lock() = false;
        write_all();
    }
}

fn write_all() {
    ALL.lock().retain(|gathered| {
        write_out(&mut gathered.lock());
        // Its thread has ended.
        Arc::strong_count(gathered) > 1
    });
}

fn write_out(lines: &mut Vec<u8>) {
    // There is nobody to tell of a standard error that takes nothing.
    let _ = io::stderr().write_all(lines);
    lines.clear();
}

/// Writes what is gathered when it is dropped.
pub(crate) struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        write_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has been written, by a subscriber of its own.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Written {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock())).expect("UTF-8")
        }
    }

    fn visit() {
        tracing::info!(
            target: TARGET,
            status = 206_u16,
            method = %"GET",
            path = "/files/\"ü\"\n",
            protocol = "h2",
            bytes = u64::MAX,
            ttfb_ms = Some(0.25),
            duration_ms = 12.0,
            reason = None::<&str>,
        );
    }

    #[test]
    fn a_line_is_what_tracing_subscriber_would_write_but_for_the_time() {
        let (ours, theirs) = (Written::default(), Written::default());
        let log = |written: &Written| tracing_subscriber::fmt().with_writer(written.clone()).with_ansi(false);
        let own = log(&ours).map_event_format(|other| Format { line: text, other }).finish();
        tracing::subscriber::with_default(own, visit);
        tracing::subscriber::with_default(log(&theirs).finish(), visit);
        let past_time = |line: &str| line.split_once("Z ").expect("a time").1.to_owned();
        assert_eq!(past_time(&ours.take()), past_time(&theirs.take()));

        let own = log(&ours).json().map_event_format(|other| Format { line: json, other }).finish();
        tracing::subscriber::with_default(own, visit);
        tracing::subscriber::with_default(log(&theirs).json().finish(), visit);
        let parse = |line: &str| {
            let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let time = value["timestamp"].take();
            assert_eq!(time.as_str().map(str::len), Some(SECOND_CHARS + ".000000Z".len()), "{line}");
            value
        };
        assert_eq!(parse(&ours.take()), parse(&theirs.take()));
    }

    #[test]
    fn other_events_are_left_as_they_are() {
        let written = Written::default();
        let log = tracing_subscriber::fmt().with_writer(written.clone()).with_ansi(false);
        let log = log.map_event_format(|other| Format { line: text, other }).finish();
        tracing::subscriber::with_default(log, || tracing::info!(target: "larder", what = 1, "ready"));
        assert!(written.take().ends_with("  INFO larder: ready what=1\n"));
    }

    #[test]
    fn numbers_are_written_as_fmt_writes_them() {
        for value in [0, 1, 9, 10, 12_345, u64::MAX] {
            let mut line = String::new();
            decimal(value, &mut line);
            assert_eq!(line, value.to_string());
        }
        let millis = (0..5000).map(|micros| f64::from(micros) / 1000.0);
        let others = [1e-9, 0.0005, 1.0005, 123_456.789, 1e12, 1e300, -1.5, -0.0, f64::NAN, f64::INFINITY];
        for value in millis.chain(others) {
            let mut line = String::new();
            float(value, &mut line);
            assert_eq!(line, format!("{value:?}"));
        }
    }
}
