//! The command line as an operator meets it: what it says when something is wrong, and that its commands fit together.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Role, certificate, free_port};

const ROLES: [&str; 3] = ["edge", "origin", "control"];
/// Keys whose default depends on the machine.
const MACHINE_DEPENDENT: [&str; 1] = ["workers"];
const SECRET: &str = "a-secret-that-only-a-test-knows";

/// What a command said, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It failed with `code`, and each of `words` stands in what it says.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

pub(crate) fn larder<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["LARDER_LOG", "LARDER_CONTROL", "LARDER_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn said(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

pub(crate) fn words(line: &str) -> Said {
    said(&mut larder(line.split_whitespace()))
}

/// A directory with files in it.
pub(crate) fn folder<const N: usize>(files: [(&str, &str); N]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("writes");
    }
    dir
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_subcommand_teaches_itself_with_an_example() {
    let help = words("--help");
    let listed = help.out.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list of commands");
    let commands: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let commands: Vec<_> = commands.into_iter().filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let help = words(&format!("{command} --help"));
        assert_eq!(help.code, Some(0));
        let example = help.out.split("Example").nth(1).unwrap_or_default();
        assert!(example.contains(&format!("larder {command} ")), "{command}: {}", help.out);
    }
}

#[test]
fn every_error_of_a_configuration_is_told_at_once_with_line_and_expectation() {
    let text = "role = \"edge\"\nlisten = \"nowhere\"\nworkres = 4\nsite = \"site-1\"\n[cache]\nram = \"plenty\"\n";
    let dir = folder([("edge.toml", text)]);
    let file = dir.path().join("edge.toml").display().to_string();
    let wanted = [
        format!("{file}:2: listen: expected an address and port"),
        "found \"nowhere\"".into(),
        format!("{file}:3: workres: expected a key that is known here, perhaps workers, found 4"),
        format!("{file}:6: cache.ram: expected "),
        "found \"plenty\"".into(),
        format!("{file}:1: name: expected "),
        ": tokens.keys_file: expected ".into(),
        "found nothing".into(),
    ];
    let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
    words(&format!("check {file}")).failed(2, &wanted);
    words(&format!("edge --config {file}")).failed(2, &wanted);

    let json = words(&format!("check --json {file}"));
    assert_eq!(json.code, Some(2));
    let problems = json.json()["problems"].as_array().expect("problems").clone();
    let first = problems.iter().find(|problem| problem["key"] == "listen").expect("the first error");
    assert_eq!((&first["line"], &first["found"]), (&2.into(), &"\"nowhere\"".into()));
}

#[test]
fn a_file_of_another_role_of_none_or_that_is_no_toml_is_refused() {
    let dir = folder([
        ("origin.toml", "role = \"origin\"\n"),
        ("none.toml", "listen = \"127.0.0.1:0\"\n"),
        ("broken.toml", "role = \"edge\"\nlisten = \n"),
    ]);
    let at = |name: &str| dir.path().join(name).display().to_string();
    words(&format!("edge --config {}", at("origin.toml"))).failed(2, &[":1: role: expected \"edge\", found \"origin\""]);
    words(&format!("check {}", at("none.toml")))
        .failed(2, &[":1: role: expected \"edge\", \"origin\" or \"control\", found nothing"]);
    words(&format!("check {}", at("broken.toml"))).failed(2, &["broken.toml:2: expected TOML"]);
    words(&format!("check {}", at("missing.toml"))).failed(1, &["cannot read the configuration", "missing.toml", "No such file"]);
    words("check").failed(2, &["<FILE>"]);
}

/// A sample as it would be with every line that shows a default switched on.
fn switched_on(sample: &str) -> String {
    let is_key = |line: &str| {
        let name = line.split('=').next().unwrap_or_default().trim_end();
        line.contains(" = ") && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    let lines = sample.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_samples_are_good_name_every_key_and_show_the_true_defaults() {
    let settings = |file: &Path, role: &str| {
        let said = said(larder(["check", "--json", "--role", role]).arg(file));
        assert_eq!(said.code, Some(0), "{said:?}");
        said.json()["settings"].as_array().expect("settings").clone()
    };
    for role in ROLES {
        let sample = root().join(format!("config/{role}.toml"));
        let text = fs::read_to_string(&sample).expect("a sample");
        let dir = folder([("on.toml", &switched_on(&text))]);
        let (as_is, on) = (settings(&sample, role), settings(&dir.path().join("on.toml"), role));
        for as_is in &as_is {
            let key = as_is["key"].as_str().expect("a key");
            // An array of tables is read by the keys of its tables.
            let is_it = |on: &&Value| on["key"] == key || on["key"].as_str().is_some_and(|on| on.starts_with(&format!("{key}[")));
            let on = on.iter().find(is_it).unwrap_or_else(|| panic!("{role}: {key} is not in the sample"));
            assert_eq!(on["isDefault"], false, "{role}: {key} is not in the sample");
            if !as_is["value"].is_null() && !MACHINE_DEPENDENT.contains(&key) {
                assert_eq!(as_is["value"], on["value"], "{role}: the sample shows another default of {key}");
            }
        }
    }
}

#[test]
fn the_units_are_valid_for_systemd() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("not checked: systemd-analyze is not installed here");
        return;
    }
    for role in ROLES {
        let name = format!("larder-{role}.service");
        let unit = fs::read_to_string(root().join("systemd").join(&name)).expect("a unit");
        assert!(unit.contains(&format!(" {role} --config /etc/larder/{role}.toml\n")), "{unit}");
        // The binary is where the package puts it; here, where it was built.
        let dir = folder([(name.as_str(), &unit.replace("/usr/bin/larder", env!("CARGO_BIN_EXE_larder")))]);
        let verified = Command::new("systemd-analyze").arg("verify").arg(dir.path().join(&name)).output().expect("it runs");
        let complaints = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && !complaints.contains(&name), "{complaints}");
    }
}

/// An operator's files in a directory: secrets, keys, a certificate, and a configuration for each role.
struct Site {
    dir: TempDir,
    origin_port: u16,
    edge_port: u16,
    control_port: u16,
}

impl Site {
    fn new() -> Self {
        let dir = folder([("fill", SECRET), ("operator", SECRET), ("edge", SECRET)]);
        certificate(dir.path());
        let site = Self { dir, origin_port: free_port(), edge_port: free_port(), control_port: free_port() };
        let made = said(
            larder(["sign", "--new-key", "EdDSA", "--kid", "test", "--out"])
                .arg(site.path("signing.jwk"))
                .arg("--public-out")
                .arg(site.path("keys.json")),
        );
        assert_eq!(made.code, Some(0), "{made:?}");
        site.configure(&site.path("state"));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, state: &Path) {
        let Self { origin_port, edge_port, control_port, .. } = self;
        let (dir, state) = (self.dir.path().display(), state.display());
        let origin = format!(
            "role = \"origin\"\nlisten = \"127.0.0.1:{origin_port}\"\nstate_dir = \"{state}/origin\"\nfill_token_file = \"{dir}/fill\"\n\
             [control]\nurl = \"http://127.0.0.1:{control_port}\"\ntoken_file = \"{dir}/operator\"\n"
        );
        let control = format!(
            "role = \"control\"\nlisten = \"127.0.0.1:{control_port}\"\nstate_dir = \"{state}/control\"\ntoken_issuer = \"test\"\n\
             signing_key_file = \"{dir}/signing.jwk\"\noperator_token_file = \"{dir}/operator\"\nedge_token_file = \"{dir}/edge\"\n"
        );
        let edge = format!(
            "role = \"edge\"\nname = \"edge-a\"\nsite = \"site-1\"\nlisten = \"127.0.0.1:{edge_port}\"\nadmin_listen = \"127.0.0.1:0\"\n\
             public_url = \"https://127.0.0.1:{edge_port}\"\n\
             [tls]\ncertificate_file = \"{dir}/edge.crt\"\nkey_file = \"{dir}/edge.key\"\n\
             [tokens]\nkeys_file = \"{dir}/keys.json\"\nissuer = \"test\"\nleeway = \"0s\"\n[cache]\nram = \"64MiB\"\n\
             [origin]\nurl = \"http://127.0.0.1:{origin_port}\"\ntoken_file = \"{dir}/fill\"\n"
        );
        for (name, text) in [("origin.toml", origin), ("control.toml", control), ("edge.toml", edge)] {
            fs::write(self.path(name), text).expect("writes");
        }
    }

    fn start(&self, role: &str) -> Role {
        Role::start(role, &self.path(&format!("{role}.toml")))
    }

    fn run(&self, role: &str) -> Said {
        said(larder([role, "--config"]).arg(self.path(&format!("{role}.toml"))))
    }

    fn ingest(&self, film: &Path) -> Command {
        let mut command = larder(["ingest", "--json", "--title", "A film", "--config"]);
        command.arg(self.path("origin.toml")).arg(film);
        command
    }

    /// Nothing is published, and nothing half done is left.
    #[track_caller]
    fn assert_empty(&self) {
        for part in ["titles", "staging"] {
            let left = fs::read_dir(self.path("state/origin").join(part)).expect("a folder");
            let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).filter(|name| name != ".lock").collect();
            assert!(left.is_empty(), "{part}: {left:?}");
        }
    }
}

#[test]
fn a_port_in_use_is_named() {
    let site = Site::new();
    for (role, port) in [("origin", site.origin_port), ("control", site.control_port), ("edge", site.edge_port)] {
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        site.run(role).failed(1, &[&format!("127.0.0.1:{port}"), "in use"]);
    }
}

#[test]
fn a_state_directory_that_cannot_be_made_is_named() {
    let site = Site::new();
    let file = site.path("fill");
    site.configure(&file);
    for role in ["origin", "control"] {
        site.run(role).failed(1, &["state", &file.join(role).display().to_string()]);
    }
    let state = file.join("demo");
    said(larder(["demo", "--once", "--state"]).arg(&state)).failed(1, &["state directory", &state.display().to_string()]);
}

#[test]
fn a_missing_ffmpeg_is_named_and_nothing_is_left_behind() {
    let site = Site::new();
    let film = root().join("README.md");
    said(site.ingest(&film).env("PATH", "")).failed(1, &["ffprobe", "install"]);
    site.assert_empty();
    let state = site.path("demo");
    said(larder(["demo", "--once", "--state"]).arg(&state).env("PATH", "")).failed(1, &["ffmpeg", "install"]);
    assert!(!state.join("clip.mp4").exists());
}

/// A film of two seconds.
fn film(path: &Path) {
    let sources = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=2 -f lavfi -i sine=duration=2";
    let made = Command::new("ffmpeg")
        .args("-nostdin -y -loglevel error".split(' '))
        .args(sources.split(' '))
        .args("-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac".split(' '))
        .arg(path)
        .status()
        .expect("ffmpeg runs");
    assert!(made.success());
}

#[test]
fn what_is_no_film_or_half_of_one_is_refused_and_nothing_is_left_behind() {
    let site = Site::new();
    said(&mut site.ingest(&root().join("README.md"))).failed(1, &["README.md", "not a video"]);
    said(&mut site.ingest(Path::new("/does/not/exist.mp4"))).failed(1, &["/does/not/exist.mp4", "No such file"]);

    let (whole, half) = (site.path("whole.mp4"), site.path("half.mp4"));
    film(&whole);
    let bytes = fs::read(&whole).expect("a film");
    fs::write(&half, &bytes[..bytes.len() / 2]).expect("writes");
    said(&mut site.ingest(&half)).failed(1, &["half.mp4", "cut off"]);
    site.assert_empty();
}

#[test]
fn a_film_is_ingested_once_and_catalogued() {
    let site = Site::new();
    let path = site.path("film.mp4");
    film(&path);
    // The title is published all the same, and the next try only catalogues it.
    said(&mut site.ingest(&path)).failed(1, &["is published as /titles/", "does not catalogue it", "127.0.0.1"]);
    let control = site.start("control");
    let first = said(&mut site.ingest(&path));
    assert_eq!(first.code, Some(0), "{first:?}");
    let second = said(&mut site.ingest(&path));
    assert_eq!(first.json(), second.json());
    assert!(first.json()["renditions"].as_array().is_some_and(|renditions| renditions.len() >= 2), "{first:?}");

    fs::write(site.path("operator"), "some-other-secret-not-the-right-one").expect("writes");
    said(&mut site.ingest(&path)).failed(1, &["401"]);
    assert!(control.stop().success());
}

#[test]
fn what_is_signed_is_fetched_by_every_protocol_and_carrier_and_nothing_else_is() {
    let site = Site::new();
    let folder = site.path("state/origin/files/docs");
    fs::create_dir_all(&folder).expect("a folder");
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(|n| [(n % 251) as u8]).collect();
    fs::write(folder.join("a.bin"), &content).expect("writes");
    fs::write(folder.join("b.txt"), "b").expect("writes");
    let digest = wire::object::Digest::of(&content).to_string();
    let (origin, edge) = (site.start("origin"), site.start("edge"));
    let url = |name: &str| format!("https://127.0.0.1:{}/files/docs/{name}", site.edge_port);

    let sign = |arguments: &str, url: &str| {
        let mut command = larder(["sign", "--json", "--issuer", "test", "--key"]);
        let said = said(command.arg(site.path("signing.jwk")).args(arguments.split_whitespace()).arg(url));
        assert_eq!(said.code, Some(0), "{said:?}");
        let member = |name: &str| said.json()[name].as_str().unwrap_or_default().to_owned();
        (member("url"), member("cookie"))
    };
    let fetch = |arguments: &str, url: &str| {
        let mut command = larder(["fetch", "--json", "--ca"]);
        said(command.arg(site.path("edge.crt")).args(arguments.split_whitespace()).arg(url))
    };

    for (version, name) in [("1.1", "http/1.1"), ("2", "h2"), ("3", "h3")] {
        for carrier in ["path", "query", "cookie"] {
            let (url, cookie) = sign(&format!("--carrier {carrier}"), &url("a.bin"));
            let cookie = if carrier == "cookie" { format!("--cookie {cookie}") } else { String::new() };
            let said = fetch(&format!("--http {version} {cookie}"), &url);
            assert_eq!(said.code, Some(0), "{carrier} over {name}: {said:?}");
            let (json, answer) = (said.json(), said.json()["answers"][0].clone());
            assert_eq!((&json["protocol"], &answer["status"]), (&name.into(), &200.into()));
            assert_eq!((answer["digest"].as_str(), answer["bytes"].as_u64()), (Some(digest.as_str()), Some(3_000_000)));
            assert!(answer["cacheStatus"].as_str().is_some_and(|verdict| verdict.starts_with("edge-a")), "{answer}");
        }
    }

    let signed = sign("", &url("a.bin")).0;
    let part = site.path("part");
    let ranged = fetch(&format!("--http 3 --range 1048570-1048585 --output {}", part.display()), &signed);
    assert_eq!((ranged.code, &ranged.json()["answers"][0]["status"]), (Some(0), &206.into()));
    assert_eq!(fs::read(part).expect("a body"), content[1_048_570..1_048_586]);
    let many = fetch("--http 3 --repeat 40 --parallel 8", &signed).json();
    assert_eq!((&many["good"], &many["bad"], &many["bytes"]), (&40.into(), &0.into(), &120_000_000.into()));

    let other = signed.replace("a.bin", "b.txt");
    let tree = sign("--tree", &url("a.bin")).0.replace("a.bin", "b.txt");
    let expired = sign("--expires 1ms", &url("a.bin")).0;
    let elsewhere = sign("--ip 192.0.2.0/24", &url("a.bin")).0;
    assert_eq!(fetch("", &tree).code, Some(0), "a tree's token opens all in it");
    for wrong in [&url("a.bin"), &other, &expired, &elsewhere] {
        let said = fetch("", wrong);
        said.failed(1, &["403"]);
        assert_eq!(said.json()["answers"][0]["status"], 403, "{wrong}");
    }
    fetch("--http 2", &sign("", &url("missing")).0).failed(1, &["404"]);
    fetch("--repeat 2 --output x", &signed).failed(2, &["--output"]);
    words("fetch http://127.0.0.1/").failed(2, &["https://"]);
    let distrusted = said(larder(["fetch", "--http", "3"]).arg(&signed));
    distrusted.failed(1, &["certificate"]);
    assert!(edge.stop().success() && origin.stop().success());
    fetch("--timeout 2s", &signed).failed(1, &["cannot connect to 127.0.0.1"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the edge writes a file, and a test thread has no viewers")]
fn a_certificate_is_swapped_under_a_running_edge_and_a_bad_one_is_not() {
    let site = Site::new();
    let files = site.path("state/origin/files");
    fs::create_dir_all(&files).expect("a folder");
    fs::write(files.join("a.txt"), "a").expect("writes");
    let edge_toml = site.path("edge.toml");
    let open = fs::read_to_string(&edge_toml).expect("a file").replace("[cache]", "open_paths = [\"/files/\"]\n[cache]");
    fs::write(&edge_toml, open).expect("writes");
    let (origin, edge) = (site.start("origin"), site.start("edge"));
    let log = || fs::read_to_string(site.path("edge.log")).expect("a log");
    let url = format!("https://127.0.0.1:{}/files/a.txt", site.edge_port);
    let fetch = |ca: &Path| said(larder(["fetch", "--http", "3", "--ca"]).arg(ca).arg(&url)).code;
    let first = site.path("first.crt");
    fs::copy(site.path("edge.crt"), &first).expect("copies");
    assert_eq!(fetch(&first), Some(0));

    // The edge says in its log that it has read the files; each time once more.
    let reload = |word: &str| {
        let before = log().matches(word).count();
        edge.signal("HUP");
        assert!((0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            log().matches(word).count() > before
        }));
    };
    certificate(site.dir.path());
    reload("read anew");
    assert_eq!((fetch(&site.path("edge.crt")), fetch(&first)), (Some(0), Some(1)));

    fs::write(site.path("edge.key"), "no key at all").expect("writes");
    reload("stays as it was");
    assert_eq!(fetch(&site.path("edge.crt")), Some(0));
    assert!(edge.stop().success() && origin.stop().success());
}

#[test]
fn an_operator_looks_into_a_running_edge_and_purges_from_it() {
    let site = Site::new();
    let files = site.path("state/origin/files");
    fs::create_dir_all(&files).expect("a folder");
    fs::write(files.join("a.txt"), "a").expect("writes");
    let (edge_toml, admin_port) = (site.path("edge.toml"), free_port());
    let text = fs::read_to_string(&edge_toml).expect("a file");
    let text = text
        .replace("[cache]", "open_paths = [\"/files/\"]\n[cache]")
        .replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = \"0.0.0.0:{admin_port}\""));
    fs::write(&edge_toml, text).expect("writes");
    let (origin, edge) = (site.start("origin"), site.start("edge"));
    let url = format!("https://127.0.0.1:{}/files/a.txt", site.edge_port);
    let cache_status = || {
        let said = said(larder(["fetch", "--json", "--ca"]).arg(site.path("edge.crt")).arg(&url));
        said.json()["answers"][0]["cacheStatus"].as_str().unwrap_or_default().to_owned()
    };
    let admin = format!("--admin http://localhost:{admin_port}");
    assert!(cache_status().contains("fwd=miss") && cache_status().contains("hit"));

    let by_config = said(larder(["cache", "stat", "--json", "--config"]).arg(&edge_toml));
    assert_eq!((by_config.code, &by_config.json()["ram"]["hits"]), (Some(0), &1.into()), "{by_config:?}");
    let stat = words(&format!("cache stat {admin}"));
    for line in ["RAM\n", "  hits             1 of 2 slices (50.0 %)\n", "SSD\n  none             cache.devices is empty\n"] {
        assert!(stat.out.contains(line), "no {line:?} in {}", stat.out);
    }
    assert_eq!(words(&format!("cache devices {admin}")).out, "this edge has no devices (cache.devices)\n");
    words(&format!("cache devices --restore /dev/none {admin}")).failed(1, &["this cache has no devices"]);

    let purged = words(&format!("cache purge --object /files/a.txt {admin}"));
    assert!(
        purged.code == Some(0) && purged.out.starts_with("purged the object /files/a.txt\nIt holds from the next request on"),
        "{purged:?}"
    );
    assert!(cache_status().contains("fwd=miss"));
    let json = words(&format!("cache purge --tag t --prefix /files/ --all --yes --json {admin}")).json();
    assert_eq!(json["purged"].as_array().map(Vec::len), Some(3), "{json}");
    words(&format!("cache purge --object files {admin}")).failed(1, &["names no object"]);
    words(&format!("cache purge --all {admin}")).failed(2, &["--yes"]);
    words("cache purge").failed(2, &["--object", "--all"]);
    words("cache verify --offline").failed(2, &["--config"]);
    words("cache stat --admin ftp://127.0.0.1").failed(2, &["http://host:port"]);
    let verified = words(&format!("cache verify --json {admin}"));
    assert_eq!((verified.code, &verified.json()["fault_count"]), (Some(0), &0.into()), "{verified:?}");
    let offline = said(larder(["cache", "verify", "--offline", "--config"]).arg(&edge_toml));
    offline.failed(1, &["the configuration has no cache.devices"]);
    assert!(edge.stop().success() && origin.stop().success());
    words(&format!("cache stat {admin}")).failed(1, &["no edge answers operators at http://localhost"]);
}

#[test]
fn each_way_to_look_into_a_cache_teaches_itself() {
    for command in ["stat", "devices", "purge", "verify"] {
        let help = words(&format!("cache {command} --help"));
        let example = help.out.split("Example").nth(1).unwrap_or_default();
        assert!(help.code == Some(0) && example.contains(&format!("larder cache {command}")), "{}", help.out);
    }
}

#[test]
fn a_demo_ends_cleanly_on_ctrl_c() {
    let (state, _turn) = crate::demo::state();
    let mut child = larder(["demo", "--json", "--state"]).arg(state).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("text");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    let interrupted = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().expect("kill runs");
    assert!(interrupted.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    for url in ready["edges"].as_array().expect("edges").iter().chain([&ready["control"]]) {
        let addr = url.as_str().and_then(|url| url.split("//").nth(1)).expect("an address");
        assert!(std::net::TcpStream::connect(addr).is_err(), "{addr} still listens");
    }
}
