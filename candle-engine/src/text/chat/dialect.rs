//! The Jinja that chat templates are written in: Python's, as transformers sets it up.

use std::fmt;
use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::Formatter;

use super::date;

/// An environment with the syntax, filters and functions that templates expect.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_formatter(|out, state, value| match f64::try_from(value.clone()) {
        Ok(x) if value.is_number() && !value.is_integer() => out.write_str(&float(x)).map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    });
    env.add_filter("tojson", tojson);
    env.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        let raised = Raised(message.to_string());
        Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(raised))
    });
    env.add_function("strftime_now", |format: &str| date::strftime(format, date::now()));
    Ok(env)
}

/// What a template said with `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Turns `{% generation %}`, which only marks what the model is trained on, into a block that does nothing.
///
/// The scope and the whitespace control of the tag are kept.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out += before;
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let (inner, after) = tag.split_at(end);
        let word = inner.trim_matches(['-', '+']).trim();
        if let Some(neutral) =
            [("generation", "with"), ("endgeneration", "endwith")].iter().find(|p| p.0 == word)
        {
            out += &inner.replace(word, neutral.1);
            rest = after;
        }
    }
    out + rest
}

/// `json.dumps(value, ensure_ascii=False)` with the arguments that transformers passes through.
///
/// Accepts `ensure_ascii`, `indent` (spaces, or a string), `separators` (a pair) and `sort_keys`.
fn tojson(value: &Value, positional: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let fault = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    if value.is_undefined() {
        return Err(fault("tojson: the value is undefined".into()));
    }
    // The order of Python's signature.
    let option = |name: &str, position: usize| -> Result<Option<Value>, Error> {
        let given = options.get::<Option<Value>>(name)?.or_else(|| positional.get(position).cloned());
        Ok(given.filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let ensure_ascii = option("ensure_ascii", 0)?.is_some_and(|v| v.is_true());
    let indent = match option("indent", 1)? {
        None => None,
        Some(v) if v.kind() == ValueKind::String => Some(v.to_string()),
        Some(v) => match usize::try_from(v)? {
            spaces @ 0..=64 => Some(" ".repeat(spaces)),
            spaces => return Err(fault(format!("tojson: an indent of {spaces} is too wide"))),
        },
    };
    let (comma, colon) = match option("separators", 2)? {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
    };
    let sort_keys = option("sort_keys", 3)?.is_some_and(|v| v.is_true());
    options.assert_all_used()?;

    let json = |e: serde_json::Error| fault(format!("tojson: {e}"));
    let mut plain = serde_json::to_value(value).map_err(json)?;
    if sort_keys {
        plain.sort_all_objects();
    }
    let style = PythonStyle { indent, comma, colon, ensure_ascii, depth: 0, empty: true };
    let mut out = Vec::new();
    plain.serialize(&mut serde_json::Serializer::with_formatter(&mut out, style)).map_err(json)?;
    String::from_utf8(out).map_err(|e| fault(format!("tojson: {e}")))
}

/// Lays JSON out as Python's `json.dumps` does.
struct PythonStyle {
    indent: Option<String>,
    comma: String,
    colon: String,
    ensure_ascii: bool,
    depth: usize,
    /// Whether the innermost list or object has no members so far.
    empty: bool,
}

impl PythonStyle {
    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(out)?;
        }
        self.empty = false;
        out.write_all(bracket)
    }

    fn member<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if !first {
            out.write_all(self.comma.as_bytes())?;
        }
        self.line(out)
    }

    fn line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(indent.as_bytes()))
    }
}

impl Formatter for PythonStyle {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.member(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.member(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.colon.as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        if !self.ensure_ascii {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            match c.is_ascii() {
                true => out.write_all(&[c as u8])?,
                false => {
                    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
                }
            }
        }
        Ok(())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, x: f64) -> io::Result<()> {
        out.write_all(float(x).as_bytes())
    }
}

/// Writes a number as Python does: with an exponent, of a sign and at least two digits, below 1e-4 and from 1e16 on.
fn float(x: f64) -> String {
    if !x.is_finite() || x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        return format!("{x:?}").replace("NaN", "nan");
    }
    let text = format!("{x:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sign = if exponent.starts_with('-') { '-' } else { '+' };
    format!("{digits}e{sign}{:0>2}", exponent.trim_start_matches('-'))
}
