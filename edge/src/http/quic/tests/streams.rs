//! Streams: many at once, large ones, ones that are given up.

use std::future::poll_fn;

use futures_util::future::join_all;

use super::{Checked, Served, Setting, answer_all, code, next_stream, patient, read_all, soon, write_body};
use crate::http::quic::{ReadError, WriteError};

#[tokio::test]
async fn many_streams_of_many_connections_arrive_exactly() {
    let served = Served::answering(Setting::default());
    let clients = join_all((0..6).map(|_| served.connect())).await;
    let fetches = clients.iter().enumerate().flat_map(|(number, client)| {
        (0..40).map(move |at| client.fetch([0, 1, 1200, 70_000, 400_000][(number + at) % 5] + at as u64))
    });
    join_all(fetches).await;
    served.counts("acknowledged", |census| census.sending == 0).await;
    assert_eq!(served.endpoint.census().connections, 6);
    drop(clients);
    served.emptied().await;
}

/// What is said of a stream before there is one is kept for it, and room that streams wait for goes to the first in rank.
#[tokio::test]
async fn the_stream_of_the_highest_rank_is_sent_first_also_if_it_was_ranked_before_it_was_opened() {
    const BYTES: u64 = 1_000_000;
    let served = Served::new(Setting::default());
    let mut transport = patient();
    transport.receive_window(code(30_000)).stream_receive_window(code(2_000_000));
    let (client, connection) = served.pair(served.addr, transport).await;
    // Streams 0, 4, 8 and 12; the last of them is said nothing of. One that may not be opened is none.
    for (index, rank) in [(0, 1), (1, 3), (2, 2), (1_000_000, 9)] {
        connection.prioritize(quinn_proto::StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Bi, index), rank);
    }
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(client.ask(BYTES).await);
        let (send, recv) = next_stream(&connection).await;
        connection.prioritize_first(send.id(), 1);
        tokio::spawn(super::answer(send, recv));
    }
    let order = std::sync::Mutex::new(Vec::new());
    let reading = answers.into_iter().enumerate().map(async |(number, mut answer)| {
        let mut checked = Checked::of(&answer);
        while let Some(chunk) = soon("bytes", answer.read_chunk(5000, true)).await.expect("no error") {
            checked.next(&chunk.bytes);
        }
        assert_eq!(checked.length, BYTES);
        order.lock().expect("no panic").push(number);
    });
    join_all(reading).await;
    let order = order.into_inner().expect("no panic");
    assert_eq!(order[..2], [1, 2], "{order:?}");
    drop((client, connection));
    served.emptied().await;
}

#[tokio::test]
async fn a_large_body_goes_through_small_windows() {
    let served = Served::new(Setting::default());
    let mut transport = patient();
    transport.stream_receive_window(code(60_000)).receive_window(code(90_000));
    let (client, connection) = served.pair(served.addr, transport).await;
    let serving = tokio::spawn(answer_all(connection.clone()));
    client.fetch(20_000_000).await;
    let stats = connection.stats();
    assert!(stats.udp_tx.ios < stats.udp_tx.datagrams / 2, "datagrams go in batches: {:?}", stats.udp_tx);
    assert!(stats.path.sent_plpmtud_probes > 0, "the path's MTU is searched for");
    drop((client, connection));
    soon("the server notices", serving).await.expect("no panic");
    served.emptied().await;
}

#[tokio::test]
async fn a_stream_that_the_client_stops_is_told_and_forgotten() {
    let served = Served::new(Setting::default());
    let (client, connection) = served.pair(served.addr, patient()).await;
    let mut received = client.ask(8).await;
    let (mut send, mut recv) = next_stream(&connection).await;
    read_all(&mut recv).await.expect("a request");
    let stopped = send.stopped();
    let (written, ()) = tokio::join!(write_body(&mut send, 1 << 40), async {
        let mut checked = Checked::of(&received);
        while checked.length < 5_000_000 {
            let chunk = soon("bytes", received.read_chunk(usize::MAX, true)).await.expect("no error").expect("it goes on");
            checked.next(&chunk.bytes);
        }
        received.stop(code(77)).expect("it is open");
    });
    assert_eq!(written, Err(WriteError::Stopped(code(77))));
    assert_eq!(soon("the news", stopped).await, Ok(Some(code(77))));
    drop((send, recv));
    served.counts("what was written is forgotten", |census| census.sending == 0 && census.waiting == 0).await;
    // The connection goes on.
    tokio::spawn(answer_all(connection));
    client.fetch(10).await;
    drop((client, received));
    served.emptied().await;
}

#[tokio::test]
async fn what_a_client_resets_or_leaves_half_way_is_told_to_who_reads() {
    let served = Served::new(Setting::default());
    let (client, connection) = served.pair(served.addr, patient()).await;
    let (mut reset, _) = client.connection.open_bi().await.expect("a stream");
    reset.write_all(b"half").await.expect("writes");
    let (send, mut recv) = next_stream(&connection).await;
    assert_eq!(recv.read_chunk(100).await.expect("bytes").expect("bytes"), "half");
    reset.reset(code(5)).expect("it is open");
    assert_eq!(soon("the reset", recv.read_chunk(100)).await, Err(ReadError::Reset(code(5))));
    assert_eq!(recv.read_chunk(100).await, Ok(None), "told once");
    drop((send, recv));

    let (mut left, _) = client.connection.open_bi().await.expect("a stream");
    left.write_all(b"half").await.expect("writes");
    let (mut send, mut recv) = next_stream(&connection).await;
    assert_eq!(recv.read_chunk(100).await.expect("bytes").expect("bytes"), "half");
    client.connection.close(code(9), b"left");
    let error = soon("the end", recv.read_chunk(100)).await.expect_err("no more");
    assert!(matches!(error, ReadError::Lost(quinn_proto::ConnectionError::ApplicationClosed(_))), "{error}");
    let error = send.write_chunks(&mut ["more".into()]).await.expect_err("nobody is there");
    assert!(matches!(error, WriteError::Lost(_)), "{error}");
    drop((send, recv, connection));
    served.emptied().await;
}

#[tokio::test]
async fn a_sending_half_that_is_dropped_is_finished_and_a_receiving_half_stopped() {
    let served = Served::new(Setting::default());
    let (client, connection) = served.pair(served.addr, patient()).await;
    let (mut asking, mut answered) = client.connection.open_bi().await.expect("a stream");
    asking.write_all(b"a question that is not read").await.expect("writes");
    let (mut send, recv) = next_stream(&connection).await;
    drop(recv);
    assert_eq!(soon("the stop", asking.stopped()).await, Ok(Some(code(0))));
    send.write_chunks(&mut ["an answer".into()]).await.expect("writes");
    drop(send);
    assert_eq!(soon("the answer", answered.read_to_end(100)).await.expect("finished"), b"an answer");
    served.counts("acknowledged", |census| census.sending == 0).await;
    drop((client, connection));
    served.emptied().await;
}

#[tokio::test]
async fn the_server_opens_streams_as_far_as_the_client_allows() {
    let served = Served::new(Setting::default());
    let mut transport = patient();
    transport.max_concurrent_uni_streams(code(2)).max_concurrent_bidi_streams(code(1));
    let (client, connection) = served.pair(served.addr, transport).await;
    let opening = async {
        for number in 0..7_u8 {
            let mut send = poll_fn(|cx| connection.poll_open_uni(cx)).await.expect("a stream");
            send.write_chunks(&mut [vec![number].into()]).await.expect("writes");
        }
        poll_fn(|cx| connection.poll_open_bi(cx)).await.expect("a stream")
    };
    let accepting = async {
        for number in 0..7_u8 {
            let mut recv = client.connection.accept_uni().await.expect("a stream");
            assert_eq!(recv.read_to_end(10).await.expect("finished"), [number]);
        }
    };
    let (halves, ()) = soon("all of them", async { tokio::join!(opening, accepting) }).await;
    drop((halves, client, connection));
    served.emptied().await;
}
