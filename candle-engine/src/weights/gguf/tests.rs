use super::*;
use crate::weights::Weights;

const U8: u32 = 0;
const I8: u32 = 1;
const U16: u32 = 2;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STR: u32 = 8;
const ARRAY: u32 = 9;
const U64: u32 = 10;

/// Writes what it is told, right or wrong.
#[derive(Clone)]
struct File {
    magic: [u8; 4],
    version: u32,
    counts: Option<(u64, u64)>,
    entries: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    alignment: usize,
    data: usize,
}

impl File {
    fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            counts: None,
            entries: vec![],
            infos: vec![],
            alignment: 32,
            data: 0,
        }
    }

    fn key(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push([&str(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    fn array(self, key: &str, kind: u32, len: u64, values: &[u8]) -> Self {
        let value = [&kind.to_le_bytes()[..], &len.to_le_bytes(), values].concat();
        self.key(key, ARRAY, &value)
    }

    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let mut info = str(name);
        info.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| info.extend(d.to_le_bytes()));
        info.extend(kind.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.infos.push(info);
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let (tensors, entries) = self.counts.unwrap_or((self.infos.len() as u64, self.entries.len() as u64));
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(tensors.to_le_bytes());
        out.extend(entries.to_le_bytes());
        out.extend(self.entries.concat());
        out.extend(self.infos.concat());
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.resize(out.len() + self.data, 7);
        out
    }

    fn open(&self) -> Result<Gguf> {
        Gguf::from_bytes("m.gguf", self.bytes().into())
    }

    fn error(&self) -> String {
        self.open().expect_err("must be refused").to_string()
    }
}

fn str(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn sample() -> File {
    File::new()
        .key("general.architecture", STR, &str("llama"))
        .key("n", U32, &7u32.to_le_bytes())
        .key("negative", I32, &(-7i32).to_le_bytes())
        .key("eps", F32, &1e-5f32.to_le_bytes())
        .key("yes", BOOL, &[1])
        .array("tokens", STR, 3, &[str("a"), str(""), str("▁é")].concat())
        .array("scores", F32, 2, &[0f32.to_le_bytes(), (-1.5f32).to_le_bytes()].concat())
        .array("types", I8, 2, &[1, 255])
        .array("flags", BOOL, 2, &[1, 0])
        .array("nested", ARRAY, 1, &[&U8.to_le_bytes()[..], &2u64.to_le_bytes(), &[5, 6]].concat())
        .tensor("b", &[32, 2], 8, 32)
        .tensor("a", &[3], 0, 0)
        .data(32 + 68)
}

#[test]
fn values_and_tensors_are_what_the_header_says() {
    let all = sample().open().unwrap();
    let meta = all.metadata();
    assert_eq!(meta.keys().len(), 10);
    assert_eq!(meta.str("general.architecture"), Some("llama"));
    assert_eq!((meta.u64("n"), meta.f64("n"), meta.u64("negative")), (Some(7), Some(7.0), None));
    assert_eq!(
        (meta.f64("eps"), meta.bool("yes"), meta.bool("n")),
        (Some(f64::from(1e-5f32)), Some(true), None)
    );
    assert_eq!(meta.strings("tokens"), Some(vec!["a", "", "▁é"]));
    assert_eq!(meta.f32s("scores"), Some(vec![0.0, -1.5]));
    assert_eq!(meta.ints("types"), Some(vec![1, -1]));
    assert_eq!(meta.ints("flags"), Some(vec![1, 0]));
    assert_eq!(meta.strings("scores"), None);
    assert_eq!(meta.get("nested").unwrap().to_string(), "1 × array");
    assert_eq!(meta.get("missing"), None);

    assert_eq!(all.names(), ["a", "b"]);
    let b = all.get("b").unwrap();
    assert_eq!((b.shape.as_slice(), b.format, b.bytes.len()), (&[2, 32][..], Format::Q8_0, 68));
    assert_eq!(all.get("a").unwrap().bytes.len(), 12);
    assert!(matches!(all.get("c"), Err(Error::MissingTensor { .. })));
}

#[test]
fn version_2_and_another_alignment_are_read() {
    let mut file = sample().key("general.alignment", U32, &64u32.to_le_bytes());
    (file.version, file.alignment) = (2, 64);
    assert!(file.error().contains("tensor `b`: offset 32 is no multiple of the alignment 64"));
    file.infos.remove(0);
    assert_eq!(file.open().unwrap().names(), ["a"]);
}

#[test]
fn what_is_wrong_with_the_preamble_is_named() {
    let with = |change: fn(&mut File)| {
        let mut file = File::new();
        file.alignment = 1; // no padding to misread
        change(&mut file);
        file.error()
    };
    assert_eq!(with(|f| f.magic = *b"GGML"), "m.gguf: expected the magic `GGUF`, got `GGML`");
    assert!(with(|f| f.version = 1).contains("expected GGUF version 2 or 3, got 1"));
    assert!(with(|f| f.version = 4).contains("got 4"));
    assert!(with(|f| f.version = 3u32.swap_bytes()).contains("big-endian file (version 3)"));
    assert!(with(|f| f.counts = Some((0, 1 << 60))).contains("metadata 1 of 1152921504606846976: truncated"));
    assert!(with(|f| f.counts = Some((1 << 60, 0))).contains("tensor 1 of 1152921504606846976: truncated"));
    for bytes in [&b""[..], b"GG", b"GGUF\x03\0"] {
        let error = Gguf::from_bytes("m.gguf", bytes.to_vec().into()).unwrap_err().to_string();
        assert!(error.contains("truncated"), "{error}");
    }
}

#[test]
fn what_is_wrong_with_the_metadata_is_named() {
    let key = |kind, value: &[u8]| File::new().key("k", kind, value).error();
    assert_eq!(key(13, &[]), "m.gguf: key `k`: unknown value type 13");
    assert!(key(BOOL, &[2]).contains("key `k`: expected a bool of 0 or 1, got 2"));
    assert!(key(STR, &u64::MAX.to_le_bytes())
        .contains("key `k`: truncated: the string needs 18446744073709551615"));
    assert!(key(STR, &[&1u64.to_le_bytes()[..], &[0xff]].concat()).contains("the string is not UTF-8"));
    let array = |kind, len, values: &[u8]| File::new().array("k", kind, len, values).error();
    assert!(array(U64, 1 << 61, &[]).contains("key `k`: an array of 2305843009213693952 u64 overflows"));
    assert!(array(U64, 1 << 40, &[]).contains("key `k`: truncated: the array needs 8796093022208 bytes"));
    assert!(array(STR, 2, &str("a")).contains("key `k`: element 1 of 2: truncated"));
    assert!(array(77, 2, &[]).contains("unknown value type 77"));
    let deep = [&ARRAY.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(9);
    assert!(array(ARRAY, 1, &deep).contains("nested more than 4 deep"));
    let twice = File::new().key("k", BOOL, &[1]).key("k", BOOL, &[1]);
    assert!(twice.error().contains("key `k`: appears twice"));
    for (kind, value) in [(U32, vec![0; 4]), (U32, vec![24, 0, 0, 0]), (BOOL, vec![1]), (I32, vec![0xff; 4])]
    {
        let error = File::new().key("general.alignment", kind, &value).error();
        assert!(error.contains("key `general.alignment`: expected a power of two, got "), "{error}");
    }
}

#[test]
fn what_is_wrong_with_a_tensor_is_named() {
    let tensor = |dims: &[u64], kind, offset| File::new().tensor("w", dims, kind, offset).data(64).error();
    assert_eq!(
        tensor(&[32], 0, 0),
        "m.gguf: tensor `w`: truncated: its 128 bytes lie at 0 of the data, the file holds 64 bytes of data"
    );
    assert!(tensor(&[4], 0, 1 << 63).contains("truncated"));
    assert!(tensor(&[4], 0, 3).contains("offset 3 is no multiple of the alignment 32"));
    assert!(tensor(&[4], 99, 0).contains("tensor `w`: unknown type 99"));
    assert!(tensor(&[4], 23, 0).contains("tensor `w`: type 23 (IQ4_XS) is not supported"));
    assert!(tensor(&[1, 1, 1, 1, 1], 0, 0).contains("`w`: expected at most 4 dimensions, got 5"));
    assert!(tensor(&[40, 2], 8, 0).contains("rows of 40 numbers are no multiple of Q8_0's block of 32"));
    assert!(tensor(&[4, 0], 0, 0).contains("dimensions [4, 0] hold nothing"));
    assert!(tensor(&[u64::MAX, 2], 0, 0).contains("overflow"));
    assert!(tensor(&[1 << 32, 1 << 31], 0, 0).contains("overflow"));
    let twice = File::new().tensor("w", &[4], 0, 0).tensor("w", &[4], 0, 32).data(64);
    assert!(twice.error().contains("tensor `w`: appears twice"));
    let overlap = File::new().tensor("w", &[9], 0, 0).tensor("v", &[4], 0, 32).data(64);
    assert!(overlap.error().contains("tensors `w` and `v` overlap"));
    assert!(File::new().tensor("\u{0}", &[40], 0, 0).error().contains("truncated"));
}

#[test]
fn a_small_alignment_still_gives_aligned_numbers() {
    let mut file = File::new().key("general.alignment", U8, &[1]).tensor("w", &[4], 0, 1).data(17);
    file.alignment = 1;
    for pad in 0..4 {
        file.entries.truncate(1);
        file = file.key(&"p".repeat(pad + 1), BOOL, &[1]);
        let w = file.open().unwrap().get("w").unwrap();
        assert_eq!((w.bytes.as_ptr().addr() % 4, w.bytes.len()), (0, 16));
    }
}

#[test]
fn shards_are_one_checkpoint() {
    let dir = std::env::temp_dir().join(format!("candle-engine-gguf-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let shard = |no: u16, count: u16, tensor: &str| {
        File::new()
            .key("split.no", U16, &no.to_le_bytes())
            .key("split.count", U16, &count.to_le_bytes())
            .key("split.tensors.count", I32, &2i32.to_le_bytes())
            .tensor(tensor, &[4], 0, 0)
            .data(16)
            .bytes()
    };
    let path = |no: u64| dir.join(format!("m-0000{no}-of-00002.gguf"));
    let write = |no: u64, bytes: Vec<u8>| std::fs::write(path(no), bytes).unwrap();
    let error = |no: u64| Gguf::open(&path(no)).unwrap_err().to_string();
    write(1, shard(0, 2, "a"));
    assert!(error(1).contains("m-00002-of-00002.gguf: shard 2 of 2 is missing"));
    write(2, shard(1, 2, "b"));
    assert_eq!(Gguf::open(&path(1)).unwrap().names(), ["a", "b"]);
    assert!(error(2).contains("this is shard 2 of 2, open the first"));
    write(2, shard(1, 2, "a"));
    assert!(error(1).contains("tensor `a` is in an earlier shard too"));
    write(2, shard(1, 3, "b"));
    assert!(error(1).contains("expected `split.no` 1 and `split.count` 2, got 1 and 3"));
    let renamed = dir.join("m.gguf");
    std::fs::copy(path(1), &renamed).unwrap();
    assert!(Gguf::open(&renamed).unwrap_err().to_string().contains("should end in `-00001-of-00002.gguf`"));
    assert!(Gguf::from_bytes("m", shard(0, 2, "a").into())
        .unwrap_err()
        .to_string()
        .contains("one of 2 shards"));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Whatever the bytes: a checkpoint or an error, and every tensor of it inside the file.
#[test]
fn damaged_files_never_panic() {
    let good = sample().bytes();
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for cut in 0..good.len() {
        let _ = Gguf::from_bytes("m", good[..cut].to_vec().into());
    }
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random(4) {
            let at = random(bytes.len());
            bytes[at] = match random(4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[at] ^ (1 << random(8)),
                _ => random(256) as u8,
            };
        }
        bytes.truncate(if random(4) == 0 { random(bytes.len()) } else { bytes.len() });
        if let Ok(all) = Gguf::from_bytes("m", bytes.into()) {
            for key in all.metadata().keys() {
                let meta = all.metadata();
                let _ = (meta.strings(key), meta.f32s(key), meta.ints(key), meta.u64(key), meta.str(key));
            }
            for stored in all.tensors() {
                assert_eq!(Some(stored.bytes.len()), stored.format.bytes(&stored.shape));
            }
        }
    }
}
