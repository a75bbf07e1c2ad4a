use std::{fs, os::unix::fs::FileExt, time::Duration};

use origin::{Config, Origin};
use tokio::time::timeout;
use wire::object::Digest;

use crate::support::{Client, SECRET, authorized, film, run};

#[tokio::test]
async fn only_who_knows_the_secret_gets_anything_but_health() {
    let film = film().await;
    let running = run(&film.state_dir, 100).await;
    let path = format!("{}/master.m3u8", film.title.root);
    let mut client = Client::new(&running).await;
    client.send("GET /healthz HTTP/1.1\r\nHost: o\r\n\r\n").await;
    assert_eq!(client.answer(false).await.body, b"ok");
    for authorization in [
        String::new(),
        "Authorization: Bearer\r\n".into(),
        "Authorization: Bearer x\r\n".into(),
        format!("Authorization: Bearer {SECRET}x\r\n"),
        format!("Authorization: Bearer {}\r\n", SECRET.to_uppercase()),
        format!("Authorization: Basic {SECRET}\r\n"),
        format!("Authorization: {SECRET}\r\n"),
    ] {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: o\r\n{authorization}\r\n")).await;
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{authorization}");
        assert_eq!(answer.body, b"no valid fill token");
    }
    client.send(&format!("GET {path} HTTP/1.1\r\nHost: o\r\nAuthorization: bearer {SECRET}\r\n\r\n")).await;
    assert_eq!(client.answer(false).await.status, 200);
    assert_eq!((running.counters.requests(), running.counters.unauthorized()), (8, 7));
}

#[tokio::test]
async fn objects_of_a_title_are_immutable_and_typed() {
    let film = film().await;
    let running = run(&film.state_dir, 100).await;
    let mut client = Client::new(&running).await;
    for object in &film.title.objects {
        let answer = client.ask("GET", &format!("{}/{}", film.title.root, object.path), "").await;
        assert_eq!(answer.status, 200, "{}", object.path);
        assert_eq!(Digest::of(&answer.body), object.digest, "{}", object.path);
        assert_eq!(answer.header("etag"), Some(object.digest.etag().as_str()));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        let content_type = match object.path.as_str() {
            path if path.ends_with(".m3u8") => "application/vnd.apple.mpegurl",
            "manifest.mpd" => "application/dash+xml",
            "poster.jpg" | "storyboard.jpg" => "image/jpeg",
            "storyboard.vtt" => "text/vtt",
            path if path.starts_with('a') => "audio/mp4",
            _ => "video/mp4",
        };
        assert_eq!(answer.header("content-type"), Some(content_type), "{}", object.path);
    }
    let sent: u64 = film.title.objects.iter().map(|object| object.bytes).sum();
    assert_eq!(running.counters.body_bytes(), sent);
}

#[tokio::test]
async fn heads_ranges_and_conditions() {
    let film = film().await;
    let running = run(&film.state_dir, 100).await;
    let object = film.title.objects.iter().find(|object| object.path.ends_with("00001.m4s")).unwrap();
    let (path, etag, bytes) = (format!("{}/{}", film.title.root, object.path), object.digest.etag(), film.read(&object.path));
    let length = bytes.len();
    let mut client = Client::new(&running).await;

    let answer = client.ask("HEAD", &path, "Range: bytes=0-1\r\n").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some(length.to_string().as_str())));

    let answer = client.ask("GET", &path, "Range: bytes=100-199\r\n").await;
    assert_eq!((answer.status, answer.body.as_slice()), (206, &bytes[100..200]));
    assert_eq!(answer.header("content-range"), Some(format!("bytes 100-199/{length}").as_str()));
    assert_eq!(answer.header("etag"), Some(etag.as_str()));

    let answer = client.ask("GET", &path, "Range: bytes=-7\r\n").await;
    assert_eq!((answer.status, answer.body.as_slice()), (206, &bytes[length - 7..]));

    let answer = client.ask("GET", &path, &format!("Range: bytes={length}-\r\n")).await;
    assert_eq!((answer.status, answer.header("content-range")), (416, Some(format!("bytes */{length}").as_str())));

    let answer = client.ask("GET", &path, &format!("If-None-Match: \"x\", {etag}\r\n")).await;
    assert_eq!((answer.status, answer.header("etag"), answer.header("content-length")), (304, Some(etag.as_str()), None));

    let answer = client.ask("GET", &path, "If-Match: \"other\"\r\n").await;
    assert_eq!(answer.status, 412);
    let answer = client.ask("GET", &path, &format!("If-Match: {etag}\r\nRange: bytes=0-0\r\n")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (206, &bytes[..1]));

    let answer = client.ask("GET", &path, "If-Range: \"other\"\r\nRange: bytes=0-0\r\n").await;
    assert_eq!((answer.status, answer.body.len()), (200, length));
}

#[tokio::test]
async fn what_is_not_an_object_is_not_found() {
    let film = film().await;
    let running = run(&film.state_dir, 100).await;
    let mut client = Client::new(&running).await;
    let root = &film.title.root;
    for path in [
        "/".into(),
        "/titles".into(),
        format!("{root}"),
        format!("{root}/"),
        format!("{root}/.title.json"),
        format!("{root}/v180"),
        format!("{root}/v180/../master.m3u8"),
        format!("{root}/%2e%2e/x"),
        format!("{root}/none"),
        format!("/titles/{}/master.m3u8", Digest::of(b"")),
        "/files/../film.mp4".into(),
        "//etc/passwd".into(),
        "/staging/.lock".into(),
    ] {
        let answer = client.ask("GET", &path, "").await;
        assert_eq!((answer.status, answer.body.as_slice()), (404, b"no such object".as_slice()), "{path}");
    }
    let answer = client.ask("DELETE", "/files/x", "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn a_sparse_file_of_50_gb_has_64_bit_offsets() {
    const LENGTH: u64 = 50_000_000_000;
    let state = tempfile::tempdir().unwrap();
    let running = run(state.path(), 100).await;
    let file = fs::File::create(state.path().join("files/large.mp4")).unwrap();
    file.set_len(LENGTH).unwrap();
    file.write_all_at(b"near the end", LENGTH - 20).unwrap();
    let mut client = Client::new(&running).await;
    let answer = client.ask("HEAD", "/files/large.mp4", "").await;
    assert_eq!(answer.header("content-length"), Some("50000000000"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    let etag = answer.header("etag").unwrap().to_owned();
    let headers = format!("If-Match: {etag}\r\nRange: bytes=49999999980-49999999991\r\n");
    let answer = client.ask("GET", "/files/large.mp4", &headers).await;
    assert_eq!((answer.status, answer.body.as_slice()), (206, b"near the end".as_slice()));
    assert_eq!(answer.header("content-range"), Some("bytes 49999999980-49999999991/50000000000"));
    let answer = client.ask("GET", "/files/large.mp4", "Range: bytes=40000000000-40002097151\r\n").await;
    assert_eq!((answer.status, answer.body.len()), (206, 2 << 20));
    assert!(answer.body.iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let state = tempfile::tempdir().unwrap();
    let running = run(state.path(), 100).await;
    for name in ["a", "b", "c"] {
        fs::write(state.path().join("files").join(name), name.repeat(300_000)).unwrap();
    }
    let mut client = Client::new(&running).await;
    let requests = ["a", "b", "none", "c"].map(|name| authorized("GET", &format!("/files/{name}"), ""));
    client.send(&requests.concat()).await;
    for (status, body) in [(200, "a".repeat(300_000)), (200, "b".repeat(300_000)), (404, "no such object".into())] {
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.body == body.as_bytes()), (status, true));
    }
    assert_eq!(client.answer(false).await.body, "c".repeat(300_000).as_bytes());
}

#[tokio::test]
async fn connections_are_bounded_and_wait_for_room() {
    let state = tempfile::tempdir().unwrap();
    let running = run(state.path(), 1).await;
    let mut first = Client::new(&running).await;
    assert_eq!(first.ask("GET", "/files/none", "").await.status, 404);
    let mut second = Client::new(&running).await;
    second.send(&authorized("GET", "/files/none", "")).await;
    assert!(timeout(Duration::from_millis(100), second.answer(false)).await.is_err(), "there is no room for it");
    drop(first);
    assert_eq!(second.answer(false).await.status, 404);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let running = run(state.path(), 10).await;
    let mut client = Client::new(&running).await;
    client.send(&format!("GET /healthz HTTP/1.1\r\nHost: o\r\nX: {}\r\n\r\n", "x".repeat(20_000))).await;
    assert_eq!(client.answer(false).await.status, 431);
}

#[tokio::test]
async fn stopping_finishes_what_is_sent_and_takes_nothing_new() {
    let state = tempfile::tempdir().unwrap();
    let mut running = run(state.path(), 10).await;
    let bytes = vec![7; 20 << 20];
    fs::write(state.path().join("files/large"), &bytes).unwrap();
    let mut client = Client::new(&running).await;
    let mut idle = Client::new(&running).await;
    assert_eq!(idle.ask("GET", "/healthz", "").await.status, 200);
    client.send(&authorized("GET", "/files/large", "")).await;
    // Its head is there: it is being sent, and far more than the sockets' buffers hold is still to come.
    client.0.readable().await.unwrap();
    running.stop.cancel();
    let answer = client.answer(false).await;
    assert!(answer.status == 200 && answer.body == bytes);
    (&mut running.ended).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(running.addr).await.is_err());
}

#[tokio::test]
async fn an_object_of_another_length_is_an_error_and_never_a_wrong_answer() {
    let state = tempfile::tempdir().unwrap();
    let film = film().await;
    let root = film.title.root.relative();
    fs::create_dir_all(state.path().join(root)).unwrap();
    fs::copy(film.folder().join(".title.json"), state.path().join(root).join(".title.json")).unwrap();
    fs::write(state.path().join(root).join("master.m3u8"), "#EXTM3U\n").unwrap();
    let running = run(state.path(), 10).await;
    let mut client = Client::new(&running).await;
    let answer = client.ask("GET", &format!("/{root}/master.m3u8"), "").await;
    assert_eq!((answer.status, answer.body.as_slice()), (500, b"the store is damaged; see the origin's log".as_slice()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(client.ask("GET", &format!("/{root}/manifest.mpd"), "").await.status, 404);
}

#[tokio::test]
async fn an_origin_that_cannot_start_says_why() {
    let state = tempfile::tempdir().unwrap();
    let running = run(state.path(), 10).await;
    let token = state.path().join("token");
    let open = async |listen: std::net::SocketAddr, state_dir: &str| {
        let (state_dir, fill_token_file) = (state.path().join(state_dir), token.clone());
        let opened = Origin::open(Config { listen, state_dir, fill_token_file, connections_max: 1, control: None }).await;
        opened.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let free = "127.0.0.1:0".parse().unwrap();
    let error = open(free, "state").await;
    assert!(error.contains("token (fill_token_file): No such file"), "{error}");
    fs::write(&token, "short").unwrap();
    let error = open(free, "state").await;
    assert!(error.contains("token (fill_token_file): it is shorter than 16 characters; "), "{error}");
    fs::write(&token, SECRET).unwrap();
    let error = open(free, "token").await;
    assert!(error.starts_with("cannot use the state directory: ") && error.contains("Not a directory"), "{error}");
    let error = open(running.addr, "state").await;
    let expected = format!("cannot listen on {}: Address already in use", running.addr);
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(open(free, "state").await, "");
}
