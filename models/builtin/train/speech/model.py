"""The listener: transformers' own Whisper, small."""

from transformers import WhisperConfig, WhisperForConditionalGeneration

from make_tokenizer import END, START
from sound import BANDS, FRAMES


def model(tokenizer):
    end = tokenizer.token_to_id(END)
    return WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(), num_mel_bins=BANDS, d_model=128, encoder_layers=3, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=384, decoder_ffn_dim=384,
        max_source_positions=FRAMES // 2, max_target_positions=128, decoder_start_token_id=tokenizer.token_to_id(START),
        bos_token_id=end, eos_token_id=end, pad_token_id=end, begin_suppress_tokens=None))


def set_window(whisper, frames):
    """Make the encoder take windows of so many frames, at most those it was made for: its positions are sines, in any number."""
    whisper.config.max_source_positions = frames // 2
    whisper.model.encoder.embed_positions.num_embeddings = frames // 2
