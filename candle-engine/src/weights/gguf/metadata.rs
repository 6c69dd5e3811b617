//! Keys and values of a GGUF file, read from the mapped bytes when they are asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::cursor::{Cursor, Fault};
use super::kinds::Kind;
use crate::weights::MappedBytes;

/// Arrays in arrays: the format allows any depth, nobody uses more than one.
const MAX_DEPTH: usize = 4;

/// What a GGUF file says about its model.
///
/// Only the keys are copied. Every value was checked once when the file was opened, a vocabulary of 128 000
/// tokens without one allocation.
#[derive(Debug)]
pub struct Metadata {
    file: MappedBytes,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    kind: Kind,
    /// For an array its elements, without the element type and count that precede them.
    at: Range<usize>,
    elements: Option<(Kind, usize)>,
    /// The type's number and everything after it.
    whole: Range<usize>,
}

/// A value under a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// An unsigned integer of any width.
    Uint(u64),
    /// A signed integer of any width.
    Int(i64),
    /// A float of either width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string.
    Str(&'a str),
    /// A list.
    Array(Array<'a>),
}

/// A list of values of one kind, still in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: Kind,
    len: usize,
    bytes: &'a [u8],
}

impl Metadata {
    pub(super) fn read(at: &mut Cursor, claimed: u64, file: MappedBytes) -> Result<Self, Fault> {
        let mut entries = BTreeMap::new();
        for i in 0..claimed {
            let key =
                at.str("the key").map_err(|e| Fault(format!("metadata {} of {claimed}: {}", i + 1, e.0)))?;
            let named = |e: Fault| Fault(format!("key `{key}`: {}", e.0));
            let entry = Entry::read(at).map_err(named)?;
            if entries.insert(key.to_owned(), entry).is_some() {
                return Err(named(Fault("appears twice".into())));
            }
        }
        Ok(Self { file, entries })
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The value under a key, whatever its type.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let entry = self.entries.get(key)?;
        let bytes = self.file.get(entry.at.clone())?;
        match entry.elements {
            Some((kind, len)) => Some(Value::Array(Array { kind, len, bytes })),
            None => scalar(entry.kind, bytes),
        }
    }

    /// A value as the file has it: its type's number, then what makes it up. For writing it again.
    pub fn encoded(&self, key: &str) -> Option<&[u8]> {
        self.file.get(self.entries.get(key)?.whole.clone())
    }

    /// A string.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// An integer of any type that is not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Uint(n) => Some(n),
            Value::Int(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    /// A number of any type.
    pub fn f64(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Float(x) => Some(x),
            Value::Uint(n) => Some(n as f64),
            Value::Int(n) => Some(n as f64),
            _ => None,
        }
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// A list of strings, borrowed from the file.
    pub fn strings(&self, key: &str) -> Option<Vec<&str>> {
        self.array(key)?.collect(|value| match value {
            Value::Str(text) => Some(text),
            _ => None,
        })
    }

    /// A list of floats.
    pub fn f32s(&self, key: &str) -> Option<Vec<f32>> {
        self.array(key)?.collect(|value| match value {
            Value::Float(x) => Some(x as f32),
            _ => None,
        })
    }

    /// A list of integers of any type, or of truth values as 0 and 1.
    pub fn ints(&self, key: &str) -> Option<Vec<i64>> {
        self.array(key)?.collect(|value| match value {
            Value::Uint(n) => i64::try_from(n).ok(),
            Value::Int(n) => Some(n),
            Value::Bool(b) => Some(b.into()),
            _ => None,
        })
    }

    fn array(&self, key: &str) -> Option<Array<'_>> {
        match self.get(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl<'a> Array<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn collect<T>(self, convert: impl Fn(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        let mut at = Cursor::new(self.bytes);
        // The length was proven when the file was opened: every element is at least a byte of it.
        let mut all = Vec::with_capacity(self.len);
        for _ in 0..self.len {
            let value = match self.kind.size() {
                Some(size) => scalar(self.kind, at.take(size as u64, "").ok()?)?,
                None if self.kind == Kind::Str => Value::Str(at.str("").ok()?),
                None => return None,
            };
            all.push(convert(value)?);
        }
        Some(all)
    }
}

impl Entry {
    fn read(at: &mut Cursor) -> Result<Self, Fault> {
        let begin = at.position();
        let kind = Kind::new(at.u32("the value type")?)?;
        let (start, elements) = match kind {
            Kind::Array => {
                let (element, len) = array_head(at)?;
                let start = at.position();
                skip_elements(at, element, len, MAX_DEPTH)?;
                // It was walked, so it fits the file and so a usize.
                (start, Some((element, len as usize)))
            }
            Kind::Str => {
                let text = at.str("the string")?;
                (at.position() - text.len(), None)
            }
            _ => {
                let start = at.position();
                skip_elements(at, kind, 1, 0)?;
                (start, None)
            }
        };
        let end = at.position();
        Ok(Self { kind, at: start..end, elements, whole: begin..end })
    }
}

fn array_head(at: &mut Cursor) -> Result<(Kind, u64), Fault> {
    Ok((Kind::new(at.u32("the element type")?)?, at.u64("the array length")?))
}

/// Checks `len` elements and passes them by. Every element takes bytes, so a claim ends with the file.
fn skip_elements(at: &mut Cursor, kind: Kind, len: u64, depth: usize) -> Result<(), Fault> {
    match kind {
        Kind::Str => {
            for i in 0..len {
                at.str("the string").map_err(|e| Fault(format!("element {i} of {len}: {}", e.0)))?;
            }
            Ok(())
        }
        Kind::Array => {
            let Some(depth) = depth.checked_sub(1) else {
                return Err(Fault(format!("arrays are nested more than {MAX_DEPTH} deep")));
            };
            for _ in 0..len {
                let (kind, len) = array_head(at)?;
                skip_elements(at, kind, len, depth)?;
            }
            Ok(())
        }
        Kind::Bool => check_bools(at.take(len, "an array of bool")?),
        _ => {
            let size = kind.size().unwrap_or(1) as u64;
            let bytes = len
                .checked_mul(size)
                .ok_or_else(|| Fault(format!("an array of {len} {} overflows", kind.name())))?;
            at.take(bytes, "the array").map(drop)
        }
    }
}

fn check_bools(bytes: &[u8]) -> Result<(), Fault> {
    match bytes.iter().find(|&&b| b > 1) {
        Some(b) => Err(Fault(format!("expected a bool of 0 or 1, got {b}"))),
        None => Ok(()),
    }
}

/// The value in `bytes`, which are exactly its own.
fn scalar(kind: Kind, bytes: &[u8]) -> Option<Value<'_>> {
    fn le<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        bytes.try_into().ok()
    }
    Some(match kind {
        Kind::U8 => Value::Uint(u8::from_le_bytes(le(bytes)?).into()),
        Kind::I8 => Value::Int(i8::from_le_bytes(le(bytes)?).into()),
        Kind::U16 => Value::Uint(u16::from_le_bytes(le(bytes)?).into()),
        Kind::I16 => Value::Int(i16::from_le_bytes(le(bytes)?).into()),
        Kind::U32 => Value::Uint(u32::from_le_bytes(le(bytes)?).into()),
        Kind::I32 => Value::Int(i32::from_le_bytes(le(bytes)?).into()),
        Kind::F32 => Value::Float(f32::from_le_bytes(le(bytes)?).into()),
        Kind::Bool => Value::Bool(bytes == [1]),
        Kind::Str => Value::Str(std::str::from_utf8(bytes).ok()?),
        Kind::U64 => Value::Uint(u64::from_le_bytes(le(bytes)?)),
        Kind::I64 => Value::Int(i64::from_le_bytes(le(bytes)?)),
        Kind::F64 => Value::Float(f64::from_le_bytes(le(bytes)?)),
        Kind::Array => return None,
    })
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uint(n) => n.fmt(f),
            Self::Int(n) => n.fmt(f),
            Self::Float(x) => x.fmt(f),
            Self::Bool(b) => b.fmt(f),
            Self::Str(text) => write!(f, "{text:?}"),
            Self::Array(array) => write!(f, "{} × {}", array.len, array.kind.name()),
        }
    }
}
