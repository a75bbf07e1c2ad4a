//! What is served: objects, a certificate, and a token that Larder checks with each request.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use wire::{
    object::ObjectPath,
    token::{Algorithm, Claims, SigningKey, in_path, sign},
};

use super::{
    case::ObjectSize,
    place::{Place, write},
    process::{Failure, io_failure},
};

/// The secret that the edge and its origin share.
const FILL_TOKEN: &str = "a-secret-between-an-edge-and-its-origin";
/// How long the token is good.
const TOKEN_LIFE: Duration = Duration::from_secs(86_400);
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

/// Writes objects, so many of each size, and all else that servers read.
pub(super) fn write_all(place: &Place, sizes: &[(ObjectSize, u32)]) -> Result<(), Failure> {
    for (size, count) in sizes {
        for number in 0..*count {
            let path = size.path(number);
            write(&file(place, &path), &body(&path, size.bytes()))?;
        }
    }
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    write(&place.work.join(CERTIFICATE), certificate.as_bytes())?;
    write(&place.work.join(KEY), key.as_bytes())?;
    write(&place.work.join("both.pem"), format!("{certificate}{key}").as_bytes())?;
    write(&place.work.join("fill.token"), FILL_TOKEN.as_bytes())?;
    write(&place.work.join("aes128.cnf"), include_bytes!("../../peers/aes128.cnf"))?;
    write(&place.work.join("wrk.lua"), include_bytes!("../../peers/wrk.lua"))
}

/// Writes the keys by which the edge checks tokens, and comes back with one for all objects: the beginning of their URLs at `base_url`.
pub(super) fn signed(place: &Place, base_url: &str) -> Result<String, Failure> {
    let key = SigningKey::generate(Algorithm::EdDsa, "bench").expect("a key");
    write(&place.work.join("keys.json"), json!({ "keys": [key.public_jwk()] }).to_string().as_bytes())?;
    let root = ObjectPath::new("/files").expect("a path");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let claims = Claims { iss: Some("bench".into()), ..Claims::for_tree(&root, (now + TOKEN_LIFE).as_secs()) };
    let url = in_path(base_url, &sign(&key, &claims).expect("signs"), &root);
    Ok(url.strip_suffix(root.as_str()).expect("it ends with the path").to_owned())
}

/// What is stored at that path.
pub(super) fn read(place: &Place, path: &str) -> Result<Vec<u8>, Failure> {
    let file = file(place, path);
    fs::read(&file).map_err(io_failure(format!("read {}", file.display())))
}

fn file(place: &Place, path: &str) -> PathBuf {
    place.work.join("origin").join(path.trim_start_matches('/'))
}

/// Bytes that no other object has, and that nothing compresses: SplitMix64 (Steele, Lea and Flood, 2014) from the path.
fn body(path: &str, bytes: u64) -> Vec<u8> {
    let mut state = path.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let words = (0..bytes / 8).flat_map(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    words.collect()
}
