//! Several parts of an object in one answer: `multipart/byteranges` (RFC 9110 §14.6).
//!
//! What always holds: the length is known before the first byte, all parts are of one version, and a part that cannot be had any more
//! breaks the answer off. Nothing is copied but the few lines between parts.

use std::{ops::Range, sync::Arc};

use ::http::header;
use bytes::Bytes;
use cache::{Cache, FillError, Generation, Opened, Reader, Source};
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

/// Random bytes in a boundary: whoever writes an object cannot guess what will stand around its parts (RFC 2046 §5.1.1).
const BOUNDARY_RANDOM_BYTES: usize = 16;

/// What stands around the parts.
#[derive(Debug)]
pub(crate) struct Multipart {
    boundary: String,
    /// Before each part.
    heads: Vec<Bytes>,
    tail: Bytes,
    parts: Vec<Range<u64>>,
}

impl Multipart {
    /// For `parts` of the object of `generation`, none of which is empty.
    pub(crate) fn new(generation: &Generation, parts: Vec<Range<u64>>) -> Self {
        let boundary = boundary();
        let content_type = generation.headers.iter().find(|(name, _)| name == header::CONTENT_TYPE.as_str());
        // §15.3.7.2: "If the selected representation would have had a Content-Type header field in a 200 (OK) response, the server SHOULD
        // generate that same Content-Type header field in the header area of each body part."
        let content_type = content_type.map_or_else(String::new, |(_, value)| format!("content-type: {value}\r\n"));
        let heads = parts.iter().enumerate().map(|(at, part)| {
            let line_end = if at == 0 { "" } else { "\r\n" };
            let range = content_range(part, generation.length);
            format!("{line_end}--{boundary}\r\n{content_type}content-range: {range}\r\n\r\n").into()
        });
        Self { heads: heads.collect(), tail: format!("\r\n--{boundary}--\r\n").into(), parts, boundary }
    }

    /// The type of the whole answer.
    pub(crate) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Bytes of the whole answer.
    pub(crate) fn bytes(&self) -> u64 {
        let heads: usize = self.heads.iter().map(Bytes::len).sum();
        (heads + self.tail.len()) as u64 + self.parts.iter().map(|part| part.end - part.start).sum::<u64>()
    }

    /// The first part, which is read before the answer begins.
    pub(crate) fn first(&self) -> Range<u64> {
        self.parts[0].clone()
    }

    /// All of it. `first` reads the first part; the others are looked for when their turn comes, in the version that is open.
    pub(crate) fn stream<S: Source>(
        self,
        first: Reader,
        (cache, key, opened, source): (Cache, Arc<str>, Opened, Arc<S>),
    ) -> BoxStream<'static, Result<Bytes, FillError>> {
        let mut first = Some(first);
        let parts = stream::iter(self.heads.into_iter().zip(self.parts)).then(move |(head, part)| {
            let (cache, key, opened, source, first) = (cache.clone(), key.clone(), opened.again(), source.clone(), first.take());
            async move {
                let reader = match first {
                    Some(first) => first,
                    None => cache.read(&key, opened, part, &source).await?,
                };
                Ok(stream::once(async { Ok(head) }).chain(reader))
            }
        });
        let tail = self.tail;
        parts.try_flatten().chain(stream::once(async { Ok(tail) })).boxed()
    }
}

/// The value of `Content-Range` (RFC 9110 §14.4).
pub(crate) fn content_range(part: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end - 1)
}

fn boundary() -> String {
    let mut random = [0; BOUNDARY_RANDOM_BYTES];
    aws_lc_rs::rand::fill(&mut random).expect("without random numbers there would be no TLS");
    random.iter().fold("larder-".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_stands_around_parts_is_as_the_rfc_shows_it() {
        let headers = vec![("content-type".into(), "video/mp4".into()), ("cache-control".into(), "max-age=1".into())];
        let generation = Generation {
            validator: "\"v1\"".into(),
            length: 8000,
            headers,
            fresh_for: Duration::ZERO,
            initial_age: Duration::ZERO,
            tags: Vec::new(),
        };
        let multipart = Multipart::new(&generation, vec![7000..8000, 500..501]);
        let boundary = multipart.boundary.clone();
        assert_eq!(multipart.content_type(), format!("multipart/byteranges; boundary={boundary}"));
        let first = format!("--{boundary}\r\ncontent-type: video/mp4\r\ncontent-range: bytes 7000-7999/8000\r\n\r\n");
        let second = format!("\r\n--{boundary}\r\ncontent-type: video/mp4\r\ncontent-range: bytes 500-500/8000\r\n\r\n");
        assert_eq!(multipart.heads, [first, second]);
        assert_eq!(multipart.tail, format!("\r\n--{boundary}--\r\n"));
        let framing: usize = multipart.heads.iter().map(Bytes::len).sum();
        assert_eq!(multipart.bytes(), (framing + multipart.tail.len() + 1001) as u64);
        let typeless = Multipart::new(&Generation { headers: Vec::new(), ..generation }, vec![0..1, 2..3]);
        assert!(typeless.heads[0].ends_with(b"\r\ncontent-range: bytes 0-0/8000\r\n\r\n"));
        assert_ne!(typeless.boundary, boundary);
        // RFC 2046 §5.1.1: at most 70 characters, and none that would need quotes.
        assert!(boundary.len() <= 70 && boundary.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }
}
