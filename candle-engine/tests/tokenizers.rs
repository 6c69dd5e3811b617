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
