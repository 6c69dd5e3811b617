//! Tokenizers against the `tokenizers` package, on the texts of `tests/reference/tokenizers`.

use std::path::{Path, PathBuf};

use candle_engine::text::Tokenizer;
use candle_engine::weights::gguf::Gguf;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    text: String,
    ids: Vec<u32>,
    ids_plain: Vec<u32>,
    decoded: String,
    decoded_without_specials: String,
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tokenizers");
    let mut cases: Vec<_> = root.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 5);
    cases
}

fn expected(case: &Path) -> Vec<Expected> {
    serde_json::from_slice(&std::fs::read(case.join("expected.json")).unwrap()).unwrap()
}

/// What the stream gives out, one token at a time.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: bool) -> String {
    let mut stream = tokenizer.stream();
    if special {
        stream = stream.with_special();
    }
    let mut text: String = ids.iter().filter_map(|id| stream.push(*id).unwrap()).collect();
    text.push_str(&stream.flush());
    text
}

fn check(tokenizer: &Tokenizer, case: &Path) {
    for Expected { text, ids, ids_plain, decoded, decoded_without_specials } in expected(case) {
        let at = format!("{} on {text:?}", case.display());
        assert_eq!(tokenizer.encode(&text, false).unwrap(), ids_plain, "{at}");
        assert_eq!(tokenizer.encode(&text, true).unwrap(), ids, "{at}");
        assert_eq!(tokenizer.decode(&ids_plain, false).unwrap(), decoded, "{at}");
        assert_eq!(tokenizer.decode(&ids_plain, true).unwrap(), decoded_without_specials, "{at}");
        assert_eq!(streamed(tokenizer, &ids_plain, true), decoded, "{at}");
        assert_eq!(streamed(tokenizer, &ids_plain, false), decoded_without_specials, "{at}");
    }
}

#[test]
fn tokenizer_json_agrees() {
    for case in cases() {
        check(&Tokenizer::from_file(&case.join("tokenizer.json")).unwrap(), &case);
    }
}

#[test]
fn gguf_agrees() {
    for case in cases() {
        let file = case.join("vocab.gguf");
        if !file.exists() {
            continue; // a metaspace pre-tokenizer has no counterpart there
        }
        let gguf = Gguf::open(&file).unwrap();
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        assert!(tokenizer.bos().is_some() && tokenizer.eos().is_some());
        check(&tokenizer, &case);
    }
}

/// Numbers that look random and are the same in every run (xorshift*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    /// A text over all planes, with what tokenizers care about more often than chance would have it.
    fn text(&mut self, salt: &[&str]) -> String {
        let mut text = String::new();
        for _ in 0..self.below(40) {
            match self.below(8) {
                0 => text.push_str(salt[self.below(salt.len())]),
                1 => text.extend(char::from_u32(self.below(0x11_0000) as u32)),
                2 => text.extend(char::from_u32(self.below(0x3000) as u32)),
                3 => text.extend((0..self.below(4)).map(|_| ' ')),
                4 => text.push([' ', '\n', '\r', '\t', '\'', '\u{a0}', '\u{301}', '▁'][self.below(8)]),
                _ => text.extend((0..self.below(6)).map(|_| char::from(b'!' + self.below(94) as u8))),
            }
        }
        text
    }
}

const SALT: &[&str] = &[
    "the",
    " the",
    "lighthouse",
    "'s",
    "'LL",
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>",
    "<|eot_id|>",
    "<tool_call>",
    "<|begin_of_text|>",
    "unmergeable",
    "<0x41>",
    "12345",
    "  \n\n ",
    "e\u{301}",
    "한국",
    "Ġ",
    "<a",
    "<a>",
    " <b> ",
    "<c>",
];

/// Compares with the `tokenizers` crate reading the same file.
fn same_as_reference(json: &str, random: &mut Random, rounds: usize) {
    let ours = Tokenizer::from_bytes(json.as_bytes()).unwrap();
    let reference = tokenizers::Tokenizer::from_bytes(json).unwrap();
    let mut plain = reference.clone();
    plain.set_encode_special_tokens(true);
    for round in 0..rounds {
        let text = random.text(SALT);
        let at =
            format!("round {round}, {text:?} with {}", json.split("\"model\"").next().unwrap_or_default());
        let expected = reference.encode(text.as_str(), true).unwrap();
        assert_eq!(ours.encode(&text, true).unwrap(), expected.get_ids(), "{at}");
        assert_eq!(
            ours.encode_plain(&text).unwrap(),
            plain.encode(text.as_str(), false).unwrap().get_ids(),
            "{at}"
        );
        let mut ids = expected.get_ids().to_vec();
        for special in [true, false] {
            assert_eq!(
                ours.decode(&ids, !special).unwrap(),
                reference.decode(&ids, !special).unwrap(),
                "{at}"
            );
            assert_eq!(streamed(&ours, &ids, special), reference.decode(&ids, !special).unwrap(), "{at}");
        }
        // Tokens as no text has them: half characters, ids that there are not.
        ids.iter_mut().for_each(|id| *id = random.below(ours.vocab_size() + 3) as u32);
        assert_eq!(ours.decode(&ids, false).unwrap(), reference.decode(&ids, false).unwrap(), "{at} {ids:?}");
    }
}

#[test]
fn random_texts_agree() {
    let mut random = Random(0x7e57);
    for case in cases() {
        let json = std::fs::read_to_string(case.join("tokenizer.json")).unwrap();
        same_as_reference(&json, &mut random, 3000);
        let ours = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        let reference = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        for id in 0..ours.vocab_size() as u32 + 3 {
            assert_eq!(ours.token(id), reference.id_to_token(id));
            assert_eq!(ours.token(id).and_then(|token| ours.id(&token)), ours.token(id).map(|_| id));
        }
    }
}

/// Every option that a file can set, in turn.
#[test]
fn options_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tokenizers");
    let read = |case: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(root.join(case).join("tokenizer.json")).unwrap()).unwrap()
    };
    let mut random = Random(0x0971);
    let mut check = |json: &serde_json::Value| same_as_reference(&json.to_string(), &mut random, 300);

    for base in ["llama2", "llama3"] {
        for flags in 0..32u32 {
            let mut json = read(base);
            let flag = |bit: u32| flags >> bit & 1 == 1;
            for (i, content) in ["<a", "<a>", "<b>", "<c>", "light"].into_iter().enumerate() {
                json["added_tokens"].as_array_mut().unwrap().push(serde_json::json!({
                    "id": 9000 + i, "content": content, "single_word": flag(0), "lstrip": flag(1), "rstrip": flag(2),
                    // Both at once: there the crate forgets to leave the token out, we do not.
                    "normalized": flag(3) && content != "<b>", "special": flag(4) && !flag(3)
                }));
            }
            check(&json);
        }
    }
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] {
        for invert in [false, true] {
            for pattern in [r#"{"Regex":"\\s+|[0-9]"}"#, r#"{"Regex":"\\d*"}"#, r#"{"String":"e"}"#] {
                let mut json = read("smollm2");
                let split = serde_json::json!({
                    "type": "Split", "pattern": serde_json::from_str::<serde_json::Value>(pattern).unwrap(),
                    "behavior": behavior, "invert": invert
                });
                json["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap().insert(0, split);
                check(&json);
            }
        }
    }
    for part in [
        serde_json::json!({"type": "Digits", "individual_digits": false}),
        serde_json::json!({"type": "WhitespaceSplit"}),
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false}),
    ] {
        let mut json = read("smollm2");
        json["pre_tokenizer"] = part;
        check(&json);
    }
    for scheme in ["first", "always", "never"] {
        for split in [true, false] {
            let mut json = read("llama2-metaspace");
            json["pre_tokenizer"] = serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
            check(&json);
            json["decoder"] = json["pre_tokenizer"].clone();
            check(&json);
        }
    }
    for form in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "ByteLevel"] {
        let mut json = read("qwen2");
        json["normalizer"] = serde_json::json!({"type": form});
        if form == "ByteLevel" {
            json["pre_tokenizer"] = serde_json::Value::Null;
        }
        check(&json);
    }
    for (key, value) in [
        ("fuse_unk", serde_json::json!(false)),
        ("byte_fallback", serde_json::json!(false)),
        ("unk_token", serde_json::Value::Null),
        ("ignore_merges", serde_json::json!(true)),
        ("end_of_word_suffix", serde_json::json!("s")),
        ("continuing_subword_prefix", serde_json::json!("")),
    ] {
        let mut json = read("llama2");
        json["model"][key] = value;
        check(&json);
        json["model"]["byte_fallback"] = false.into();
        check(&json);
        json["decoder"] = serde_json::Value::Null;
        check(&json);
    }
}

/// Kinds of model that are not read here but by the crate.
#[test]
fn other_kinds_work() {
    let json = serde_json::json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [{"id": 1, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"[UNK]": 0, "[SEP]": 1, "[CLS]": 2, "light": 3, "##house": 4, "the": 5, ",": 6, "##s": 7}}
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
    let ids = tokenizer.encode("The lighthouses, the [SEP] light", true).unwrap();
    assert_eq!(ids, [2, 5, 3, 4, 7, 6, 5, 1, 3, 1]);
    assert_eq!(tokenizer.encode_plain("[SEP] the").unwrap(), [0, 0, 0, 5]);
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.id("##s"), tokenizer.token(4)),
        (8, Some(7), Some("##house".into()))
    );
    let many = ids.repeat(20);
    for special in [true, false] {
        assert_eq!(streamed(&tokenizer, &many, special), tokenizer.decode(&many, !special).unwrap());
    }
    let mut refused = json;
    refused["normalizer"] = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
    let error = Tokenizer::from_bytes(refused.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("`Precompiled` is not supported"), "{error}");
}

#[test]
fn damaged_files_are_errors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tokenizers");
    let json = std::fs::read(root.join("llama3/tokenizer.json")).unwrap();
    for end in (0..json.len() - 2).step_by(61) {
        assert!(Tokenizer::from_bytes(&json[..end]).is_err(), "cut at {end}");
    }
    let model = |vocab: &str, merges: &str| {
        let json = format!(r#"{{"model":{{"type":"BPE","vocab":{vocab},"merges":{merges}}}}}"#);
        Tokenizer::from_bytes(json.as_bytes()).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(model(r#"{"a":0,"b":1,"ab":7}"#, r#"["a b"]"#), Ok(()));
    assert_eq!(model("{}", "[]"), Ok(()));
    for (vocab, merges, what) in [
        (r#"{"a":0,"b":0}"#, "[]", r#"id 0 is given to "a" and to "b""#),
        (r#"{"a":0,"a":1}"#, "[]", r#"token "a" has two ids, 0 and 1"#),
        (r#"{"a":4294967295}"#, "[]", r#"token "a" has id 4294967295 in a vocabulary of 1 tokens"#),
        (r#"{"a":-1}"#, "[]", "invalid value: integer `-1`, expected u32"),
        (r#"{"a":1e3}"#, "[]", "expected u32"),
        (r#"{"a":0,"b":1}"#, r#"["a b"]"#, r#""ab" is not in the vocabulary"#),
        (r#"{"a":0,"b":1}"#, r#"[["a","c"]]"#, r#"merge 0 ("a" and "c"): "ac" is not in the vocabulary"#),
        (r#"{"a":0,"b":1}"#, r#"["ab"]"#, "expected a merge"),
        (r#"{"a":0,"b":1}"#, r#"["a b c"]"#, "expected a merge"),
        (r#"{"a":0,"b":1}"#, r#"[["a"]]"#, "expected a merge"),
        (r#"{"a":0,"b":1}"#, r#"[["a","b","c"]]"#, "expected a merge"),
        (r#"{"a":0,"b":1}"#, r#"[7]"#, "expected a merge"),
    ] {
        let error = model(vocab, merges).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    let part = |part: &str| {
        let json = format!(r#"{{"model":{{"type":"BPE","vocab":{{"a":0}},"merges":[]}},{part}}}"#);
        Tokenizer::from_bytes(json.as_bytes()).unwrap_err().to_string()
    };
    for (json, what) in [
        (r#""normalizer":{"type":"NoSuch"}"#, "`normalizer`: unknown variant `NoSuch`"),
        (r#""normalizer":7"#, "`normalizer`"),
        (
            r#""pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated","invert":false}"#,
            "pattern",
        ),
        (r#""decoder":{"type":"Strip","content":"too long","start":0,"stop":0}"#, "`decoder`"),
        (
            r#""post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
            {"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}}"#,
            r#"template: `special_tokens` lacks "<s>""#,
        ),
        (
            r#""post_processor":{"type":"BertProcessing","sep":["a",5],"cls":["a",0]}"#,
            "template: id 5 in a vocabulary of 1 ids",
        ),
    ] {
        let error = part(json);
        assert!(error.contains(what), "{error}");
    }
}

/// Whatever happens to a file's bytes, reading it ends in a tokenizer or in an error.
#[test]
fn mutated_files_never_panic() {
    const BYTES: &[u8] = b"0123456789-e\"{}[],:nultrafse <>\\\x80";
    let mut random = Random(0xf022);
    for case in cases() {
        let json = std::fs::read(case.join("tokenizer.json")).unwrap();
        // The small parts, where a byte changes most, stand at both ends of the file.
        let near = |at: usize| if at.is_multiple_of(2) { at % 1500 } else { json.len() - 1 - at % 1500 };
        for _ in 0..400 {
            let mut json = json.clone();
            for _ in 0..1 + random.below(3) {
                let at =
                    if random.below(4) == 0 { random.below(json.len()) } else { near(random.below(1 << 20)) };
                json[at] = BYTES[random.below(BYTES.len())];
            }
            let Ok(tokenizer) = Tokenizer::from_bytes(&json) else { continue };
            let Ok(ids) = tokenizer.encode("The <s> keeper's light, 1987.\n e\u{301}\u{1f980}", true) else {
                continue;
            };
            let _ = tokenizer.decode(&ids, false);
            streamed(&tokenizer, &[0, 1, 2, 3, 300, 4000, u32::MAX], true);
        }
    }
}

/// Neither a long word nor a long run of spaces takes more than its share of time.
#[test]
fn long_texts_end() {
    for case in cases() {
        let tokenizer = Tokenizer::from_file(&case.join("tokenizer.json")).unwrap();
        for unit in ["a", " ", "\u{1f980}", "ab \n", "1", "!\r"] {
            let text = format!("x{}", unit.repeat(100_000));
            let ids = tokenizer.encode(&text, false).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
    }
}
