//! POSIX Extended Regular Expressions (POSIX.1-2017, XBD §9.4), written anew in the syntax of the `regex` crate.
//!
//! The two differ: in brackets POSIX has no escapes, no nesting and no set operations; outside of them it has no `\d`, no `(?…)`
//! and no lazy `*?`. What POSIX leaves undefined is refused here, so no pattern means one thing to its signer and another to us.
//! An escaped punctuation character stands for itself: that is undefined too, but the RFC's own example writes `\:`. Whether the
//! leftmost-longest or the leftmost-first match is preferred makes no difference, as a URI matches whole or not at all. The
//! locale is POSIX (RFC 9246 §2.1.15.2), that is ASCII.

use std::fmt::Write as _;

/// The most repetitions an interval may ask for (`RE_DUP_MAX` as POSIX guarantees it).
const REPEAT_MAX: u32 = 255;
/// XBD §9.3.5.
const CLASSES: [&str; 12] =
    ["alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit"];

/// Translates a pattern, anchored at both ends. The error says what POSIX does not define.
pub(super) fn translated(pattern: &str) -> Result<String, String> {
    if let Some(other) = pattern.chars().find(|c| !c.is_ascii() || c.is_ascii_control()) {
        return Err(format!("{other:?} is in no URI"));
    }
    let mut out = String::with_capacity(pattern.len() * 2);
    out.push_str(r"\A(?:");
    let mut rest = pattern;
    // Whether what stands before can be repeated.
    let mut is_atom = false;
    while let Some(c) = rest.chars().next() {
        rest = &rest[1..];
        is_atom = match c {
            '\\' => {
                let escaped = rest.chars().next().ok_or("a backslash ends it")?;
                if !escaped.is_ascii_punctuation() {
                    return Err(format!("\\{escaped} is not defined in POSIX"));
                }
                rest = &rest[1..];
                literal(&mut out, escaped);
                true
            }
            '[' => {
                rest = bracket(rest, &mut out)?;
                true
            }
            '(' => {
                out.push_str("(?:");
                false
            }
            ')' | '.' => {
                out.push(c);
                true
            }
            '|' | '^' | '$' => {
                out.push(c);
                false
            }
            '*' | '+' | '?' | '{' if !is_atom => return Err(format!("{c} has nothing before it to repeat")),
            '*' | '+' | '?' => {
                out.push(c);
                false
            }
            '{' => {
                rest = interval(rest, &mut out)?;
                false
            }
            c => {
                literal(&mut out, c);
                true
            }
        };
    }
    out.push_str(r")\z");
    Ok(out)
}

fn literal(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\x{:02X}", u32::from(c));
    }
}

/// `{m}`, `{m,}` or `{m,n}`, after its brace. Gives what follows.
fn interval<'a>(text: &'a str, out: &mut String) -> Result<&'a str, String> {
    let (inside, rest) = text.split_once('}').ok_or("an interval is not closed")?;
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u32>().ok().filter(|number| is_number && *number <= REPEAT_MAX);
        number.ok_or(format!("{{{inside}}} is no interval of 0 to {REPEAT_MAX}"))
    };
    let (least, most) = match inside.split_once(',') {
        None => (number(inside)?, number(inside)?),
        Some((least, "")) => (number(least)?, REPEAT_MAX),
        Some((least, most)) => (number(least)?, number(most)?),
    };
    if least > most {
        return Err(format!("{{{inside}}} is no interval of 0 to {REPEAT_MAX}"));
    }
    let _ = write!(out, "{{{inside}}}");
    Ok(rest)
}

/// A bracket expression, after its opening bracket. Gives what follows.
fn bracket<'a>(text: &'a str, out: &mut String) -> Result<&'a str, String> {
    let mut rest = text;
    out.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut is_first = true;
    loop {
        if let Some(after) = rest.strip_prefix(']').filter(|_| !is_first) {
            out.push(']');
            return Ok(after);
        }
        is_first = false;
        if let Some(class) = rest.strip_prefix("[:") {
            let (name, after) = class.split_once(":]").ok_or("a character class is not closed")?;
            if !CLASSES.contains(&name) {
                return Err(format!("[:{name}:] is no character class"));
            }
            let _ = write!(out, "[:{name}:]");
            rest = after;
            continue;
        }
        let (start, after) = element(rest)?;
        rest = after;
        let range = rest.strip_prefix('-').filter(|after| !after.is_empty() && !after.starts_with(']'));
        literal(out, start);
        if let Some(after) = range {
            let (end, after) = element(after)?;
            if end < start {
                return Err(format!("the range {start}-{end} is backwards"));
            }
            out.push('-');
            literal(out, end);
            rest = after;
        }
    }
}

/// One collating element: a character, `[.x.]` or `[=x=]`. In the POSIX locale each is one character.
fn element(text: &str) -> Result<(char, &str), String> {
    for (open, close) in [("[.", ".]"), ("[=", "=]")] {
        if let Some(symbol) = text.strip_prefix(open) {
            let mut chars = symbol.chars();
            let c = chars.next().ok_or("a bracket expression is not closed")?;
            let rest = chars.as_str().strip_prefix(close).ok_or("a collating symbol has more than one character")?;
            return Ok((c, rest));
        }
    }
    if text.starts_with("[:") {
        return Err("a character class is no end of a range".into());
    }
    let c = text.chars().next().ok_or("a bracket expression is not closed")?;
    Ok((c, &text[1..]))
}

#[cfg(test)]
mod tests {
    use regex::bytes::RegexBuilder;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let translated = translated(pattern).unwrap();
        RegexBuilder::new(&translated).unicode(false).dot_matches_new_line(true).build().unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn patterns_match_the_whole_text() {
        for (pattern, yes, no) in [
            ("ab", "ab", "xab"),
            ("ab", "ab", "abx"),
            ("a|b", "b", "ab"),
            ("a.c", "a/c", "a//c"),
            ("(ab)+", "abab", "aba"),
            ("ab{2}c?", "abb", "ab"),
            ("a{2,3}", "aaa", "aaaa"),
            ("a{2,}", "aaaaa", "a"),
            (r"a\.b\*\\", r"a.b*\", r"axb*\"),
            ("^a$", "a", "aa"),
            ("(a|)b", "b", "ab "),
            ("a]}", "a]}", "a}"),
            ("A", "A", "a"),
            (
                r"[^:]*\://[^/]*/q_[^/]*/segment.{3}\.mp4(\?.*)?",
                "https://e/q_1/segment001.mp4?a",
                "https://e/q_1/x/segment001.mp4",
            ),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no), "{pattern} {no}");
        }
    }

    #[test]
    fn brackets_are_read_as_posix_reads_them() {
        for (pattern, yes, no) in [
            ("[]a]", "]", "[]a]"),
            ("[^]a]", "b", "]"),
            ("[a-]", "-", "b"),
            ("[-a]", "-", "b"),
            ("[+--]", ",", "."),
            (r"[\d]", r"\", "1"),
            (r"[\]", r"\", "]"),
            ("[a&&b]", "&", "c"),
            ("[a~~b]", "~", "c"),
            ("[a[b]", "[", "c"),
            ("[[:digit:]x]", "7", "y"),
            ("[^[:digit:]]", "y", "7"),
            ("[[.-.]]", "-", "."),
            ("[[=a=]b]", "a", "="),
            ("[a^]", "^", "b"),
            ("[0-9a-f]{3}", "0af", "0ag"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no), "{pattern} {no}");
        }
    }

    #[test]
    fn what_posix_does_not_define_is_refused() {
        for pattern in [
            r"\d",
            r"\bx",
            r"a\",
            "*a",
            "a**",
            "a*?",
            "a+?",
            "(?i)a",
            "(*a)",
            "a|*b",
            "^*",
            "a{",
            "a{x}",
            "a{2,1}",
            "a{256}",
            "a{,2}",
            "a{+1}",
            "{1}",
            "[a",
            "[]",
            "[",
            "[z-a]",
            "[[:word:]]",
            "[[:alpha:",
            "[[.ab.]]",
            "[a-[:digit:]]",
            "ä",
            "a\n",
        ] {
            assert!(translated(pattern).is_err(), "{pattern}: {:?}", translated(pattern));
        }
    }
}
