"""Makes tokenizers/<case>/: small tokenizers of the published kinds, and how they take awkward texts apart.

`expected.json` comes from the `tokenizers` package reading the tokenizer.json beside it. Where the same
vocabulary exists as `vocab.gguf`, the same ids are expected of that.
"""

import io
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import sentencepiece
from gguf import TokenType
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from awkward_texts import CORPUS, SPECIALS, TEXTS

ROOT = Path(__file__).parent / "tokenizers"
BYTE_LEVEL_SIZE = 400
SENTENCEPIECE_SIZE = 480
# A whole word of the vocabulary that no merges lead to: found only where merges may be ignored.
UNMERGEABLE = "Ġunmergeable"

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass
class Case:
    name: str
    bos: str
    eos: str
    add_bos: bool
    specials: list[str]
    pre: str | None = None  # llama.cpp's name of the pre-tokenizer, for byte-level kinds
    user_defined: list[str] = field(default_factory=list)  # added tokens that are not special
    string_merges: bool = False  # tokenizer.json as written before merges became pairs
    pattern: str | None = None
    normalizer: normalizers.Normalizer | None = None
    ignore_merges: bool = False
    metaspace: bool = False


BYTE_LEVEL_CASES = [
    Case(
        "llama3",
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        add_bos=True,
        specials=["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        pre="llama-bpe",
        pattern=LLAMA3_PATTERN,
        ignore_merges=True,
    ),
    Case(
        "qwen2",
        bos="<|endoftext|>",
        eos="<|im_end|>",
        add_bos=False,
        specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        pre="qwen2",
        user_defined=["<tool_call>"],
        pattern=QWEN2_PATTERN,
        normalizer=normalizers.NFC(),
    ),
    Case(
        "smollm2",
        bos="<|im_start|>",
        eos="<|im_end|>",
        add_bos=False,
        specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        pre="smollm",
        string_merges=True,
    ),
]
LLAMA2 = dict(bos="<s>", eos="</s>", add_bos=True, specials=["<unk>", "<s>", "</s>"])
SENTENCEPIECE_CASES = [Case("llama2", **LLAMA2), Case("llama2-metaspace", **LLAMA2, metaspace=True)]


def byte_level_pre_tokenizer(case: Case) -> pre_tokenizers.PreTokenizer:
    if case.pattern is None:
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        split = pre_tokenizers.Split(Regex(case.pattern), behavior="isolated")
        parts = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return pre_tokenizers.Sequence(parts)


def train_byte_level(case: Case) -> Tokenizer:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = byte_level_pre_tokenizer(case)
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_LEVEL_SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    learner.train_from_iterator([CORPUS], trainer)
    learned = json.loads(learner.to_str())["model"]
    vocab, merges = learned["vocab"], [tuple(pair) for pair in learned["merges"]]
    vocab[UNMERGEABLE] = len(vocab)

    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=case.ignore_merges))
    tokenizer.normalizer = case.normalizer
    tokenizer.pre_tokenizer = byte_level_pre_tokenizer(case)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_sentencepiece() -> sentencepiece.SentencePieceProcessor:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines()),
        model_writer=written,
        model_type="bpe",
        vocab_size=SENTENCEPIECE_SIZE,
        character_coverage=0.99,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def pieces_of(processor: sentencepiece.SentencePieceProcessor) -> list:
    return list(sentencepiece_model_pb2.ModelProto.FromString(processor.serialized_model_proto()).pieces)


def merges_of(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair that makes a piece, the likeliest piece first: ids of a BPE model are in that order."""
    merges = []
    for piece in vocab:
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [(left, right) for left, right in splits if left in vocab and right in vocab]
        merges += sorted(known, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return merges


def from_sentencepiece(case: Case, processor: sentencepiece.SentencePieceProcessor) -> Tokenizer:
    normal = sentencepiece_model_pb2.ModelProto.SentencePiece.NORMAL
    pieces = pieces_of(processor)
    vocab = {piece.piece: i for i, piece in enumerate(pieces)}
    merges = merges_of({piece.piece: i for i, piece in enumerate(pieces) if piece.type == normal})
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if case.metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return tokenizer


def finish(case: Case, tokenizer: Tokenizer) -> None:
    """Adds the special tokens, and the beginning of sequence where the kind has one."""
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in case.specials])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in case.user_defined])
    if case.add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{case.bos} $A", pair=f"{case.bos} $A {case.bos}:1 $B:1",
            special_tokens=[(case.bos, tokenizer.token_to_id(case.bos))],
        )  # fmt: skip


def write_hf(case: Case, tokenizer: Tokenizer, folder: Path) -> None:
    definition = json.loads(tokenizer.to_str())
    if case.string_merges:
        definition["model"]["merges"] = [" ".join(pair) for pair in definition["model"]["merges"]]
    config = {
        "add_bos_token": case.add_bos,
        "add_eos_token": False,
        "bos_token": case.bos,
        "eos_token": case.eos,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast" if case.pre else "LlamaTokenizer",
    }
    (folder / "tokenizer.json").write_text(json.dumps(definition, ensure_ascii=False) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_gguf(case: Case, tokenizer: Tokenizer, processor, folder: Path) -> None:
    writer = gguf.GGUFWriter(folder / "vocab.gguf", "llama")
    size = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(i) for i in range(size)]
    if case.pre is None:
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([piece.score for piece in pieces_of(processor)])
        writer.add_unk_token_id(0)
        kinds = [TokenType(piece.type) for piece in pieces_of(processor)]  # the same numbers mean the same
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(case.pre)
        writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
        special = {token: TokenType.CONTROL for token in case.specials}
        special |= {token: TokenType.USER_DEFINED for token in case.user_defined}
        kinds = [special.get(token, TokenType.NORMAL) for token in tokens]
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokenizer.token_to_id(case.bos))
    writer.add_eos_token_id(tokenizer.token_to_id(case.eos))
    writer.add_add_bos_token(case.add_bos)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def expect(tokenizer: Tokenizer, text: str) -> dict:
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    return {
        "text": text,
        "ids": tokenizer.encode(text).ids,
        "ids_plain": plain,
        "decoded": tokenizer.decode(plain, skip_special_tokens=False),
        "decoded_without_specials": tokenizer.decode(plain, skip_special_tokens=True),
    }


def make(case: Case, processor: sentencepiece.SentencePieceProcessor) -> None:
    folder = ROOT / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = train_byte_level(case) if case.pre else from_sentencepiece(case, processor)
    finish(case, tokenizer)
    write_hf(case, tokenizer, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = [expect(tokenizer, text) for text in TEXTS]
    if not case.metaspace:  # which adds no space before a first space, unlike sentencepiece
        write_gguf(case, tokenizer, processor, folder)
    if case.name == "llama2":
        plain = [entry for entry in expected if not any(token in entry["text"] for token in SPECIALS)]
        assert all(processor.encode(entry["text"]) == entry["ids_plain"] for entry in plain)
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in expected)
    (folder / "expected.json").write_text(f"[\n{lines}\n]\n")
    print(f"{case.name}: {tokenizer.get_vocab_size()} tokens, {len(expected)} texts")


if __name__ == "__main__":
    processor = train_sentencepiece()
    for case in [*BYTE_LEVEL_CASES, *SENTENCEPIECE_CASES]:
        make(case, processor)
