//! A `tokenizer.json`, said in GGUF's metadata.

use candle_engine::text::patterns::{LLAMA3, QWEN2};
use candle_engine::{Error, Result};
use candle_engine_quantization::write::MetaValue;
use serde_json::{Map, Value};

use super::origin::Origin;
use crate::model::token_ids;

const FILE: &str = "tokenizer.json";

/// Values of `tokenizer.ggml.token_type`.
mod token_type {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// The tokenizer's keys; none for a model without one.
///
/// Errors: `Malformed` for a file that is no tokenizer; `Config` for one that GGUF cannot describe.
pub(super) fn describe(origin: &Origin) -> Result<Vec<(String, MetaValue)>> {
    let Some(text) = origin.read(FILE) else { return Ok(Vec::new()) };
    let json: Value = serde_json::from_slice(&text?).map_err(|e| Error::malformed(FILE, e.to_string()))?;
    let model = &json["model"];
    if model["type"] != "BPE" {
        let what = format!("GGUF describes byte-pair encodings, got {}", model["type"]);
        return Err(Error::config("model.type", what));
    }
    let bytes_fall_back = model["byte_fallback"] == true;
    let vocab = Vocab::read(&json, origin.config.dims.vocab, bytes_fall_back)?;
    let merges = merges(model)?;
    let mut all = Vec::new();
    let mut add = |key: &str, value| all.push((format!("tokenizer.ggml.{key}"), value));
    if bytes_fall_back {
        add("model", MetaValue::Str("llama".into()));
        add("scores", MetaValue::F32s(vocab.scores(&merges)));
        let space = origin.config.family != "smollm3" && prepends_space(&json);
        add("add_space_prefix", MetaValue::Bool(space));
    } else {
        add("model", MetaValue::Str("gpt2".into()));
        add("pre", MetaValue::Str(pre_tokenizer(&json)?.into()));
        let joined = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        add("merges", MetaValue::Strs(joined));
    }
    let ids = |key: &str| origin.json.get(key).and_then(token_ids).unwrap_or_default();
    let (bos, eos) = (ids("bos_token_id"), ids("eos_token_id"));
    let token = |ids: &[u32], i: usize| ids.get(i).map(|&id| MetaValue::U32(id));
    let named = [
        ("bos_token_id", token(&bos, 0)),
        ("eos_token_id", token(&eos, 0)),
        ("eot_token_id", token(&eos, eos.len().max(2) - 1)),
        ("eom_token_id", if eos.len() > 2 { token(&eos, 1) } else { None }),
        ("unknown_token_id", unknown(model, &vocab).map(MetaValue::U32)),
    ];
    named.into_iter().filter_map(|(key, value)| Some((key, value?))).for_each(|(key, value)| add(key, value));
    add("add_bos_token", MetaValue::Bool(!bos.is_empty() && begins_with(&json["post_processor"], &bos)));
    add("token_type", MetaValue::I32s(vocab.types));
    add("tokens", MetaValue::Strs(vocab.tokens));
    if let Some(template) = template(origin)? {
        all.push(("tokenizer.chat_template".into(), MetaValue::Str(template)));
    }
    Ok(all)
}

struct Vocab {
    tokens: Vec<String>,
    types: Vec<i32>,
}

impl Vocab {
    /// As many tokens as the embedding has rows: llama.cpp wants the two to agree.
    fn read(json: &Value, rows: usize, bytes_fall_back: bool) -> Result<Self> {
        let wrong = |what: &str| Error::malformed(FILE, what);
        let listed = json["model"]["vocab"].as_object().ok_or_else(|| wrong("expected `model.vocab`"))?;
        let (mut tokens, mut types) = (vec![None; rows], vec![token_type::UNUSED; rows]);
        let mut put = |id: Option<u64>, token: &str, kind: i32| {
            let id = id.and_then(|id| usize::try_from(id).ok()).filter(|&id| id < rows);
            let id =
                id.ok_or_else(|| wrong(&format!("the id of token {token:?} is no row of the embedding")))?;
            tokens[id] = Some(token.to_owned());
            types[id] = kind;
            Ok::<(), Error>(())
        };
        let unknown = json["model"]["unk_token"].as_str();
        for (token, id) in listed {
            let is_byte =
                bytes_fall_back && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
            put(id.as_u64(), token, if is_byte { token_type::BYTE } else { token_type::NORMAL })?;
        }
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let token = added["content"].as_str().unwrap_or_default();
            let kind = match added["special"] == true {
                _ if bytes_fall_back && unknown == Some(token) => token_type::UNKNOWN,
                true => token_type::CONTROL,
                false => token_type::USER_DEFINED,
            };
            put(added["id"].as_u64(), token, kind)?;
        }
        let name = |(id, token): (usize, Option<String>)| token.unwrap_or_else(|| format!("[PAD{id}]"));
        Ok(Self { tokens: tokens.into_iter().enumerate().map(name).collect(), types })
    }

    /// SentencePiece merges the pair whose result has the highest score: so the scores are the ranks, negated.
    fn scores(&self, merges: &[(String, String)]) -> Vec<f32> {
        let mut ranks = std::collections::HashMap::new();
        for (rank, (left, right)) in merges.iter().enumerate() {
            ranks.entry(format!("{left}{right}")).or_insert(rank);
        }
        let last = merges.len();
        self.tokens.iter().map(|token| -(ranks.get(token).copied().unwrap_or(last) as f32)).collect()
    }
}

/// The merges of either dialect: `"a b"` or `["a", "b"]`.
fn merges(model: &Value) -> Result<Vec<(String, String)>> {
    let list = model["merges"].as_array().ok_or_else(|| Error::malformed(FILE, "expected `model.merges`"))?;
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        _ => Some((merge[0].as_str()?.to_owned(), merge[1].as_str()?.to_owned())),
    };
    list.iter()
        .map(|merge| pair(merge).ok_or_else(|| Error::malformed(FILE, format!("{merge} is no merge"))))
        .collect()
}

/// The name that GGUF gives to the steps before the byte-pair encoding.
fn pre_tokenizer(json: &Value) -> Result<&'static str> {
    let pre = &json["pre_tokenizer"];
    let steps: Vec<&Value> = match pre["pretokenizers"].as_array() {
        Some(steps) if pre["type"] == "Sequence" => steps.iter().collect(),
        _ => vec![pre],
    };
    let is_bytes = |step: &Value, regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"] == false
            && step["use_regex"].as_bool().unwrap_or(true) == regex
    };
    let split = |step: &Value| match step["type"] == "Split" && step["behavior"] == "Isolated" {
        true => step["pattern"]["Regex"].as_str().map(str::to_owned),
        false => None,
    };
    let name = match steps[..] {
        [bytes] if is_bytes(bytes, true) => Some("gpt-2"),
        [digits, bytes] if digits["type"] == "Digits" && digits["individual_digits"] == true => {
            is_bytes(bytes, true).then_some("smollm")
        }
        [cut, bytes] if is_bytes(bytes, false) => match split(cut).as_deref() {
            Some(LLAMA3) if json["model"]["ignore_merges"] == true => Some("llama-bpe"),
            Some(LLAMA3) => Some("smaug-bpe"),
            Some(QWEN2) => Some("qwen2"),
            _ => None,
        },
        _ => None,
    };
    name.ok_or_else(|| Error::config("pre_tokenizer", format!("GGUF has no name for {pre}")))
}

fn prepends_space(json: &Value) -> bool {
    let text = json["normalizer"].to_string() + &json["pre_tokenizer"].to_string();
    text.contains("\"Prepend\"") || text.contains("\"always\"") || text.contains("\"first\"")
}

fn unknown(model: &Value, vocab: &Vocab) -> Option<u32> {
    let token = model["unk_token"].as_str()?;
    vocab.tokens.iter().position(|known| known == token).map(|id| id as u32)
}

/// Whether a text gets the first of these tokens before it.
fn begins_with(processor: &Value, ids: &[u32]) -> bool {
    if let Some(steps) = processor["processors"].as_array() {
        return steps.iter().any(|step| begins_with(step, ids));
    }
    let first = &processor["single"][0]["SpecialToken"]["id"];
    let empty = Map::new();
    let tokens = processor["special_tokens"].as_object().unwrap_or(&empty);
    let listed = first.as_str().and_then(|name| tokens.get(name)).map(|token| &token["ids"][0]);
    listed.and_then(Value::as_u64).is_some_and(|id| ids.first().is_some_and(|&bos| u64::from(bos) == id))
}

fn template(origin: &Origin) -> Result<Option<String>> {
    if let Some(text) = origin.read("chat_template.jinja") {
        return Ok(String::from_utf8(text?).ok());
    }
    let Some(text) = origin.read("tokenizer_config.json") else { return Ok(None) };
    let config: Value = serde_json::from_slice(&text?)
        .map_err(|e| Error::malformed("tokenizer_config.json", e.to_string()))?;
    Ok(config["chat_template"].as_str().map(str::to_owned))
}
