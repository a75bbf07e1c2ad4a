//! AWS Signature Version 4, as stores that speak S3 check it: what stands in `Authorization`. Pure.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use http::{HeaderValue, Method};
use wire::secret::Secret;

/// Whoever signs.
pub(super) struct Signer {
    pub(super) key_id: String,
    pub(super) secret: Secret,
    pub(super) region: String,
}

impl Signer {
    /// `path` is encoded; `headers` stand in the order of their names, which are in lower case; `body` is a SHA-256 in hexadecimal.
    pub(super) fn authorization(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        stamp: &str,
    ) -> HeaderValue {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let request = format!("{method}\n{path}\n\n{lines}\n{names}\n{body}");
        let day = &stamp[..8];
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let request = hex(digest(&SHA256, request.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{request}");
        let key = format!("AWS4{}", self.secret.in_clear()).into_bytes();
        let key = [day, &self.region, "s3", "aws4_request"].iter().fold(key, |key, part| tag(&key, part));
        let signature = hex(&tag(&key, &to_sign));
        let value = format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.key_id);
        let mut value = HeaderValue::try_from(value).expect("a key's id, a region and names are visible ASCII");
        value.set_sensitive(true);
        value
    }
}

fn tag(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A path as it is signed and sent: all but unreserved characters (RFC 3986 §2.3) and slashes in percent-encoding.
pub(super) fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The time as signatures have it, "20261121T094555Z".
pub(super) fn stamp(unix_ms: u64) -> String {
    let (date, hour) = activity::date_and_hour(unix_ms);
    let (minute, second) = (unix_ms / 60_000 % 60, unix_ms / 1000 % 60);
    format!("{}T{hour:02}{minute:02}{second:02}Z", date.replace('-', ""))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// "Example: PUT Object" of the page above.
    #[test]
    fn a_request_is_signed_as_the_specification_signs_it() {
        let secret = Ok(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".as_slice());
        let signer = Signer {
            key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: Secret::read(Path::new("/s"), "lake.secret_key_file", secret).unwrap(),
            region: "us-east-1".into(),
        };
        let body = hex(digest(&SHA256, b"Welcome to Amazon S3.").as_ref());
        let at = stamp(1_369_353_600_000);
        assert_eq!(at, "20130524T000000Z");
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", &body),
            ("x-amz-date", &at),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let path = encoded("/test$file.text");
        assert_eq!(path, "/test%24file.text");
        let authorization = signer.authorization(&Method::PUT, &path, &headers, &body, &at);
        assert!(authorization.is_sensitive());
        assert_eq!(
            authorization.to_str().unwrap(),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, \
             Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
    }
}
