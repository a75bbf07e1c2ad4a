//! What operators do over control's API by commands: the catalogue, the edges that control knows, what it keeps of users.

use std::{
    cmp::Reverse,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::object::Digest;

use crate::{
    cli::{Said, folder, larder, said, words},
    support::Role,
};

const OPERATOR: &str = "the-secret-of-an-operator-of-a-test";
const EDGE: &str = "the-secret-of-all-edges-of-a-test";
const VIEWERS_KEY: [u8; 32] = [7; 32];
/// How long control may take for one answer, and its search to follow the catalogue.
const PATIENCE: Duration = Duration::from_secs(60);

/// A control that runs, and the files of its operators.
struct Site {
    dir: TempDir,
    control: Role,
    addr: SocketAddr,
}

impl Site {
    fn start() -> Self {
        Self::start_limited("operator_per_second = 0")
    }

    /// With these lines under `[limits]`.
    fn start_limited(limits: &str) -> Self {
        let dir = folder([("operator", OPERATOR), ("edge", EDGE), ("looker", "the-secret-of-one-who-only-looks")]);
        let d = dir.path().display();
        let key = words(&format!("sign --new-key EdDSA --kid test --out {d}/key --public-out {d}/keys.json"));
        assert_eq!(key.code, Some(0), "{key:?}");
        let jwk = json!({ "kty": "oct", "kid": "viewers", "alg": "HS256", "k": BASE64_URL_SAFE_NO_PAD.encode(VIEWERS_KEY) });
        let config = format!(
            "role = \"control\"\nlisten = \"127.0.0.1:0\"\nstate_dir = \"{d}/state\"\ntoken_issuer = \"test\"\n\
             signing_key_file = \"{d}/key\"\noperator_token_file = \"{d}/operator\"\nedge_token_file = \"{d}/edge\"\n\
             operators = [{{ name = \"looker\", role = \"viewer\", token_file = \"{d}/looker\" }}]\n\
             [viewers]\njwks_file = \"{d}/viewers.jwks\"\nissuer = \"https://id.example\"\naudience = \"larder\"\n\
             profile_claim = \"profile\"\n\
             [limits]\n{limits}\n"
        );
        fs::write(dir.path().join("viewers.jwks"), json!({ "keys": [jwk] }).to_string()).expect("writes");
        fs::write(dir.path().join("control.toml"), config).expect("writes");
        let control = Role::start("control", &dir.path().join("control.toml"));
        // It took any free port, and its log says which.
        let log = fs::read_to_string(dir.path().join("control.log")).expect("a log");
        let addr = log.split("addr=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address in the log");
        let addr = addr.parse().unwrap_or_else(|error| panic!("{error}: {log}"));
        Self { dir, control, addr }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `larder <line>`, by an operator who says on the command line where control is.
    fn larder(&self, line: &str) -> Said {
        self.larder_as("operator", line)
    }

    fn larder_as(&self, secret: &str, line: &str) -> Said {
        let mut command = larder(line.split_whitespace());
        said(command.args(["--control", &format!("http://{}", self.addr), "--token-file"]).arg(self.path(secret)))
    }

    /// The same, and what it says on standard output, as it must succeed.
    #[track_caller]
    fn told(&self, line: &str) -> String {
        let said = self.larder(line);
        assert_eq!(said.code, Some(0), "{said:?}");
        said.out
    }

    /// The objects that it prints, one a line.
    #[track_caller]
    fn objects(&self, line: &str) -> Vec<Value> {
        let said = self.told(line);
        said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// What it prints once that `is` it: search follows the catalogue.
    fn found(&self, line: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let found = self.objects(line);
            if is(&found) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "{line}: {found:?}");
        }
    }

    /// The ids of the titles that it lists, once there are so many.
    fn ids(&self, line: &str, titles: usize) -> Vec<String> {
        let found = self.found(&format!("catalog list --json {line}"), |found| found.len() == titles);
        found.iter().map(|title| title["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Writes a file, and gives its path.
    fn file(&self, name: &str, text: &str) -> String {
        let file = self.path(name);
        fs::write(&file, text).expect("writes");
        file.display().to_string()
    }

    /// Writes a title as an origin publishes it, and gives its file.
    fn title(&self, id: &str, name: &str) -> String {
        self.file(&format!("{id}.json"), &title(id, name).to_string())
    }

    /// Has a title catalogued of which this is said besides.
    fn catalogued(&self, id: &str, name: &str, words: Value) {
        let mut title = title(id, name);
        title.as_object_mut().expect("an object").extend(words.as_object().expect("an object").clone());
        assert_eq!(self.ask("PUT", &format!("/videos/{id}"), OPERATOR, &title), 201);
    }

    /// Another client: an edge, or a player. The answer's status.
    fn ask(&self, method: &str, path: &str, bearer: &str, body: &Value) -> u16 {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.addr).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: control.test\r\nConnection: close\r\nAuthorization: Bearer {bearer}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
    }
}

/// A title of four seconds with a rendition of video and one of audio.
fn title(id: &str, name: &str) -> Value {
    let rendition = |name: &str, codecs: &str, bits: u64| {
        json!({
            "id": name, "codecs": codecs, "bitsPerSecondPeak": 2 * bits, "bitsPerSecondMean": bits,
            "playlist": format!("{name}/playlist.m3u8"), "init": format!("{name}/init.mp4"),
            "segments": [{ "path": format!("{name}/00001.m4s"), "startMs": 0, "durationMs": 4000 }],
        })
    };
    let (mut video, mut audio) = (rendition("v720", "avc1.64001f", 1_500_000), rendition("a1", "mp4a.40.2", 96_000));
    for (rendition, media) in [
        (&mut video, json!({ "kind": "video", "width": 1280, "height": 720, "frameRate": 25.0 })),
        (&mut audio, json!({ "kind": "audio", "channels": 2, "sampleRate": 48_000, "language": "de" })),
    ] {
        rendition.as_object_mut().expect("an object").extend(media.as_object().expect("an object").clone());
    }
    let digest = |text: &str| Digest::of(text.as_bytes()).to_string();
    let mut paths = vec!["manifest.mpd", "master.m3u8", "poster.jpg", "storyboard.jpg", "storyboard.vtt"];
    paths.extend(["a1/00001.m4s", "a1/init.mp4", "a1/playlist.m3u8", "v720/00001.m4s", "v720/init.mp4", "v720/playlist.m3u8"]);
    paths.sort_unstable();
    let objects: Vec<_> = paths
        .into_iter()
        .map(|path| json!({ "path": path, "bytes": 10, "digest": digest(path), "contentType": "video/mp4" }))
        .collect();
    json!({
        "id": id, "title": name, "description": "About nothing.", "cast": ["Änne Somebody", "Bo Other"], "rating": "PG-13",
        "durationMs": 4000, "root": format!("/titles/{}", digest(id)), "fingerprint": digest(&format!("source of {id}")),
        "hls": "master.m3u8", "dash": "manifest.mpd", "poster": "poster.jpg", "storyboard": "storyboard.vtt",
        "renditions": [video, audio], "objects": objects,
    })
}

/// A viewer's token, good for an hour.
fn token(subject: &str, profile: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let header = json!({ "typ": "JWT", "alg": "HS256", "kid": "viewers" });
    let claims = json!({ "iss": "https://id.example", "aud": "larder", "sub": subject, "profile": profile, "iat": now, "exp": now + 3600 });
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &VIEWERS_KEY), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn titles_are_published_listed_shown_and_removed() {
    let site = Site::start();
    assert_eq!(site.told("catalog list"), "the catalogue is empty\n");
    assert_eq!(site.objects("catalog list --json"), Vec::<Value>::new());

    let file = site.title("film-1", "A first film");
    assert_eq!(site.told(&format!("catalog publish {file}")), "film-1 is catalogued: A first film\n");
    site.larder(&format!("catalog publish {file}")).failed(1, &["film-1 is catalogued already; --replace", "412"]);
    let file = site.title("film-1", "Another first film");
    assert_eq!(
        site.told(&format!("catalog publish --replace {file}")),
        "film-1 is catalogued in place of the earlier one: Another first film\n"
    );
    let file = site.title("film-2", "A second \u{1b}[2Jfilm");
    site.larder(&format!("catalog publish {file}")).failed(1, &["422", "/title"]);
    let file = site.title("film-2", "A second film");
    let published = site.objects(&format!("catalog publish --json {file}"));
    assert_eq!((&published[0]["id"], &published[0]["durationMs"]), (&json!("film-2"), &json!(4000)));

    let listed = site.told("catalog list");
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with("TITLE"), "{listed}");
    assert!(lines[1].starts_with("film-2  0:00:04") && lines[1].ends_with("  A second film"), "{listed}");
    assert!(lines[2].starts_with("film-1  0:00:04") && lines[2].contains("PG-13"), "{listed}");
    assert_eq!(lines.len(), 3);
    assert_eq!(site.ids("--search second", 1), ["film-2"]);
    assert_eq!(site.told("catalog list --search qqqqxxxxzzzz"), "no title is found\n");

    let shown = site.told("catalog show film-1");
    for line in [
        "film-1: Another first film\n",
        "  plays       0:00:04\n",
        "  rating      PG-13\n",
        "  cast        Änne Somebody, Bo Other\n",
        "  about       About nothing.\n",
        "  v720       avc1.64001f  1,500   3,000  1280x720 at 25.0 frames a second\n",
        "  a1         mp4a.40.2    96      192    channels 2, language de\n",
    ] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    assert_eq!(site.objects("catalog show film-1 --json")[0]["renditions"][0]["width"], 1280);

    site.larder("catalog remove film-1").failed(2, &["removing a title needs --yes"]);
    assert!(site.told("catalog remove film-1 --yes").starts_with("film-1 is removed from the catalogue."));
    assert_eq!(site.objects("catalog remove film-2 --yes --json"), [json!({ "removed": "film-2" })]);
    for line in ["catalog show film-1", "catalog remove film-1 --yes"] {
        site.larder(line).failed(1, &["404", "no title \"film-1\" is catalogued"]);
    }
    assert!(site.control.stop().success());
}

#[test]
fn all_titles_are_listed_page_by_page_and_what_is_left_out_is_told() {
    const TITLES: usize = 203;
    // Who asks for more than two pages at once is told to wait, and waits.
    let site = Site::start_limited("operator_burst = 2");
    for n in 0..TITLES {
        let title = title(&format!("film-{n:03}"), &format!("Film {n}"));
        while site.ask("PUT", &format!("/videos/film-{n:03}"), OPERATOR, &title) == 429 {}
    }
    let ids = |said: &Said| {
        let lines = said.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.map(|title| title["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let expected: Vec<_> = (0..TITLES).rev().map(|n| format!("film-{n:03}")).collect();
    let all = site.larder("catalog list --all --json");
    assert_eq!((ids(&all), all.err.as_str()), (expected.clone(), ""));
    let some = site.larder("catalog list --limit 101 --json");
    assert_eq!(ids(&some), expected[..101]);
    assert!(some.err.contains("There are more"), "{some:?}");
    let exactly = site.larder(&format!("catalog list --limit {TITLES}"));
    assert_eq!((exactly.out.lines().count(), exactly.err.as_str()), (TITLES + 1, ""));
    assert_eq!(site.larder("catalog list").out.lines().count(), 21);
    site.larder("catalog list --all --limit 3").failed(2, &["--limit"]);
    site.larder("catalog list --limit 0").failed(2, &["--limit"]);
}

#[test]
fn titles_are_listed_by_what_is_said_of_them_and_counted() {
    let site = Site::start();
    assert_eq!(site.told("catalog list --facets"), "the catalogue is empty\n");
    site.catalogued(
        "a-film",
        "The Alpha",
        json!({ "genres": ["War", "Drama"], "year": 1963, "language": "en-GB", "kind": "film" }),
    );
    site.catalogued("b-film", "Beta", json!({ "genres": ["Drama"], "year": 1969, "language": "de", "kind": "film" }));
    site.catalogued("c-part", "Gamma", json!({ "genres": ["Comedy"], "year": 1999, "language": "en", "kind": "episode" }));
    site.catalogued("d-film", "Delta", json!({}));
    site.found("catalog list --facets --json", |counts| counts[0]["total"] == 4 && counts[0]["complete"] == true);

    for (line, ids) in [
        ("", &["a-film", "b-film", "d-film", "c-part"][..]),
        ("--genre war", &["a-film"]),
        ("--genre DRAMA", &["a-film", "b-film"]),
        ("--genre war,comedy", &["a-film", "c-part"]),
        ("--genre war --genre comedy", &["a-film", "c-part"]),
        ("--year 1960-1969", &["a-film", "b-film"]),
        ("--year 1963 --year 1990-1999", &["a-film", "c-part"]),
        ("--language en", &["a-film", "c-part"]),
        ("--language en-GB,de", &["a-film", "b-film"]),
        ("--kind film", &["a-film", "b-film"]),
        ("--kind episode,short", &["c-part"]),
        ("--genre drama --year 1969 --language de --kind film --search beta", &["b-film"]),
        ("--kind film --limit 1", &["a-film"]),
    ] {
        assert_eq!(site.ids(&format!("{line} --sort title"), ids.len()), ids, "{line}");
    }
    let newest = site.objects("catalog list --sort newest --json");
    assert!(newest.len() == 4 && newest.is_sorted_by_key(|title| Reverse(title["createdAt"].to_string())), "{newest:?}");
    assert!(site.larder("catalog list --sort title --limit 1").err.contains("There are more"));
    assert_eq!(site.told("catalog list --kind trailer"), "no title is found\n");

    let counts = site.told("catalog list --facets");
    let lines: Vec<_> = counts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[..2], ["4 titles", "OF VALUE TITLES"]);
    for line in ["genres Drama 2", "genres War 1", "kinds film 2", "languages en-GB 1", "years 1963 1"] {
        assert!(lines.iter().any(|told| told == line), "no {line:?} in {counts}");
    }
    assert!(site.told("catalog list --facets --search alpha").starts_with("1 title\n"));
    // A filter counts as if it were not set, the others hold.
    let counts = &site.objects("catalog list --facets --json --kind episode")[0];
    assert_eq!((&counts["total"], &counts["facets"]["genres"]), (&json!(1), &json!([{ "value": "Comedy", "count": 1 }])));
    assert_eq!(counts["facets"]["kinds"], json!([{ "value": "film", "count": 2 }, { "value": "episode", "count": 1 }]));
    assert_eq!(counts.get("videos"), None);
    let none = site.told("catalog list --facets --kind trailer");
    assert!(none.starts_with("no title is found\n") && none.contains("episode"), "{none}");

    // What is typed wrongly is told, and never as if nothing had been asked for.
    for line in ["--genre=", "--genre=war,", "--year=1999-1990", "--year=soon"] {
        site.larder(&format!("catalog list {line}")).failed(1, &["400"]);
    }
    for line in ["--kind=movie", "--sort=best", "--facets --limit=3", "--facets --all", "--facets --sort=title"] {
        site.larder(&format!("catalog list {line}")).failed(2, &["--"]);
    }
}

#[test]
fn titles_that_a_filter_finds_are_listed_page_by_page() {
    const CLIPS: usize = 105;
    let site = Site::start();
    site.catalogued("film-1", "A film", json!({ "kind": "film" }));
    for n in 0..CLIPS {
        site.catalogued(&format!("clip-{n:03}"), &format!("Clip {n:03}"), json!({ "kind": "clip" }));
    }
    let ids: Vec<_> = (0..CLIPS).map(|n| format!("clip-{n:03}")).collect();
    assert_eq!(site.ids("--all --kind clip --sort title", CLIPS), ids);
    assert_eq!(site.ids("--limit 102 --kind clip --sort title", 102), ids[..102]);
}

#[test]
fn a_film_that_is_catalogued_already_is_catalogued_under_another_id_where_that_is_said() {
    let site = Site::start();
    site.catalogued("film-1", "A film", json!({}));
    let again = |title: &mut Value| title["fingerprint"] = json!(Digest::of(b"source of film-1").to_string());
    let mut second = title("film-2", "The same film");
    again(&mut second);
    let file = site.file("film-2.json", &second.to_string());
    let publish = format!("catalog publish {file}");
    site.larder(&publish).failed(1, &["the film of film-2 is catalogued under another id; --allow-duplicate", "409", "film-1"]);
    site.larder(&format!("{publish} --replace")).failed(1, &["--allow-duplicate", "409"]);
    assert_eq!(site.told(&format!("{publish} --allow-duplicate")), "film-2 is catalogued: The same film\n");
    assert_eq!(site.ids("", 2), ["film-2", "film-1"]);
    // That need not be said again.
    assert!(site.told(&format!("{publish} --replace")).starts_with("film-2 is catalogued in place of the earlier one"));
    site.larder(&format!("{publish} --allow-duplicate")).failed(1, &["film-2 is catalogued already; --replace", "412"]);
}

#[test]
fn what_is_said_of_a_title_is_changed_and_what_is_not_named_stays() {
    let site = Site::start();
    site.catalogued("film-1", "A film", json!({ "genres": ["War"], "year": 1963 }));
    let changed = site.told("catalog update film-1 --title Another --genre Drama --genre Comedy --language pt-BR --kind short");
    for line in [
        "film-1: Another\n",
        "  kind        short\n",
        "  year        1963\n",
        "  genres      Drama, Comedy\n",
        "  language    pt-BR\n",
        "  rating      PG-13\n",
        "  cast        Änne Somebody, Bo Other\n",
        "  about       About nothing.\n",
        "  v720       avc1.64001f  1,500   3,000  1280x720 at 25.0 frames a second\n",
    ] {
        assert!(changed.contains(line), "no {line:?} in {changed}");
    }
    assert_eq!(site.told("catalog show film-1"), changed);

    let words = |title: &Value| json!([title["title"], title["cast"], title["rating"], title["genres"], title["year"]]);
    let line = "catalog update film-1 --json --cast Ada --rating FSK12 --year 1964 --clear genre --clear kind --clear language";
    let changed = site.objects(line);
    assert_eq!(changed, site.objects("catalog show film-1 --json"));
    assert_eq!(words(&changed[0]), json!(["Another", ["Ada"], "FSK12", [], 1964]));
    assert_eq!((&changed[0]["kind"], &changed[0]["language"]), (&json!(null), &json!(null)));
    site.told("catalog update film-1 --clear cast --clear description --clear rating --clear year");
    let shown = site.told("catalog show film-1");
    assert!(["cast", "about", "rating", "year"].iter().all(|fact| !shown.contains(&format!("  {fact} "))), "{shown}");

    let file = site.file("words.json", r#"{ "title": "By a file", "cast": ["Bo Other"], "year": 1999, "genres": null }"#);
    assert_eq!(words(&site.objects(&format!("catalog update film-1 --json --patch {file}"))[0])[0], "By a file");
    let control = format!("http://{}", site.addr);
    let mut command = larder(["catalog", "update", "film-1", "--json", "--patch", "-", "--control", &control, "--token-file"]);
    let input = site.file("input.json", r#"{ "rating": "PG", "year": null }"#);
    let by_input = said(command.arg(site.path("operator")).stdin(fs::File::open(input).expect("a file")));
    assert_eq!((by_input.code, words(&by_input.json())), (Some(0), json!(["By a file", ["Bo Other"], "PG", [], null])));
    assert!(site.told("catalog update film-1 --description=").contains("film-1: By a file\n"));
    assert!(site.ids("--search file", 1) == ["film-1"]);
}

#[test]
fn a_title_is_changed_only_as_it_was_seen_where_that_is_said() {
    let site = Site::start();
    let file = site.title("film-1", "A film");
    let etag = |objects: &[Value]| objects[0]["etag"].as_str().expect("an etag").to_owned();
    let published = etag(&site.objects(&format!("catalog publish --json {file}")));
    assert_eq!(etag(&site.objects("catalog show film-1 --json")), published);
    assert!(site.told("catalog show film-1").contains(&format!("  etag        {published}\n")));

    let update = |year: u16, seen: &str| format!("catalog update film-1 --json --year {year} --if-match {seen}");
    let second = etag(&site.objects(&update(1991, &published)));
    assert_ne!(second, published);
    // As a shell gives it on.
    let third = etag(&site.objects(&update(1992, second.trim_matches('"'))));
    for stale in [&published, &second, "null", "W/\"x\""] {
        site.larder(&update(1993, stale)).failed(1, &["film-1 was changed since", "larder catalog show film-1", "412"]);
    }
    assert_eq!(etag(&site.objects("catalog show film-1 --json")), third);
    assert_eq!(site.objects(&update(1994, "*"))[0]["year"], 1994);
    site.larder("catalog update film-2 --year 1994 --if-match *").failed(1, &["404", "no title \"film-2\" is catalogued"]);
}

#[test]
fn a_title_is_not_changed_to_what_it_cannot_be_nor_for_nothing() {
    let site = Site::start();
    site.catalogued("film-1", "A film", json!({ "year": 1963 }));
    let shown = site.told("catalog show film-1");
    let (empty, rating) = (site.file("empty.json", "{}"), "x".repeat(33));
    for (line, words) in [
        ("", &["nothing to change of film-1", "--title", "--clear", "--patch"][..]),
        (&format!("--patch {empty}"), &["nothing to change"]),
        ("--if-match *", &["nothing to change"]),
        ("--year 1999 --clear year", &["year", "--clear"]),
        ("--genre Drama --clear genres", &["genres", "--clear"]),
        ("--clear title", &["--clear <FIELD>", "description"]),
        (&format!("--patch {empty} --year 1999"), &["--patch <FILE>", "--year"]),
        ("--year 1066", &["--year", "1870"]),
        ("--language English!", &["--language", "BCP 47"]),
        ("--kind movie", &["--kind", "trailer"]),
        ("--if-match \u{7f} --year 1999", &["--if-match", "larder catalog show"]),
    ] {
        site.larder(&format!("catalog update film-1 {line}")).failed(2, words);
    }
    let (none, list) = (site.path("none.json").display().to_string(), site.file("list.json", "[1]"));
    let large = site.file("large.json", &format!("{{ \"title\": \"{}\" }}", "x".repeat(64 << 10)));
    let other = site.file("other.json", r#"{ "director": "Ada", "year": 1999 }"#);
    let untitled = site.file("untitled.json", r#"{ "title": null }"#);
    for (line, words) in [
        ("--title=".to_owned(), &["422", "/title: it is empty"][..]),
        (format!("--year 1999 --rating {rating}"), &["422", "/rating: it is longer than 32 characters"]),
        ("--cast Ada --cast=".to_owned(), &["422", "/cast/1: it is empty"]),
        (format!("--patch {other}"), &["422", "film-1/metadata: unknown field `director`"]),
        (format!("--patch {untitled}"), &["422", "film-1/metadata: missing field `title`"]),
        (format!("--patch {none}"), &["cannot read the merge patch in", "none.json", "No such file"]),
        (format!("--patch {list}"), &["list.json is not a merge patch"]),
        (format!("--patch {large}"), &["large.json", "larger than 64.00 KiB"]),
        ("--patch -".to_owned(), &["standard input is not a merge patch"]),
    ] {
        site.larder(&format!("catalog update film-1 {line}")).failed(1, words);
    }
    site.larder("catalog update film-2 --year 1999").failed(1, &["404", "no title \"film-2\" is catalogued"]);
    site.larder_as("looker", "catalog update film-1 --year 1999").failed(1, &["403"]);
    assert_eq!(site.told("catalog show film-1"), shown, "nothing was changed");
}

#[test]
fn edges_are_listed_shown_and_removed() {
    let site = Site::start();
    assert_eq!(site.told("edge list"), "no edge is registered\n");
    assert_eq!(site.objects("edge list --json"), Vec::<Value>::new());
    for name in ["edge-a", "edge-b"] {
        let registration = json!({ "site": "berlin", "url": format!("https://{name}.example:8443"), "version": "0.1.0" });
        assert_eq!(site.ask("PUT", &format!("/fleet/edges/{name}"), EDGE, &registration), 201);
    }
    let listed = site.told("edge list");
    let lines: Vec<_> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0][..3], ["EDGE", "SITE", "HEALTH"]);
    assert_eq!(lines[1][..3], ["edge-a", "berlin", "silent"], "{listed}");
    assert!(lines[1].ends_with(&["0.1.0", "https://edge-a.example:8443"]), "{listed}");
    assert_eq!((lines.len(), lines[2][0]), (3, "edge-b"));
    let names: Vec<_> = site.objects("edge list --json").iter().map(|edge| edge["edge"].clone()).collect();
    assert_eq!(names, ["edge-a", "edge-b"]);

    let shown = site.told("edge show edge-a");
    for line in ["edge-a: silent\n", " berlin\n", "it has not reported since control started\n"] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    let report = json!({
        "health": "draining", "connections": 1200, "requests": 2, "bytesSent": 3, "bytesRam": 4, "bytesFilled": 5, "ramBytesMax": 1 << 20,
        "ramBytes": 7,
    });
    assert_eq!(site.ask("POST", "/fleet/edges/edge-a/reports", EDGE, &report), 204);
    let shown = site.told("edge show edge-a");
    for line in ["what it reported last", "  1,200\n", "  1.00 MiB\n", " ago\n"] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    assert!(site.told("edge list").contains("1,200"));
    assert_eq!(site.objects("edge show edge-a --json")[0]["report"]["connections"], 1200);

    site.larder("edge remove edge-a").failed(2, &["removing an edge needs --yes"]);
    site.larder_as("looker", "edge remove edge-a --yes").failed(1, &["403"]);
    assert_eq!(site.told("edge remove edge-a --yes"), "edge-a is forgotten. If it is alive after all, it registers again.\n");
    assert_eq!(site.objects("edge remove edge-b --yes --json"), [json!({ "removed": "edge-b" })]);
    site.larder("edge show edge-a").failed(1, &["no edge \"edge-a\" is registered", "larder edge list"]);
    site.larder("edge remove edge-a --yes").failed(1, &["404", "no edge \"edge-a\" is registered"]);
    site.larder("edge remove a/b --yes").failed(1, &["400", "DELETE /fleet/edges/a%2Fb"]);
    words("edge").failed(2, &["--config"]);
    words("edge --config /nowhere.toml list").failed(2, &["list"]);
}

#[test]
fn an_edge_is_drained_and_takes_viewers_again() {
    let site = Site::start();
    let registration = json!({ "site": "berlin", "url": "https://edge-a.example:8443", "version": "0.1.0" });
    assert_eq!(site.ask("PUT", "/fleet/edges/edge-a", EDGE, &registration), 201);
    assert!(site.told("edge drain edge-a").starts_with("nobody is sent to edge-a any more"));
    assert!(site.told("edge list").contains("silent, drained"));
    assert_eq!(site.objects("edge undrain edge-a --json"), [json!({ "edge": "edge-a", "isDrained": false })]);
    assert!(!site.told("edge show edge-a").contains("drained"));
    site.larder("edge drain edge-b").failed(1, &["404", "edge-b"]);
}

#[test]
fn sites_are_listed_set_shown_and_removed() {
    let site = Site::start();
    assert_eq!(site.told("site list"), "no site is known\n");
    let shown = site.told("site set berlin --latitude 52.5 --longitude -13.5 --cost 3 --prefix 203.0.113.0/24 --closed");
    for line in ["berlin\n", "  at          52.5 north, -13.5 east\n", "  prefixes    203.0.113.0/24\n", "  for all     no\n"] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    assert_eq!(site.told("site show berlin"), shown);
    assert_eq!(site.objects("site set berlin --capacity-bits-per-second 2000000 --json")[0]["capacityBitsPerSecond"], 2_000_000);
    let listed = site.told("site list");
    assert!(listed.starts_with("SITE ") && listed.contains("berlin") && listed.contains("2 Mbit/s"), "{listed}");
    assert_eq!(site.objects("site list --json")[0]["cost"], 0);
    site.larder("site set berlin --latitude 1").failed(2, &["--longitude"]);
    site.larder("site set berlin --latitude 91 --longitude 0").failed(1, &["422"]);
    site.larder("site remove berlin").failed(2, &["removing a site needs --yes"]);
    assert_eq!(site.told("site remove berlin --yes"), "what was said of berlin is forgotten\n");
    site.larder("site remove berlin --yes --json").failed(1, &["404"]);
    site.larder("site show berlin").failed(1, &["404", "nobody knows a site \"berlin\""]);
}

#[test]
fn what_is_kept_of_a_user_is_shown_and_forgotten_also_of_a_profile_with_a_name_that_is_escaped() {
    // As control calls a profile "kids 1" of the account "a/b".
    const USER: &str = "a%2Fb/kids%201";
    let site = Site::start();
    let file = site.title("film-1", "A film");
    site.told(&format!("catalog publish {file}"));
    assert_eq!(site.told(&format!("user-data show {USER}")), format!("{USER}: nothing is kept of this user\n"));

    let token = token("a/b", "kids 1");
    // A player whose clock is ahead watches now.
    let position = json!({ "positionMs": 2000, "at": "2100-01-01T00:00:00Z", "device": "tv" });
    assert_eq!(site.ask("PATCH", "/videos/film-1/last-watched-timestamp", &token, &position), 204);
    assert_eq!(site.ask("PATCH", "/videos/film-1?op=LIKE", &token, &Value::Null), 204);

    let shown = site.told(&format!("user-data show {USER}"));
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], USER);
    assert!(lines[2].starts_with("film-1") && lines[2].contains("0:00:02") && lines[2].ends_with("tv"), "{shown}");
    assert!(lines[4].starts_with("film-1") && lines[4].contains("LIKE"), "{shown}");
    let exported = site.objects(&format!("user-data show --json {USER}"));
    assert_eq!((&exported[0]["user"], &exported[0]["views"][0]["positionMs"]), (&json!(USER), &json!(2000)));
    assert_eq!(
        site.objects("user-data show --json a%2Fb")[0]["views"],
        json!([]),
        "the account without a profile is another user"
    );

    site.larder(&format!("user-data remove {USER}")).failed(2, &["forgetting a user needs --yes"]);
    site.larder_as("looker", &format!("user-data show {USER}")).failed(1, &["403"]);
    assert_eq!(site.told(&format!("user-data remove {USER} --yes")), format!("nothing is kept of {USER} any more\n"));
    assert_eq!(site.told(&format!("user-data show {USER}")), format!("{USER}: nothing is kept of this user\n"));
    assert_eq!(site.objects(&format!("user-data remove {USER} --yes --json")), [json!({ "removed": USER })]);
    site.larder("user-data show a//b").failed(1, &["400"]);
}

#[test]
fn where_control_is_and_what_opens_it_may_stand_in_the_environment() {
    let site = Site::start();
    let control = format!("http://{}", site.addr);
    let by_environment = |line: &str| {
        let mut command = larder(line.split_whitespace());
        said(command.env("LARDER_CONTROL", &control).env("LARDER_TOKEN_FILE", site.path("operator")))
    };
    assert_eq!(by_environment("edge list").out, "no edge is registered\n");
    // What is typed counts more.
    by_environment("edge list --token-file /nowhere/secret").failed(1, &["/nowhere/secret (--token-file)", "No such file"]);
    by_environment("edge list --control http://127.0.0.1:0/x").failed(2, &["--control", "http://host:port"]);
}

#[test]
fn a_control_that_is_away_a_wrong_secret_and_a_wrong_word_are_told_apart() {
    let site = Site::start();
    let commands = [
        "catalog list",
        "catalog show film-1",
        "catalog list --facets",
        "catalog update film-1 --year 1999",
        "catalog remove film-1 --yes",
        "edge list",
        "edge remove edge-a --yes",
        "user-data show alice",
        "user-data remove alice --yes",
    ];
    fs::write(site.path("wrong"), "some-other-secret-not-the-right-one").expect("writes");
    fs::write(site.path("short"), "short").expect("writes");
    // A port that is somebody's who takes no connections.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    nobody.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let away = nobody.local_addr().ok().and_then(|addr| addr.as_socket()).expect("an address");
    for line in commands {
        site.larder_as("wrong", line).failed(1, &["control answers 401 Unauthorized"]);
        site.larder_as("short", line).failed(1, &["/short (--token-file)", "shorter than 16"]);
        let mut command = larder(line.split_whitespace());
        let command = command.args(["--control", &format!("http://{away}"), "--token-file"]).arg(site.path("operator"));
        said(command).failed(1, &[&format!("control does not answer at http://{away}")]);
        let mut command = larder(line.split_whitespace());
        let command = command.args(["--control", "https://control.example", "--token-file"]).arg(site.path("operator"));
        said(command).failed(2, &["--control", "http://host:port"]);
    }
    site.larder("catalog show Film").failed(2, &["a title's id is 1 to 64"]);
    site.larder("catalog publish /nowhere.json").failed(1, &["cannot read the title in /nowhere.json", "No such file"]);
    site.larder(&format!("catalog publish {}", site.path("wrong").display()))
        .failed(1, &["is not a title as an origin publishes it"]);
    words("catalog").failed(2, &["list", "publish", "update"]);
    words("user-data show").failed(2, &["<USER>"]);
}

#[test]
fn each_of_these_commands_teaches_itself() {
    for command in [
        "catalog list",
        "catalog show",
        "catalog publish",
        "catalog update",
        "catalog remove",
        "edge list",
        "edge show",
        "edge remove",
        "edge drain",
        "edge undrain",
        "site list",
        "site show",
        "site set",
        "site remove",
        "user-data show",
        "user-data remove",
    ] {
        let help = words(&format!("{command} --help"));
        let example = help.out.split("Example").nth(1).unwrap_or_default();
        assert!(help.code == Some(0) && example.contains(&format!("larder {command} ")), "{}", help.out);
        for word in ["--json", "--control <URL>", "LARDER_CONTROL", "http://127.0.0.1:8080", "LARDER_TOKEN_FILE"] {
            assert!(help.out.contains(word), "no {word} in {}", help.out);
        }
    }
}
