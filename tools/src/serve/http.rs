//! The little of HTTP/1.1 that a scraper needs, as pure functions over bytes: one request without a body, one answer,
//! and the connection ends.

/// A request's line and fields may have so many bytes.
pub(super) const HEAD_MAX: usize = 8 * 1024;

/// Which text is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
}

impl Dialect {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The beginning of a request.
    More,
    /// Metrics; without their text when `head`.
    Metrics { dialect: Dialect, head: bool },
    /// Something that is not there, or no request at all.
    Refused { status: &'static str },
}

const BAD: Asked = Asked::Refused { status: "400 Bad Request" };

/// Reads what has come so far.
pub(super) fn read(bytes: &[u8]) -> Asked {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() >= HEAD_MAX {
            Asked::Refused { status: "431 Request Header Fields Too Large" }
        } else if could_begin(bytes) {
            Asked::More
        } else {
            BAD
        };
    };
    let Some(head) = bytes.get(..end).and_then(|head| std::str::from_utf8(head).ok()) else {
        return BAD;
    };
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (method, target, version, words.next())
    else {
        return BAD;
    };
    let mut accept = String::new();
    for field in lines {
        let Some((name, value)) = field.split_once(':') else { return BAD };
        if name.is_empty() || !name.bytes().all(is_token) {
            return BAD;
        }
        if name.eq_ignore_ascii_case("accept") {
            // A list may come in several fields.
            accept.push(',');
            accept.push_str(value);
        }
    }
    answer(method, target, &accept)
}

fn answer(method: &str, target: &str, accept: &str) -> Asked {
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET" | "HEAD", "/metrics") => {
            Asked::Metrics { dialect: dialect(accept), head: method == "HEAD" }
        }
        ("GET" | "HEAD", _) => Asked::Refused { status: "404 Not Found" },
        (method, _) if method.bytes().all(is_token) && !method.is_empty() => {
            Asked::Refused { status: "405 Method Not Allowed" }
        }
        _ => BAD,
    }
}

/// RFC 9110, 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Whether a request can begin like this: a word of letters, then text without control bytes.
fn could_begin(bytes: &[u8]) -> bool {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    let goes_on = bytes.get(method).is_none_or(|&byte| byte == b' ');
    let text = |byte: &u8| matches!(byte, b'\r' | b'\n' | b'\t' | b' '..=b'~' | 0x80..);
    goes_on && method <= 16 && (bytes.is_empty() || method > 0) && bytes.iter().all(text)
}

/// OpenMetrics where it is accepted at least as gladly as plain text; a scraper that says nothing gets what all read.
fn dialect(accept: &str) -> Dialect {
    let (mut open, mut text) = (0.0, 0.0);
    for one in accept.split(',') {
        let mut parts = one.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1.0f64, None);
        for part in parts {
            match part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                Some(("version", value)) => version = Some(value.trim_matches('"')),
                _ => {}
            }
        }
        let ours = |known: &str| version.is_none_or(|version| version == known);
        match kind.as_str() {
            "application/openmetrics-text" if ours("1.0.0") => open = quality.max(open),
            "text/plain" if ours("0.0.4") => text = quality.max(text),
            _ => {}
        }
    }
    if open > 0.0 && open >= text { Dialect::OpenMetrics } else { Dialect::Text }
}

/// An answer's line and fields.
pub(super) fn head(status: &str, content_type: &str, length: usize) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> &'static str {
        match read(bytes) {
            Asked::Refused { status } => status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_may_come_byte_by_byte() {
        let whole = b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\r\n";
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len]), Asked::More, "{len}");
        }
        assert_eq!(read(whole), Asked::Metrics { dialect: Dialect::Text, head: false });
        let head = b"HEAD /metrics HTTP/1.0\r\n\r\n";
        assert_eq!(read(head), Asked::Metrics { dialect: Dialect::Text, head: true });
    }

    #[test]
    fn garbage_is_told_from_a_request_as_soon_as_it_can_be() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"\r\n\r\n",
            b"GET /metrics\r\n\r\n",
            b"GET  /metrics HTTP/1.1\r\n\r\n",
            b"GET /metrics HTTP/2\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nno field\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nA b: c\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
            b"GET\x00",
            b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(status(bytes), "400 Bad Request", "{bytes:?}");
        }
        assert_eq!(status(b"POST /metrics HTTP/1.1\r\n\r\n"), "405 Method Not Allowed");
        // Methods are told apart by case.
        assert_eq!(status(b"get /metrics HTTP/1.1\r\n\r\n"), "405 Method Not Allowed");
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), "404 Not Found");
        let mut long = b"GET /metrics HTTP/1.1\r\nA: ".to_vec();
        long.resize(HEAD_MAX, b'x');
        assert_eq!(status(&long), "431 Request Header Fields Too Large");
        assert_eq!(read(&long[..HEAD_MAX - 1]), Asked::More);
    }

    #[test]
    fn the_dialect_is_the_one_that_is_wanted_more() {
        // What Prometheus 2.42 sends, then what 3 sends in short.
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, wanted) in [
            ("", Dialect::Text),
            ("*/*", Dialect::Text),
            (prometheus, Dialect::OpenMetrics),
            (
                "application/openmetrics-text; version=\"1.0.0\"; charset=utf-8",
                Dialect::OpenMetrics,
            ),
            ("application/openmetrics-text;version=0.0.1", Dialect::Text),
            ("application/openmetrics-text;q=0", Dialect::Text),
            ("text/plain, application/openmetrics-text;q=0.9", Dialect::Text),
            ("text/plain;q=0.3, Application/OpenMetrics-Text;q=0.9", Dialect::OpenMetrics),
            ("application/openmetrics-text;q=x", Dialect::Text),
        ] {
            assert_eq!(dialect(accept), wanted, "{accept}");
        }
    }
}
