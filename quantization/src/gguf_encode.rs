//! GGUF's simple blocks, written. Source: ggml's `block_q8_0` and `block_q4_0`.

use candle_engine::kernels::matmul::DenseFormat;

use crate::encode::{inverse, max_abs, push_scale, round, stored, Part};
use crate::{int4, int8};

const BLOCK: usize = 32;
const SCALES: DenseFormat = DenseFormat::F16;

/// Appends one row: a scale in f16, then 32 integers of 8 bits.
pub(crate) fn q8_0(row: &[f32], part: &mut Part) {
    for w in row.as_chunks::<BLOCK>().0 {
        let scale = stored(max_abs(w) / 127.0, SCALES);
        push_scale(scale, SCALES, &mut part.quants);
        let from = part.quants.len();
        part.quants.resize(from + BLOCK, 0);
        part.error += int8::quantize(w, scale, &mut part.quants[from..]);
    }
}

/// Appends one row: a scale in f16, then 16 bytes with the first 16 integers in their low halves.
pub(crate) fn q4_0(row: &[f32], importance: &[f32], part: &mut Part) {
    let (blocks, importance) = (row.as_chunks::<BLOCK>().0, importance.as_chunks::<BLOCK>().0);
    for (w, h) in blocks.iter().zip(importance) {
        let scale = int4::search(w, h, SCALES);
        push_scale(scale, SCALES, &mut part.quants);
        let inverse = inverse(scale);
        let quants = w.map(|w| {
            let (q, number) = round(w * inverse, -int4::OFFSET, 15.0 - int4::OFFSET);
            part.error += f64::from(w - q * scale).powi(2);
            (number + int4::OFFSET as i32) as u8
        });
        let (low, high) = quants.split_at(BLOCK / 2);
        part.quants.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
    }
}
