//! A JSON document as a page reads it: every figure of a page is looked up by its JSON pointer, so that
//! page and document cannot differ, and a test can follow each figure back.

use std::cell::RefCell;

use serde_json::Value;

use super::Tone;
use crate::render::units::{bytes, count, span, time};

/// What a number is, and so how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// Nanoseconds with a sign.
    SignedNs,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes per hour, with a sign.
    BytesPerHour,
    /// A whole number.
    Count,
    /// A share, in percent.
    Share,
    /// A share with a sign.
    SignedShare,
    /// Something per second.
    PerSecond,
    /// A number of no unit.
    Number,
    /// As it is.
    Text,
}

impl Unit {
    /// The number as people read it.
    #[must_use]
    pub fn write(self, value: f64) -> String {
        let sign = if value < 0.0 { "-" } else { "+" };
        match self {
            Self::Ns => time(value),
            Self::SignedNs if value.abs() < 0.5 => "0 ns".to_owned(),
            Self::SignedNs => format!("{sign}{}", time(value.abs())),
            Self::Seconds => span(value),
            Self::Bytes => bytes(value),
            Self::BytesPerHour => format!("{sign}{}/h", bytes(value.abs())),
            Self::Count => whole(value),
            Self::Share => format!("{} %", digits(value * 100.0)),
            Self::SignedShare => format!("{:+.2} %", value * 100.0),
            Self::PerSecond if value == 0.0 => "0/s".to_owned(),
            Self::PerSecond if value.abs() < 10.0 => format!("{value:.2}/s"),
            Self::PerSecond => format!("{}/s", whole(value.round())),
            Self::Number | Self::Text => number(value),
        }
    }

    /// Its name for the page's script.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Ns | Self::SignedNs => "ns",
            Self::Bytes | Self::BytesPerHour => "bytes",
            Self::Share | Self::SignedShare => "share",
            Self::PerSecond => "per_s",
            Self::Seconds => "s",
            Self::Count | Self::Number | Self::Text => "number",
        }
    }

    /// The unit that a key's suffix names.
    #[must_use]
    pub fn of_key(key: &str) -> Self {
        let units = [
            ("_bytes_per_h", Self::BytesPerHour),
            ("_per_s", Self::PerSecond),
            ("_ns", Self::Ns),
            ("_s", Self::Seconds),
            ("_bytes", Self::Bytes),
            ("_ratio", Self::Number),
            ("_share", Self::Share),
        ];
        let named = units.iter().find(|(suffix, _)| key.ends_with(suffix));
        match named {
            Some((_, unit)) => *unit,
            None if key == "share" => Self::Share,
            None => Self::Number,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative here; Rust casts of floats saturate"
)]
fn whole(value: f64) -> String {
    if value < 0.0 { format!("-{}", count(-value as u64)) } else { count(value as u64) }
}

/// Percent with as many digits as matter: 99.93 is not 100.
fn digits(percent: f64) -> String {
    match percent.abs() {
        p if p > 99.0 && p < 100.0 => format!("{percent:.3}"),
        p if p >= 9.995 => format!("{percent:.1}"),
        _ => format!("{percent:.2}"),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e15 => format!("{value:e}"),
        _ if value.fract() == 0.0 => whole(value),
        v if v >= 1_000.0 => whole(value.round()),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 10.0 => format!("{value:.2}"),
        v if v >= 0.01 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

/// A figure of a page: what is read, where it stands in the document, and its value there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figure {
    /// As it is read.
    pub text: String,
    /// JSON pointer of its value; none for text that is no value of the document.
    pub at: Option<String>,
    /// The value, as JSON writes it.
    pub raw: Option<String>,
    /// How it is meant.
    pub tone: Tone,
    /// Why it is unknown, and what to do.
    pub why: Option<String>,
}

impl Figure {
    /// Text that is no figure.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The same with a tone.
    #[must_use]
    pub fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// A document that is being read.
#[derive(Debug)]
pub struct Doc<'a> {
    root: &'a Value,
    /// Pointers that led nowhere.
    lost: RefCell<Vec<String>>,
}

impl<'a> Doc<'a> {
    pub(super) const fn new(root: &'a Value) -> Self {
        Self { root, lost: RefCell::new(Vec::new()) }
    }

    /// Pointers that led nowhere: an older document, or a mistake of the page.
    pub(super) fn lost(self) -> Vec<String> {
        self.lost.into_inner()
    }

    /// The value at a pointer.
    pub(super) fn get(&self, at: &str) -> Option<&'a Value> {
        self.root.pointer(at)
    }

    /// The value at a pointer that every document of this kind has.
    pub(super) fn value(&self, at: &str) -> Option<&'a Value> {
        let found = self.root.pointer(at);
        if found.is_none() {
            self.lost.borrow_mut().push(at.to_owned());
        }
        found
    }

    /// A list; empty when it is none.
    pub(super) fn list(&self, at: &str) -> &'a [Value] {
        self.value(at).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Text; empty when it is none.
    pub(super) fn str(&self, at: &str) -> &'a str {
        self.value(at).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether something there was measured.
    pub(super) fn is_known(&self, at: &str) -> bool {
        self.value(at).is_some_and(|value| !value.is_null() && unknown(value).is_none())
    }

    /// Why it was not, if it was not.
    pub(super) fn why(&self, at: &str) -> Option<String> {
        unknown(self.get(at)?)
    }

    /// A number where there is one.
    pub(super) fn number(&self, at: &str) -> Option<f64> {
        self.get(at)?.as_f64()
    }

    /// The figure at a pointer.
    pub(super) fn figure(&self, at: &str, unit: Unit) -> Figure {
        self.value(at)
            .map_or_else(|| Figure::text("-").toned(Tone::Unknown), |value| figure(value, at, unit))
    }
}

/// Cause and remedy of what was not measured.
pub(crate) fn unknown(value: &Value) -> Option<String> {
    let cause = value.get("unknown")?.as_str()?;
    let remedy = value.get("remedy").and_then(Value::as_str);
    Some(remedy.map_or_else(|| cause.to_owned(), |remedy| format!("{cause}; remedy: {remedy}")))
}

fn figure(value: &Value, at: &str, unit: Unit) -> Figure {
    let at = Some(at.to_owned());
    let plain = |text: String| Figure { text, at: at.clone(), ..Figure::default() };
    match value {
        Value::Null => Figure { tone: Tone::Unknown, ..plain("-".to_owned()) },
        Value::Bool(holds) => plain(if *holds { "yes" } else { "no" }.to_owned()),
        Value::Number(n) => Figure {
            raw: Some(n.to_string()),
            ..plain(n.as_f64().map_or_else(|| n.to_string(), |n| unit.write(n)))
        },
        Value::String(text) => plain(text.clone()),
        Value::Object(_) => match unknown(value) {
            Some(why) => Figure { why: Some(why), tone: Tone::Unknown, ..Figure::text("unknown") },
            None => Figure::text(value.to_string()),
        },
        Value::Array(list) => {
            let words = list.iter().map(|item| figure(item, "", unit).text);
            Figure::text(words.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_figure_knows_where_it_is_from() {
        let root = json!({"a": {"p99_ns": 88_000}, "b": {"unknown": "no PMU", "remedy": "bare metal"}, "c": null});
        let doc = Doc::new(&root);
        let known = doc.figure("/a/p99_ns", Unit::Ns);
        assert_eq!((known.text.as_str(), known.raw.as_deref()), ("88.0 us", Some("88000")));
        let unknown = doc.figure("/b", Unit::Ns);
        assert_eq!(unknown.text, "unknown");
        assert_eq!(unknown.why.as_deref(), Some("no PMU; remedy: bare metal"));
        assert_eq!(doc.figure("/c", Unit::Ns).text, "-");
        assert!(doc.is_known("/a") && !doc.is_known("/b") && !doc.is_known("/c"));
        doc.figure("/nowhere", Unit::Ns);
        assert_eq!(doc.lost(), ["/nowhere"]);
    }

    #[test]
    fn shares_near_the_whole_keep_their_digits() {
        assert_eq!(Unit::Share.write(0.999_31), "99.931 %");
        assert_eq!(Unit::Share.write(1.0), "100.0 %");
        assert_eq!(Unit::Share.write(0.000_4), "0.04 %");
        assert_eq!(Unit::of_key("rate_bytes_per_h"), Unit::BytesPerHour);
        assert_eq!(Unit::of_key("measured_s"), Unit::Seconds);
        assert_eq!(Unit::BytesPerHour.write(-2_048.0), "-2.00 KiB/h");
    }
}
