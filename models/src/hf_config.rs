//! `config.json`, read so that no key which changes the maths is passed over in silence.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use candle_engine::{Error, Result};
use serde_json::{Map, Value};

/// A `config.json` that remembers which of its keys were read. `null` counts as absent.
#[derive(Debug)]
pub struct HfConfig {
    map: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

/// Keys that describe training, generation defaults or bookkeeping: they never change a forward pass.
const HARMLESS: &[&str] = &[
    "architectures",
    "auto_map",
    "bad_words_ids",
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "is_decoder",
    "label2id",
    "language",
    "license",
    "model_type",
    "name_or_path",
    "num_beam_groups",
    "num_beams",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "task_specific_params",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "typical_p",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
];

/// Parts of names that mark a key as harmless: dropout, token ids, generation defaults.
const HARMLESS_PARTS: &[&str] = &[
    "_token_id",
    "begin_suppress",
    "decoder_start",
    "diversity",
    "dropout",
    "early_stopping",
    "initializer",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram",
    "output_",
    "pdrop",
    "remove_invalid",
    "repetition_penalty",
    "return_",
    "suppress_tokens",
    "temperature",
    "tf_",
    "unsloth",
];

/// Endings of names whose neutral value is one.
const FACTORS: &[&str] = &["_factor", "_multiplier", "_scale", "_scaling"];

impl HfConfig {
    /// Reads the file.
    ///
    /// Errors: `Io` or `Malformed` naming it.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&text).map_err(|e| Error::malformed(path, e))
    }

    /// Reads a configuration that is in memory.
    pub fn from_bytes(name: &str, text: &[u8]) -> Result<Self> {
        Self::parse(text).map_err(|e| Error::malformed(name, e))
    }

    /// A configuration put together from another source.
    pub fn from_map(map: Map<String, Value>) -> Self {
        Self { map, read: RefCell::default() }
    }

    fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        let map = serde_json::from_slice(text).map_err(|e| format!("not a JSON object: {e}"))?;
        Ok(Self::from_map(map))
    }

    /// A nested object, which keeps its own account of what was read.
    pub fn object(&self, key: &str) -> Result<Option<Self>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self::from_map(map.clone()))),
            Some(other) => Err(wrong(key, "an object", other)),
        }
    }

    /// The value of a key; `None` if absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.into());
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key stands in the file, null or not.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A whole number that must be there.
    ///
    /// Errors: `Config` naming the key.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_or(key, None)?.ok_or_else(|| Error::config(key, "is missing"))
    }

    /// A whole number, or `default`.
    pub fn size_or(&self, key: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => {
                let n = v.as_u64().and_then(|n| u32::try_from(n).ok());
                Ok(Some(n.ok_or_else(|| wrong(key, "a whole number below 2^32", v))? as usize))
            }
        }
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => {
                v.as_f64().filter(|x| x.is_finite()).map(Some).ok_or_else(|| wrong(key, "a number", v))
            }
        }
    }

    /// True or false.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| wrong(key, "true or false", v)),
        }
    }

    /// A string.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v.as_str().map(Some).ok_or_else(|| wrong(key, "a string", v)),
        }
    }

    /// A list of strings.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.list(key, "a list of strings", |v| v.as_str())
    }

    /// A list of whole numbers.
    pub fn sizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.list(key, "a list of whole numbers", |v| Some(v.as_u64()? as usize))
    }

    fn list<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        item: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => {
                let list = v.as_array().and_then(|items| items.iter().map(item).collect::<Option<Vec<T>>>());
                Ok(Some(list.ok_or_else(|| wrong(key, expected, v))?))
            }
        }
    }

    /// Refuses a configuration in which a key that could change the maths was not read.
    ///
    /// Errors: `Config` naming the first such key, after `at` (empty, or the enclosing key and a dot).
    pub fn finish(&self, at: &str) -> Result<()> {
        let read = self.read.borrow();
        for (key, value) in &self.map {
            if !read.contains(key) && !harmless(key, value) {
                return Err(Error::config(
                    format!("{at}{key}"),
                    format!("{} is not understood here and may change the result", short(value)),
                ));
            }
        }
        Ok(())
    }
}

fn harmless(key: &str, value: &Value) -> bool {
    let neutral = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(n) => n.as_f64() == Some(1.0) && FACTORS.iter().any(|end| key.ends_with(end)),
        Value::Bool(true) => false,
    };
    neutral
        || key.starts_with('_')
        || HARMLESS.contains(&key)
        || HARMLESS_PARTS.iter().any(|part| key.contains(part))
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    Error::config(key, format!("expected {expected}, got {}", short(found)))
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> HfConfig {
        HfConfig::from_bytes("config.json", text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_that_change_the_maths_are_not_passed_over() {
        let c = config(
            r#"{"hidden_size":8,"attention_dropout":0.1,"eos_token_id":[1,2],"attn_logit_softcapping":50.0}"#,
        );
        assert_eq!(c.size("hidden_size").unwrap(), 8);
        let error = c.finish("").unwrap_err().to_string();
        assert!(error.contains("`attn_logit_softcapping`: 50.0 is not understood"), "{error}");
        let neutral = config(r#"{"logits_scaling":1.0,"use_moe":false,"rope_scaling":null,"_x":3}"#);
        neutral.finish("").unwrap();
        assert!(config(r#"{"residual_multiplier":0.2}"#).finish("").is_err());
        assert!(config(r#"{"use_alibi":true}"#).finish("").is_err());
    }

    #[test]
    fn errors_name_key_expected_and_found() {
        let c = config(r#"{"a":"x","b":-1,"c":[1,"y"],"d":1e999}"#.replace("1e999", "1e300").as_str());
        assert_eq!(c.size("q").unwrap_err().to_string(), "config key `q`: is missing");
        assert!(c
            .size("a")
            .unwrap_err()
            .to_string()
            .contains("`a`: expected a whole number below 2^32, got \"x\""));
        assert!(c.size("b").is_err() && c.strings("c").is_err() && c.flag("a", true).is_err());
        assert!(HfConfig::from_bytes("config.json", b"[1]")
            .unwrap_err()
            .to_string()
            .contains("config.json: not a JSON object"));
    }
}
