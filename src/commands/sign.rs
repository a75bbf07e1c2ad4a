//! `larder sign`: an operator's own signed URL, or a new key.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use serde_json::json;
use wire::{
    object::ObjectPath,
    token::{self, Algorithm, Claims, SigningKey},
};

use super::print_json;
use crate::{
    cli::{Carrier, Misuse, SignArgs},
    client::Target,
};

pub(super) fn run(args: &SignArgs) -> anyhow::Result<()> {
    match (args.new_key, &args.url, &args.key) {
        (Some(algorithm), ..) => new_key(algorithm, args),
        (None, Some(url), Some(key)) => sign(url, key, args),
        _ => Err(Misuse("a URL and --key, or --new-key, are needed".into()).into()),
    }
}

fn sign(url: &str, key: &Path, args: &SignArgs) -> anyhow::Result<()> {
    let jwk = fs::read_to_string(key).with_context(|| format!("cannot read the key {}", key.display()))?;
    let key = SigningKey::from_jwk(&jwk).with_context(|| format!("cannot use the key {}", key.display()))?;
    let misuse = |reason: String| Misuse(format!("cannot sign {url:?}: {reason}"));
    let target = Target::parse(url).map_err(|error| misuse(format!("{error:#}")))?;
    let (path, query) = match target.path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target.path_and_query.as_str(), None),
    };
    let path = ObjectPath::new(path).map_err(|error| misuse(error.to_string()))?;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let expires_unix_s = now.saturating_add(args.expires.0).as_secs();
    let claims = if args.tree {
        let folder = path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = ObjectPath::new(folder).map_err(|_| misuse("it is in no folder that --tree could mean".into()))?;
        Claims::for_tree(&folder, expires_unix_s)
    } else {
        Claims::for_uri(url, expires_unix_s)?
    };
    let (iss, sub, cdniip) = (args.issuer.clone(), args.subject.clone(), args.ip.map(|net| net.to_string()));
    let token = token::sign(&key, &Claims { iss, sub, cdniip, ..claims })?;

    let with_query = |url: String| query.map_or_else(|| url.clone(), |query| format!("{url}?{query}"));
    let plain = || with_query(format!("https://{}{path}", target.authority));
    let (url, cookie) = match args.carrier {
        Carrier::Path => (with_query(token::in_path(&format!("https://{}", target.authority), &token, &path)), None),
        Carrier::Query => (token::in_query(&plain(), &token), None),
        Carrier::Cookie => (plain(), Some(token::cookie(&token))),
    };
    if args.json {
        return print_json(&json!({ "url": url, "cookie": cookie, "token": token, "expiresUnixS": expires_unix_s }));
    }
    say!("{url}");
    if let Some(cookie) = cookie {
        say!("{cookie}");
    }
    Ok(())
}

fn new_key(algorithm: Algorithm, args: &SignArgs) -> anyhow::Result<()> {
    let (Some(kid), Some(out)) = (&args.kid, &args.out) else {
        return Err(Misuse("--new-key needs --kid and --out".into()).into());
    };
    let key = SigningKey::generate(algorithm, kid)?;
    let keys = json!({ "keys": [key.public_jwk()] });
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(|| format!("cannot make {}, and an existing key is not overwritten", out.display()))?;
    writeln!(file, "{}", key.to_jwk()).with_context(|| format!("cannot write {}", out.display()))?;
    match &args.public_out {
        None => print_json(&keys)?,
        Some(public) => {
            write_keys(public, &format!("{keys}\n"), algorithm).with_context(|| format!("cannot write {}", public.display()))?;
            if args.json {
                print_json(&json!({ "kid": kid, "privateKey": out, "keys": public }))?;
            }
        }
    }
    Ok(())
}

/// What edges get. With HS256 it is the secret itself, so nobody else may read it.
fn write_keys(path: &Path, keys: &str, algorithm: Algorithm) -> std::io::Result<()> {
    let mode = if algorithm == Algorithm::Hs256 { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(keys.as_bytes())
}
