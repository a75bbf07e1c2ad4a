//! Five hundred who read a 50 GB object slowly, each at a place of its own, from an edge that may use 256 MiB.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use socket2::{Domain, Socket, Type};

use crate::{
    big_object::{LENGTH, check, sparse_object},
    support::{EdgeFiles, Role, free_port, write_origin_files},
};

const READERS: usize = 500;
/// What each of them reads at least, a few KiB at a time.
const EACH: usize = 300 << 10;
const AT_A_TIME: usize = 8 << 10;
/// And then they are in no hurry.
const PAUSE: Duration = Duration::from_millis(100);
const BUDGET_BYTES: u64 = 256 << 20;
/// What an edge may take beside its budget: the program, its threads, the index, and 500 connections with TLS and their buffers.
const BESIDES_BYTES: u64 = 128 << 20;
/// Longer than the edge lets a reader wait for memory before it says 503.
const PATIENCE: Duration = Duration::from_secs(30);

/// One who reads: a connection, and what came of it.
struct Reader {
    stream: StreamOwned<ClientConnection, TcpStream>,
    start: u64,
    read: usize,
    status: u16,
    /// Nothing more came, although there is more.
    is_broken: bool,
}

#[test]
#[expect(clippy::disallowed_methods, reason = "being slow is what these readers are for, and a test thread has no viewers")]
fn five_hundred_slow_readers_of_50_gb_stay_within_the_edges_budget_and_all_get_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let (origin_port, edge_port) = (free_port(), free_port());
    sparse_object(&dir.path().join("origin/files"));
    write_origin_files(dir.path(), origin_port);
    let folder = dir.path().display();
    let cache = format!(
        "ram = \"{BUDGET_BYTES}\"\nstate_dir = \"{folder}/state\"\ndevices = [{{ path = \"{folder}/device\", size = \"2GiB\" }}]"
    );
    let tls =
        EdgeFiles { port: edge_port, admin_port: 0, origin_port, open_paths: &["/files/"], cache: &cache }.write(dir.path());
    let origin = Role::start("origin", &dir.path().join("origin.toml"));
    let edge = Role::start("edge", &dir.path().join("edge.toml"));

    let begun = Instant::now();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, edge_port));
    // Across slices, and nowhere near each other.
    let start = |number: usize| number as u64 * 99_000_000 + 1_000_000;
    let read = |number| {
        let mut reader = Reader::new(addr, tls.clone(), start(number));
        reader.read_head();
        while reader.goes_on() {
            reader.read_some();
            thread::sleep(PAUSE);
        }
        reader
    };
    // A reader who is done stays until all are: what it holds at the edge is not given back by its going.
    let readers: Vec<_> = thread::scope(|scope| {
        let reading: Vec<_> = (0..READERS)
            .map(|number| {
                scope.spawn({
                    let read = &read;
                    move || read(number)
                })
            })
            .collect();
        reading.into_iter().map(|reader| reader.join().expect("no panic")).collect()
    });
    let resident = edge.resident_bytes_max();
    let mut by_status: BTreeMap<u16, usize> = BTreeMap::new();
    readers.iter().for_each(|reader| *by_status.entry(reader.status).or_default() += 1);
    println!(
        "{by_status:?} within {} ms; edge: {} MiB resident at most, budget {} MiB",
        begun.elapsed().as_millis(),
        resident >> 20,
        BUDGET_BYTES >> 20
    );
    let broken = readers.iter().filter(|reader| reader.is_broken).count();
    assert_eq!(broken, 0, "readers were broken off in the midst of it");
    assert!(resident < BUDGET_BYTES + BESIDES_BYTES, "{resident} bytes resident");
    assert!(by_status.keys().all(|status| [206, 503].contains(status)), "{by_status:?}");
    assert!(by_status[&206] >= READERS / 2, "{by_status:?}");
    drop(readers);
    assert!(edge.stop().success() && origin.stop().success());
}

impl Reader {
    /// Asks for all from `start` on. The system takes no more for it than a little.
    fn new(addr: SocketAddr, tls: Arc<rustls::ClientConfig>, start: u64) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
        socket.connect(&addr.into()).expect("connects");
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let name = ServerName::from(addr.ip());
        let mut stream = StreamOwned::new(ClientConnection::new(tls, name).expect("TLS"), socket);
        let head = format!("GET /files/huge.bin HTTP/1.1\r\nhost: 127.0.0.1\r\nrange: bytes={start}-{}\r\n\r\n", LENGTH - 1);
        stream.write_all(head.as_bytes()).expect("asks");
        Self { stream, start, read: 0, status: 0, is_broken: false }
    }

    fn read_head(&mut self) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        self.status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        match self.status {
            206 => assert!(head.contains(&format!("bytes {}-{}/{LENGTH}\r\n", self.start, LENGTH - 1)), "{head}"),
            _ => assert!(head.to_lowercase().contains("\r\nretry-after: "), "{head}"),
        }
    }

    fn goes_on(&self) -> bool {
        self.status == 206 && self.read < EACH && !self.is_broken
    }

    fn read_some(&mut self) {
        let mut bytes = [0; AT_A_TIME];
        let at = self.start + self.read as u64;
        if let Err(error) = self.stream.read_exact(&mut bytes) {
            println!("no more bytes at {at}, after {}: {error}", self.read);
            self.is_broken = true;
            return;
        }
        check(&bytes, at);
        self.read += AT_A_TIME;
    }
}
