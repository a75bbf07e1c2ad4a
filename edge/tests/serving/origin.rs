//! An origin that counts what it is asked, and can be told to fail, stall, lie, break off, or be away.

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What an edge must send as `Authorization`.
pub(crate) const SECRET: &str = "the-fill-token-of-the-tests";

#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) etag: String,
    pub(crate) cache_control: &'static str,
}

impl Object {
    /// `length` bytes that differ from version to version and from place to place.
    pub(crate) fn new(length: usize, version: u64) -> Self {
        let bytes = (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ version as u8).collect();
        Self { bytes: Arc::new(bytes), etag: format!("\"v{version}\""), cache_control: "public, max-age=3600" }
    }
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// This status and no object.
    Status(u16),
    /// No answer at all.
    Silent,
    /// The body ends after so many bytes, and the connection with it.
    CutAfter(usize),
    /// After so many bytes of the body nothing comes any more, until [`Origin::release`].
    HoldAfter(usize),
    /// A header with another value, or without it.
    Header(&'static str, Option<String>),
    /// Other bytes than those of the wanted range, honestly labelled.
    Shifted(i64),
    /// The whole object, whatever range was wanted.
    Whole,
    /// More bytes than the head announces, in chunks.
    TooMany(usize),
    /// Fewer bytes than the head announces, in chunks that end well.
    TooFew(usize),
    /// The answer takes so long.
    Slow(Duration),
    /// The answer takes so long, and is then held as by [`Fault::HoldAfter`].
    SlowAndHeld(Duration, usize),
    /// Nothing that is HTTP.
    Noise,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

#[derive(Default)]
struct State {
    objects: HashMap<String, Object>,
    faults: Vec<(Fault, usize)>,
    asked: Vec<Asked>,
    at_once: usize,
    at_once_max: usize,
}

pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinSet<()>,
}

struct Shared {
    state: Mutex<State>,
    asked: watch::Sender<usize>,
    is_released: watch::Sender<bool>,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let shared = Shared { state: Mutex::default(), asked: watch::Sender::new(0), is_released: watch::Sender::new(false) };
        let mut origin = Self { addr: SocketAddr::from(([127, 0, 0, 1], 0)), shared: Arc::new(shared), serving: JoinSet::new() };
        origin.come_back().await;
        origin
    }

    /// Listens, on the same port as before.
    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.addr).await.expect("the port is free");
        self.addr = listener.local_addr().expect("bound");
        let shared = self.shared.clone();
        self.serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                connections.spawn(serve(stream, shared.clone()));
            }
        });
    }

    /// Closes its port and every connection.
    pub(crate) async fn go_away(&mut self) {
        self.serving.shutdown().await;
    }

    pub(crate) fn put(&self, path: &str, object: Object) {
        self.state().objects.insert(path.into(), object);
    }

    /// The next `times` answers have this fault.
    pub(crate) fn fails(&self, fault: Fault, times: usize) {
        self.state().faults.push((fault, times));
    }

    /// From now on all is well.
    pub(crate) fn is_honest_again(&self) {
        self.state().faults.clear();
    }

    /// Lets those answers go on that are held, and all that come.
    pub(crate) fn release(&self) {
        self.shared.is_released.send_replace(true);
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// The most requests that were being answered at the same time.
    pub(crate) fn at_once_max(&self) -> usize {
        self.state().at_once_max
    }

    /// Waits until `count` requests came.
    pub(crate) async fn is_asked(&self, count: usize) {
        self.shared.asked.subscribe().wait_for(|asked| *asked >= count).await.expect("the origin is there");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no panic")
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(asked) = read_request(&mut stream).await {
        let (object, fault) = {
            let mut state = shared.state.lock().expect("no panic");
            state.asked.push(asked.clone());
            state.at_once += 1;
            state.at_once_max = state.at_once_max.max(state.at_once);
            (state.objects.get(&asked.path).cloned(), next_fault(&mut state))
        };
        shared.asked.send_modify(|count| *count += 1);
        if let Some(Fault::Slow(by) | Fault::SlowAndHeld(by, _)) = fault {
            tokio::time::sleep(by).await;
        }
        let answered = answer(&mut stream, &asked, object, fault, &shared).await;
        shared.state.lock().expect("no panic").at_once -= 1;
        if answered.is_none() {
            return;
        }
    }
}

fn next_fault(state: &mut State) -> Option<Fault> {
    let (fault, times) = state.faults.first_mut()?;
    let fault = fault.clone();
    *times -= 1;
    if *times == 0 {
        state.faults.remove(0);
    }
    Some(fault)
}

async fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Some(Asked { path, headers: headers.collect() })
}

/// `None` when the connection is at its end.
async fn answer(
    stream: &mut TcpStream,
    asked: &Asked,
    object: Option<Object>,
    fault: Option<Fault>,
    shared: &Shared,
) -> Option<()> {
    match fault {
        Some(Fault::Silent) => {
            let _ = stream.read_u8().await;
            return None;
        }
        Some(Fault::Noise) => {
            stream.write_all(b"220 mail.example ESMTP\r\n").await.ok()?;
            return None;
        }
        _ => {}
    }
    let (status, mut headers, body) = honest(asked, object, &fault);
    let (mut body, mut held) = (body, Vec::new());
    let mut is_cut = false;
    let mut in_chunks = false;
    match fault {
        Some(Fault::CutAfter(bytes)) => {
            is_cut = body.len() > bytes;
            body.truncate(bytes);
        }
        Some(Fault::HoldAfter(bytes) | Fault::SlowAndHeld(_, bytes)) => held = body.split_off(bytes.min(body.len())),
        Some(Fault::Header(name, value)) => {
            headers.retain(|(other, _)| *other != name);
            headers.extend(value.map(|value| (name, value)));
        }
        Some(Fault::TooMany(bytes)) => {
            in_chunks = true;
            body.extend(std::iter::repeat_n(b'!', bytes));
        }
        Some(Fault::TooFew(bytes)) => {
            in_chunks = true;
            body.truncate(body.len().saturating_sub(bytes));
        }
        _ => {}
    }
    if in_chunks {
        headers.retain(|(name, _)| *name != "content-length");
        headers.push(("transfer-encoding", "chunked".into()));
        let mut chunk = format!("{:x}\r\n", body.len()).into_bytes();
        chunk.append(&mut body);
        chunk.extend_from_slice(b"\r\n0\r\n\r\n");
        body = chunk;
    }
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    stream.write_all(format!("HTTP/1.1 {status} Said\r\n{lines}\r\n").as_bytes()).await.ok()?;
    stream.write_all(&body).await.ok()?;
    if !held.is_empty() {
        let _ = shared.is_released.subscribe().wait_for(|is_released| *is_released).await;
        stream.write_all(&held).await.ok()?;
    }
    if is_cut { None } else { Some(()) }
}

/// What a good origin answers, except for what the fault changes of its choice.
fn honest(asked: &Asked, object: Option<Object>, fault: &Option<Fault>) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
    let header = |name: &str| asked.headers.get(name).map(String::as_str);
    let short = |status| (status, vec![("content-length", "0".to_owned())], Vec::new());
    if let Some(Fault::Status(status)) = fault {
        return short(*status);
    }
    if header("authorization") != Some(&format!("Bearer {SECRET}")) {
        return short(401);
    }
    let Some(object) = object else { return short(404) };
    let length = object.bytes.len();
    let mut headers = vec![
        ("etag", object.etag.clone()),
        ("content-type", "video/mp4".into()),
        ("cache-control", object.cache_control.into()),
        ("x-internal", "not for players".into()),
    ];
    if header("if-match").is_some_and(|etag| etag != object.etag) {
        return short(412);
    }
    if header("if-none-match") == Some(&object.etag) {
        return (304, headers, Vec::new());
    }
    let (status, range) = match header("range").filter(|_| *fault != Some(Fault::Whole)) {
        None => (200, 0..length),
        Some(range) => {
            let Some(range) = satisfied(range, length, fault) else {
                let (status, mut headers, body) = short(416);
                headers.push(("content-range", format!("bytes */{length}")));
                return (status, headers, body);
            };
            headers.push(("content-range", format!("bytes {}-{}/{length}", range.start, range.end - 1)));
            (206, range)
        }
    };
    headers.push(("content-length", range.len().to_string()));
    (status, headers, object.bytes[range].to_vec())
}

fn satisfied(range: &str, length: usize, fault: &Option<Fault>) -> Option<Range<usize>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (mut first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    if let Some(Fault::Shifted(by)) = fault {
        first = first.saturating_add_signed(isize::try_from(*by).ok()?);
    }
    (first < length).then(|| first..(last + 1).min(length))
}
