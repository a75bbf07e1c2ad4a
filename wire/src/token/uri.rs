//! The form in which URIs are compared. Pure text; refuses what is no http(s) URI.

use std::borrow::Cow;

use super::Refusal;

/// `uri`, normalised; borrowed when it is normal already, as nearly all are.
///
/// RFC 9246 §2.1.15: "Normalize the URI according to Section 2.7.3 of [RFC7230] and Sections 6.2.2 and 6.2.3 of [RFC3986]."
/// §2.1.11: "When comparing the URI, the percent encoded form as defined in Section 2.1 of [RFC3986] MUST be used."
pub(super) fn normal(uri: &str) -> Result<Cow<'_, str>, Refusal> {
    let (scheme, rest) = uri.split_once(':').ok_or(Refusal::Target("it has no scheme"))?;
    let rest = rest.strip_prefix("//").ok_or(Refusal::Target("it has no authority"))?;
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(authority_end);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    if is_normal(uri, scheme, authority, path) {
        return Ok(Cow::Borrowed(uri));
    }
    if !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::Target("it has a character that must be percent-encoded"));
    }
    if target.contains('#') {
        return Err(Refusal::Target("it has a fragment"));
    }
    let scheme = scheme.to_ascii_lowercase();
    let mut normal = format!("{scheme}://{}", host(&scheme, authority)?);
    normal.push_str(&without_dot_segments(&encoded(path)?));
    if let Some(query) = query {
        normal.push('?');
        normal.push_str(&encoded(query)?);
    }
    Ok(Cow::Owned(normal))
}

/// Whether [`normal`] would certainly change nothing: a doubtful URI goes the long way.
fn is_normal(uri: &str, scheme: &str, authority: &str, path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    let (name, port) = authority.split_once(':').unwrap_or((authority, "1"));
    let port_is_plain = !port.is_empty() && !matches!(port, "80" | "443") && port.bytes().all(|byte| byte.is_ascii_digit());
    // These two go over every byte and end nowhere early, so that they take many bytes at a time.
    let is_clean = uri.bytes().fold(true, |clean, byte| clean & byte.is_ascii_graphic() & (byte != b'%') & (byte != b'#'));
    let pairs = path.bytes().zip(path.bytes().skip(1));
    let has_dot_segment = pairs.fold(false, |dot, (first, second)| dot | ((first == b'/') & (second == b'.')));
    matches!(scheme, "http" | "https")
        && !name.is_empty()
        && name.bytes().all(is_plain)
        && port_is_plain
        && path.starts_with('/')
        && is_clean
        && !has_dot_segment
}

/// "The scheme and host are case insensitive and normally provided in lowercase", and a port that is empty or the scheme's own
/// is left out (RFC 7230 §2.7.3).
fn host(scheme: &str, authority: &str) -> Result<String, Refusal> {
    let default_port = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return Err(Refusal::Target("its scheme is neither http nor https")),
    };
    // RFC 7230 §2.7.1: "Before making use of an "http" URI reference received from an untrusted source, a recipient SHOULD parse
    // for userinfo and treat its presence as an error".
    if authority.contains('@') {
        return Err(Refusal::Target("it has user information"));
    }
    let port_at = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    let (name, port) = port_at.map_or((authority, ""), |colon| (&authority[..colon], &authority[colon + 1..]));
    if name.is_empty() {
        return Err(Refusal::Target("it has no host"));
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Target("its port is not a number"));
    }
    let name = encoded(&name.to_ascii_lowercase())?;
    Ok(if port.is_empty() || port == default_port { name } else { format!("{name}:{port}") })
}

/// Percent-encoding in one form: upper-case digits, and unreserved characters not encoded (RFC 3986 §6.2.2.1, §6.2.2.2).
fn encoded(text: &str) -> Result<String, Refusal> {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(percent) = rest.find('%') {
        normal.push_str(&rest[..percent]);
        let digits = rest.get(percent + 1..percent + 3).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
        let digits = digits.ok_or(Refusal::Target("it has a percent sign without two hexadecimal digits"))?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| Refusal::Target("it has a bad percent-encoding"))?;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            normal.push(byte.into());
        } else {
            normal.push('%');
            normal.push_str(&digits.to_ascii_uppercase());
        }
        rest = &rest[percent + 3..];
    }
    normal.push_str(rest);
    Ok(normal)
}

/// RFC 3986 §5.2.4 on an absolute path; an empty one is `/` (§6.2.3).
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            ".." => drop(kept.pop()),
            "." => {}
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_compared_in_one_form() {
        for (uri, expected) in [
            ("http://cdni.example/foo/bar", "http://cdni.example/foo/bar"),
            ("HTTP://CDNI.Example:80/foo", "http://cdni.example/foo"),
            ("https://cdni.example:443", "https://cdni.example/"),
            ("https://cdni.example:/a", "https://cdni.example/a"),
            ("http://cdni.example:443/a", "http://cdni.example:443/a"),
            ("https://edge.example:8443/a?b=/../c", "https://edge.example:8443/a?b=/../c"),
            ("https://[2001:DB8::1]:443/a", "https://[2001:db8::1]/a"),
            ("https://e/%7euser/%2f/%c3%a4?q=%3d%41", "https://e/~user/%2F/%C3%A4?q=%3DA"),
            ("https://e/a/b/c/./../../g", "https://e/a/g"),
            ("https://e/../../a/%2e%2E/b", "https://e/b"),
            ("https://e/a/b/..", "https://e/a/"),
            ("https://e/a/.", "https://e/a/"),
            ("https://e/a/.hidden/..b", "https://e/a/.hidden/..b"),
            ("https://e?q", "https://e/?q"),
            ("https://e//a//b", "https://e//a//b"),
        ] {
            assert_eq!(normal(uri).as_deref(), Ok(expected), "{uri}");
            assert_eq!(normal(expected).as_deref(), Ok(expected), "normal form is stable: {uri}");
        }
    }

    #[test]
    fn what_is_no_http_uri_is_refused() {
        for uri in [
            "/a",
            "ftp://e/a",
            "https://",
            "https:///a",
            "https://u@e/a",
            "https://e:x/a",
            "https://e/%4",
            "https://e/%zz",
            "https://e/a#b",
            "https://e/ a",
            "https://e/ä",
            "https://e/%",
        ] {
            assert!(matches!(normal(uri), Err(Refusal::Target(_))), "{uri}");
        }
    }
}
