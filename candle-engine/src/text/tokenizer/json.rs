//! `tokenizer.json`, in one pass: the vocabulary and the merges are borrowed from the file's bytes, and only
//! the small rest becomes a tree.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::added::AddedToken;
use super::bpe::{Bpe, Merges, Options, Unk};
use super::merges::MergeTable;
use super::vocab::{Repeats, Vocab};
use crate::{Error, Result};

/// The file's top level.
#[derive(Deserialize)]
pub(super) struct File<'a> {
    #[serde(default)]
    pub added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub normalizer: Value,
    #[serde(default)]
    pub pre_tokenizer: Value,
    #[serde(default)]
    pub post_processor: Value,
    #[serde(default)]
    pub decoder: Value,
    #[serde(borrow)]
    pub model: Model<'a>,
}

/// The model, of which only the byte-pair kind is read here.
#[derive(Deserialize)]
pub(super) struct Model<'a> {
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(borrow, default)]
    vocab: Entries<'a>,
    #[serde(borrow)]
    merges: Option<Pairs<'a>>,
}

impl<'a> File<'a> {
    /// Reads the file.
    ///
    /// Errors: `Tokenizer` with line and column.
    pub(super) fn read(json: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|e| Error::Tokenizer(e.to_string()))
    }
}

impl Model<'_> {
    /// Whether this is byte-pair encoding; old files do not say what they are.
    pub(super) fn is_bpe(&self) -> bool {
        match &self.kind {
            Some(kind) => kind == "BPE",
            None => self.merges.is_some(),
        }
    }

    /// Builds the model.
    ///
    /// Errors: `Tokenizer` on a damaged vocabulary, or merges of tokens that are not in it.
    pub(super) fn into_bpe(self) -> Result<Bpe> {
        let prefix = self.continuing_subword_prefix.unwrap_or_default();
        let entries = self.vocab.0.iter().map(|(token, id)| (&**token, *id));
        let vocab = Vocab::new(entries, Repeats::Refused)?;
        let pairs = self.merges.unwrap_or_default().0;
        let pairs = pairs.iter().map(|(left, right)| (&**left, &**right));
        let merges = Merges::Ranked(MergeTable::new(&vocab, pairs, prefix.clone())?);
        let unk = self.unk_token.map(|name| vocab.id(&name).map_or_else(|| Unk::Missing(name), Unk::Id));
        let options = Options {
            ignore_merges: self.ignore_merges,
            byte_fallback: self.byte_fallback,
            unk,
            fuse_unk: self.fuse_unk,
            continuing_prefix: prefix,
            end_suffix: self.end_of_word_suffix.unwrap_or_default(),
        };
        Ok(Bpe::new(vocab, merges, options))
    }
}

/// A string that is borrowed unless it is written with escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Borrow<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Borrow<'a> {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrow(PhantomData))
    }
}

/// `{"token": id, …}`. A list, as other kinds of model have it, is skipped.
#[derive(Default)]
struct Entries<'a>(Vec<(Cow<'a, str>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Read<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Read<'a> {
            type Value = Entries<'a>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tokens and their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries<'a>, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(token), id)) = map.next_entry()? {
                    entries.push((token, id));
                }
                Ok(Entries(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Entries<'a>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entries::default())
            }
        }
        from.deserialize_any(Read(PhantomData))
    }
}

/// `["left right", …]` or `[["left", "right"], …]`.
#[derive(Default)]
struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Read<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Read<'a> {
            type Value = Pairs<'a>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Pairs<'a>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(Pair(left, right)) = seq.next_element()? {
                    pairs.push((left, right));
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_seq(Read(PhantomData))
    }
}

struct Pair<'a>(Cow<'a, str>, Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Pair<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Read<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Read<'a> {
            type Value = Pair<'a>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge: two tokens, in a list or with one space between them")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> std::result::Result<Pair<'a>, E> {
                let (left, right) =
                    two(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))?;
                Ok(Pair(Cow::Borrowed(left), Cow::Borrowed(right)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Pair<'a>, E> {
                let (left, right) =
                    two(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))?;
                Ok(Pair(Cow::Owned(left.to_owned()), Cow::Owned(right.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Pair<'a>, A::Error> {
                let mut next = |n| match seq.next_element::<Text<'a>>()? {
                    Some(Text(token)) => Ok(token),
                    None => Err(de::Error::invalid_length(n, &self)),
                };
                let (left, right) = (next(0)?, next(1)?);
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Pair(left, right)),
                    Some(_) => Err(de::Error::invalid_length(3, &self)),
                }
            }
        }
        from.deserialize_any(Read(PhantomData))
    }
}

/// The two tokens of a merge in one string.
pub(super) fn two(merge: &str) -> Option<(&str, &str)> {
    merge.split_once(' ').filter(|(_, right)| !right.contains(' '))
}
