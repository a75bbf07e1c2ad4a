//! The web player, built by npm from `web/` and embedded by `build.rs`: the pages at `/` and `/player/…`, and their files.

use std::{collections::HashMap, sync::LazyLock};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
};
use wire::object::Digest;

/// URL path and bytes of every file in `web/dist`.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/player_files.rs"));

const INDEX: &str = "/index.html";

/// What the page says when the binary was built without the player.
const NOT_BUILT: &str = "<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>Larder</title>
<style>body{font:1.1rem/1.5 system-ui;max-width:38rem;margin:4rem auto;padding:0 1rem}</style>
<h1>The player is not built</h1>
<p>This Larder was compiled without its web player. Build it with <code>make web</code>, then build Larder again.
<p>The API works all the same: see <a href=/openapi.json>/openapi.json</a> and <a href=/videos>/videos</a>.
";

/// Media and its playlists come from edges on other origins; hls.js feeds them from blobs and works in one.
const POLICY: &str = "default-src 'self'; connect-src 'self' https: blob: data:; media-src 'self' https: blob: data:; \
    img-src 'self' https: blob: data:; worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

struct File {
    bytes: Bytes,
    etag: HeaderValue,
    content_type: &'static str,
    cache_control: &'static str,
}

impl File {
    fn new(path: &str, bytes: &'static [u8]) -> Self {
        Self {
            bytes: Bytes::from_static(bytes),
            etag: HeaderValue::from_str(&Digest::of(bytes).etag()).expect("hexadecimal digits and quotes"),
            content_type: content_type(path),
            cache_control: if is_hashed(path) { "public, max-age=31536000, immutable" } else { "no-cache" },
        }
    }
}

static TABLE: LazyLock<HashMap<&str, File>> = LazyLock::new(|| {
    let mut table: HashMap<_, _> = FILES.iter().map(|(path, bytes)| (*path, File::new(path, bytes))).collect();
    table.entry(INDEX).or_insert_with(|| File::new(INDEX, NOT_BUILT.as_bytes()));
    table
});

/// The player's file at `path`, or none. Pages that the player's own router draws are all the index.
pub(crate) fn page(path: &str, headers: &HeaderMap) -> Option<Response> {
    let is_view = path == "/" || path == "/player" || path.starts_with("/player/");
    let file = TABLE.get(path).or_else(|| is_view.then(|| &TABLE[INDEX]))?;
    let head = [
        (ETAG, file.etag.clone()),
        (CACHE_CONTROL, HeaderValue::from_static(file.cache_control)),
        (CONTENT_TYPE, HeaderValue::from_static(file.content_type)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    let answer = match is_current(headers, &file.etag) {
        true => (StatusCode::NOT_MODIFIED, head, Body::empty()),
        false => (StatusCode::OK, head, Body::from(file.bytes.clone())),
    };
    Some(answer.into_response())
}

/// RFC 9110 §13.1.2: "\*", or a list with this tag in it, compared weakly.
fn is_current(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tags.map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == *etag)
}

/// Whether a file's name has its content's hash in it, as the bundler writes it: `/assets/<name>-<8 or more>.<extension>`.
fn is_hashed(path: &str) -> bool {
    let Some(stem) = path.strip_prefix("/assets/").and_then(|name| name.split('.').next()) else {
        return false;
    };
    stem.rsplit_once('-').is_some_and(|(_, hash)| hash.len() >= 8 && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_hash_are_immutable() {
        assert!(is_hashed("/assets/main-BX3k9aQ2.js"));
        assert!(is_hashed("/assets/hls-worker-0a1b2c3d4e.js.map"));
        for path in ["/index.html", "/assets/main.js", "/assets/main-dev.js", "/main-BX3k9aQ2.js"] {
            assert!(!is_hashed(path), "{path}");
        }
    }

    #[test]
    fn every_view_is_the_index_and_nothing_else_is() {
        let page = |path| page(path, &HeaderMap::new());
        for view in ["/", "/index.html", "/player", "/player/demo"] {
            let response = page(view).unwrap();
            assert_eq!(
                (response.status(), &response.headers()[CACHE_CONTROL]),
                (StatusCode::OK, &HeaderValue::from_static("no-cache"))
            );
            assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        }
        assert!(page("/players").is_none() && page("/assets/none.js").is_none() && page("/../Cargo.toml").is_none());
    }

    #[test]
    fn a_page_that_the_browser_has_is_not_sent_again() {
        let etag = TABLE[INDEX].etag.to_str().unwrap().to_owned();
        for (tags, status) in [
            (etag.clone(), StatusCode::NOT_MODIFIED),
            (format!("\"x\", W/{etag}"), StatusCode::NOT_MODIFIED),
            ("*".into(), StatusCode::NOT_MODIFIED),
            ("\"x\"".into(), StatusCode::OK),
        ] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_str(&tags).unwrap())]);
            assert_eq!(page("/", &headers).unwrap().status(), status, "{tags}");
        }
    }
}
