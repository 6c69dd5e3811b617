//! Heads of the cross-attention that follow the words in time, for checkpoints that do not say.

use super::WhisperConfig;

/// A published model: decoder layers, heads, whether it knows many languages, mel bins; and its heads.
type Row = (usize, usize, bool, usize, &'static [(usize, usize)]);

/// Source: `_ALIGNMENT_HEADS` of openai-whisper. Of large-v1 and v2, which look alike, the second.
#[rustfmt::skip]
const KNOWN: &[Row] = &[
    // tiny.en
    (4, 6, false, 80, &[
        (1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4),
    ]),
    // tiny
    (4, 6, true, 80, &[
        (2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5),
    ]),
    // base.en
    (6, 8, false, 80, &[
        (3, 3), (4, 7), (5, 1), (5, 5), (5, 7),
    ]),
    // base
    (6, 8, true, 80, &[
        (3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6),
    ]),
    // small.en
    (12, 12, false, 80, &[
        (6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8),
        (9, 10), (10, 0), (10, 1), (10, 2), (10, 3), (10, 6), (10, 11), (11, 2), (11, 4),
    ]),
    // small
    (12, 12, true, 80, &[
        (5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5),
    ]),
    // medium.en
    (24, 16, false, 80, &[
        (11, 4), (14, 1), (14, 12), (14, 14), (15, 4), (16, 0), (16, 4), (16, 9), (17, 12), (17, 14),
        (18, 7), (18, 10), (18, 15), (20, 0), (20, 3), (20, 9), (20, 14), (21, 12),
    ]),
    // medium
    (24, 16, true, 80, &[
        (13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4),
    ]),
    // large-v2
    (32, 20, true, 80, &[
        (10, 12), (13, 17), (16, 11), (16, 12), (16, 13), (17, 15), (17, 16), (18, 4), (18, 11), (18, 19),
        (19, 11), (21, 2), (21, 3), (22, 3), (22, 9), (22, 12), (23, 5), (23, 7), (23, 13), (25, 5),
        (26, 1), (26, 12), (27, 15),
    ]),
    // large-v3
    (32, 20, true, 128, &[
        (7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6),
    ]),
    // large-v3-turbo
    (4, 20, true, 128, &[
        (2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14),
    ]),
];

/// The smallest vocabulary of a published model of many languages.
pub(super) const MULTILINGUAL_VOCAB: usize = 51_865;

/// The heads of the published model of this shape; for any other all heads of the upper half of the layers, as the
/// reference does.
pub(super) fn known_heads(config: &WhisperConfig) -> Vec<(usize, usize)> {
    let (layers, heads) = (config.decoder.layers, config.decoder.heads);
    let multilingual = config.vocab >= MULTILINGUAL_VOCAB;
    let shape = (layers, heads, multilingual, config.mels);
    match KNOWN.iter().find(|&&(layers, heads, many, mels, _)| (layers, heads, many, mels) == shape) {
        Some((.., known)) => known.to_vec(),
        None => (layers / 2..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::StackDims;
    use super::*;
    use crate::blocks::Act;

    #[test]
    fn shapes_are_recognized() {
        let stack = |layers, heads| StackDims { layers, heads, ffn: 4, positions: 1500 };
        let config = |layers, heads, vocab, mels| WhisperConfig {
            hidden: 64 * heads,
            mels,
            vocab,
            act: Act::Gelu,
            encoder: stack(layers, heads),
            decoder: stack(layers, heads),
        };
        assert_eq!(known_heads(&config(4, 6, 51_865, 80))[0], (2, 2));
        assert_eq!(known_heads(&config(4, 6, 51_864, 80))[0], (1, 0));
        assert_eq!(known_heads(&config(32, 20, 51_866, 128)).len(), 10);
        assert_eq!(known_heads(&config(3, 2, 520, 80)), [(1, 0), (1, 1), (2, 0), (2, 1)]);
        for &(layers, heads, .., known) in KNOWN {
            assert!(known.iter().all(|&(layer, head)| layer < layers && head < heads));
        }
    }
}
