//! Floods of HTTP/2 frames. Each is cut off, each has its count, and others are served meanwhile.

use std::sync::atomic::Ordering;

use edge::http::{Flood, Limits, Protocol, limits};

use crate::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
        get_block, next, preface, repeat_until_closed, write,
    },
    support::{counted, counted_flood, fetch, patient, start},
};

#[tokio::test]
async fn frames_that_serve_no_request_end_the_connection() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http2).await;
    let ping = frame(PING, 0, 0, b"12345678");
    for (flood, noise) in [
        (Flood::Settings, frame(SETTINGS, 0, 0, &[])),
        (Flood::Ping, ping.clone()),
        (Flood::EmptyFrames, frame(DATA, 0, 1, &[])),
        (Flood::OtherFrames, frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 16])),
        (Flood::OtherFrames, frame(0xbe, 0, 0, &[])),
        (Flood::WindowUpdates, frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ] {
        let before = server.counters.floods_of(flood);
        // A request with content that never ends, so that there is a stream to send DATA on.
        let open = frame(HEADERS, END_HEADERS, 1, &get_block("/gated"));
        let first = [preface(), open].concat();
        let tls = server.raw_tls(Protocol::Http2).await;
        let attack = repeat_until_closed(tls, first, || noise.repeat(100));
        let (said, served) = patient(flood.name(), async { tokio::join!(attack, fetch(&witness, "/bytes/1000")) }).await;
        assert!(served.is_ok(), "{flood:?}: others are served");
        counted_flood(&server.counters, flood, before + 1).await;
        let pongs = said.iter().filter(|frame| frame.kind == PING).count();
        assert!(flood == Flood::Ping || pongs == 0);
    }
    assert_eq!(server.counters.floods.value(), 6, "one for each");
    let gone = async {
        while server.counters.of(Protocol::Http2).open.value() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    patient("only the witness is left", gone).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_pings_and_opens_windows_as_clients_do_goes_on() {
    let server = start(Limits::default());
    let mut tls = server.raw_tls(Protocol::Http2).await;
    let wide = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    assert!(write(&mut tls, &[preface(), wide, frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())].concat()).await);
    for turn in 0..40 {
        assert!(write(&mut tls, &get(2 * turn + 1, "/bytes/5000000")).await);
        let mut left = 5_000_000;
        while left > 0 {
            let frame_in = patient("a frame", next(&mut tls)).await.expect("it goes on");
            if frame_in.kind == DATA {
                left -= frame_in.payload.len();
                let update = (frame_in.payload.len() as u32).to_be_bytes();
                let both = [frame(WINDOW_UPDATE, 0, 0, &update), frame(WINDOW_UPDATE, 0, 2 * turn + 1, &update)].concat();
                assert!(frame_in.payload.is_empty() || write(&mut tls, &both).await);
            }
        }
        assert!(write(&mut tls, &frame(PING, 0, 0, b"12345678").repeat(20)).await);
    }
    assert_eq!(server.counters.floods.value(), 0);
    server.stop().await;
}

/// CVE-2023-44487, by a client that waits until its requests are under way, so that none is still to be accepted when it is reset.
#[tokio::test]
async fn requests_that_are_given_up_once_they_are_under_way_are_bounded_too() {
    const TOGETHER: u32 = 50;
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http2).await;
    let mut tls = server.raw_tls(Protocol::Http2).await;
    assert!(write(&mut tls, &preface()).await);
    let attack = async {
        let (mut stream, mut begun) = (1, 0_u64);
        loop {
            let streams: Vec<u32> = (0..TOGETHER).map(|number| stream + 2 * number).collect();
            stream += 2 * TOGETHER;
            let requests: Vec<u8> = streams.iter().flat_map(|&stream| get(stream, "/gated")).collect();
            if !write(&mut tls, &requests).await {
                return begun;
            }
            for _ in 0..TOGETHER {
                loop {
                    match next(&mut tls).await {
                        Some(frame) if frame.kind == HEADERS => break,
                        Some(_) => {}
                        None => return begun,
                    }
                }
                begun += 1;
            }
            let resets: Vec<u8> = streams.iter().flat_map(|&stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).collect();
            if !write(&mut tls, &resets).await {
                return begun;
            }
        }
    };
    let (begun, served) = patient("its end", async { tokio::join!(attack, fetch(&witness, "/bytes/1000")) }).await;
    assert!(served.is_ok(), "others are served");
    counted_flood(&server.counters, Flood::RapidReset, 1).await;
    assert!(begun >= u64::from(limits::RESETS.burst), "{begun}: a player that seeks is not cut off");
    let freed = async {
        while server.echo.dropped.count.load(Ordering::SeqCst) < begun {
            server.echo.dropped.notify.notified().await;
        }
    };
    patient("every body is dropped", freed).await;
    server.stop().await;
}

/// CVE-2025-8671: it is the server who resets, for errors of the client's making; the work is as wasted.
#[tokio::test]
async fn resets_that_a_client_provokes_are_bounded() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http2).await;
    type Fault = fn(u32) -> Vec<u8>;
    let provoke: [(&str, Fault); 5] = [
        ("a window of more than it can be", |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())),
        ("a window opened by nothing", |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4])),
        ("DATA after the end", |stream| frame(DATA, 0, stream, b"abc")),
        ("HEADERS after the end", |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_block("/gated"))),
        ("a stream that depends on itself", |stream| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat())),
    ];
    for (number, (what, fault)) in (1..).zip(provoke) {
        let before = server.counters.of(Protocol::Http2).requests.value();
        let mut stream = 1;
        let tls = server.raw_tls(Protocol::Http2).await;
        let attack = repeat_until_closed(tls, preface(), || {
            let bytes = [get(stream, "/gated"), fault(stream)].concat();
            stream += 2;
            bytes
        });
        let (_, served) = patient(what, async { tokio::join!(attack, fetch(&witness, "/bytes/1")) }).await;
        assert!(served.is_ok(), "{what}: others are served");
        let ended = async {
            let cut_off = || {
                let floods = [Flood::ProvokedResets, Flood::OtherFrames, Flood::RapidReset];
                floods.into_iter().map(|flood| server.counters.floods_of(flood)).sum::<u64>()
                    + server.counters.http2_violations.value()
            };
            while cut_off() < number {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        patient(what, ended).await;
        let begun = server.counters.of(Protocol::Http2).requests.value() - before;
        assert!(begun < 1200, "{what}: {begun} requests were begun");
    }
    assert!(server.counters.floods_of(Flood::ProvokedResets) > 0, "h2's own limit is among them");
    server.stop().await;
}

/// CVE-2024-27316.
#[tokio::test]
async fn a_head_that_goes_on_for_ever_ends_the_connection() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http2).await;
    // A field without indexing, "a: b", again and again; or nothing at all.
    let fields = [0x00, 1, b'a', 1, b'b'].repeat(100);
    for (number, (what, payload)) in (1..).zip([("empty", &[][..]), ("full", &fields)]) {
        let tls = server.raw_tls(Protocol::Http2).await;
        let first = [preface(), frame(HEADERS, END_STREAM, 1, &get_block("/bytes/1"))].concat();
        let attack = repeat_until_closed(tls, first, || frame(CONTINUATION, 0, 1, payload).repeat(10));
        let (_, served) = patient(what, async { tokio::join!(attack, fetch(&witness, "/bytes/1")) }).await;
        assert!(served.is_ok(), "{what}: others are served");
        counted_flood(&server.counters, Flood::Continuation, number).await;
    }
    assert_eq!(server.counters.of(Protocol::Http2).requests.value(), 2, "the witness's");
    server.stop().await;
}

/// A field of 4 KB goes to HPACK's table once and is then named in one byte, as often as a frame has bytes: 48 MB in 16 KiB.
#[tokio::test]
async fn a_head_that_is_small_on_the_wire_and_large_in_memory_is_refused() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http2).await;
    let mut block = get_block("/bytes/1");
    // Literal with incremental indexing, a new name (RFC 7541 §6.2.1); 3900 in seven bits and more (§5.1).
    block.extend([0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
    block.extend([b'y'; 3900]);
    // Its index is the table's first (§6.1, §2.3.3).
    block.resize(16_384, 0x80 | 62);
    let mut tls = server.raw_tls(Protocol::Http2).await;
    assert!(write(&mut tls, &[preface(), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)].concat()).await);
    let end = async { while next(&mut tls).await.is_some() {} };
    let ((), served) = patient("its end", async { tokio::join!(end, fetch(&witness, "/bytes/1")) }).await;
    assert!(served.is_ok(), "others are served");
    counted("the head", &server.counters.heads_too_large, 1).await;
    assert_eq!(server.counters.floods.value(), 0);
    server.stop().await;
}
