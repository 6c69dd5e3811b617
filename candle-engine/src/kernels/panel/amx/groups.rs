//! Of formats with sub-scales: quants multiplied by them, numbers of up to 13 bits, as two bytes. So a group's products are
//! summed at once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{add_outlier, halves, integers, Operands, Sums, PRODUCTS, ROWS, TOKENS};
use crate::kernels::amx;
use crate::kernels::panel::x86::from_array;
use crate::kernels::panel::{Line, Panel, Quantization, Tile, OCTET, QUAD, SIXTEEN};

/// Multiplies the quants of a panel, bytes with a sign, by the sub-scales if there are any: lines hold low bytes from now
/// on, and `high` the high ones.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn finish(q: &Quantization, panel: &mut Panel) {
    if !q.has_sub_scales() {
        return;
    }
    panel.high.resize(panel.lines.len(), Line::default());
    let lines = q.period / QUAD * (ROWS / SIXTEEN);
    let of_periods = panel.lines.chunks_exact_mut(lines).zip(panel.high.chunks_exact_mut(lines));
    for ((lines, high), sub_scales) in of_periods.zip(panel.sub_scales.as_chunks().0) {
        // In both halves of each lane.
        let mut by = integers(sub_scales);
        for by in &mut by {
            *by = _mm512_mask_blend_epi16(0xaaaa_aaaa, *by, _mm512_slli_epi32::<16>(*by));
        }
        for (i, (line, high)) in lines.iter_mut().zip(high).enumerate() {
            // SAFETY: a line's 64 bytes.
            let quants = unsafe { _mm512_load_si512((&raw const *line).cast()) };
            let even = _mm512_mullo_epi16(_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(quants)), by[i % 2]);
            let odd = _mm512_mullo_epi16(_mm512_srai_epi16::<8>(quants), by[i % 2]);
            // SAFETY: as above.
            unsafe {
                let low = _mm512_mask_blend_epi8(ODD, even, _mm512_slli_epi16::<8>(odd));
                _mm512_store_si512((&raw mut *line).cast(), low);
                _mm512_store_si512(
                    (&raw mut *high).cast(),
                    _mm512_mask_blend_epi8(ODD, _mm512_srli_epi16::<8>(even), odd),
                );
            }
        }
    }
}

/// The bytes whose number is odd.
const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// [`super::multiply`] of such a panel. One half of the rows takes turns with the other.
///
/// # Safety
///
/// The [`super::tiles`] for `q` are in use.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn multiply(
    panel: &Panel,
    q: &Quantization,
    tile: &Tile,
    periods: Range<usize>,
    y: &mut [[f32; ROWS]],
) {
    let in_group = q.group / q.period;
    let groups = periods.start / in_group..periods.end / in_group;
    let mut outliers = tile.outliers_from(groups.start * q.group).peekable();
    // Of the two halves.
    let mut sums = [Sums::NONE; 2];
    let share = TOKENS / (q.group / amx::ROW * PRODUCTS);
    let mut before: Option<(usize, usize)> = None;
    for turn in groups.flat_map(|group| [(group, 0), (group, 1)]).map(Some).chain([None]) {
        let [first, second] = &mut sums;
        let mut rest = before.map(|(group, h)| Scaling::new(panel, q, tile, group, h));
        // SAFETY: by the contract; the last turn's sums were stored.
        unsafe {
            let (to, from) =
                if before.is_some_and(|(_, h)| h == 0) { (second, first) } else { (first, second) };
            if let Some((group, h)) = turn {
                let lines = [&panel.lines[..], &panel.high];
                Operands::new(lines, [h; 2], q, tile, group * q.group, q.group).multiply::<true>(|| {
                    if let Some(rest) = &mut rest {
                        rest.advance(share, from, y);
                    }
                });
                to.store(tile.len);
            }
            if let Some(rest) = &mut rest {
                rest.advance(TOKENS, from, y);
            }
        }
        if let Some((group, 1)) = before {
            while let Some(outlier) = outliers.next_if(|o| o.input < (group + 1) * q.group) {
                add_outlier(panel, q, outlier, &mut y[outlier.token]);
            }
        }
        before = turn;
    }
}

/// What the sums of a group and half of the rows are scaled by on their way to `y`.
struct Scaling<'a> {
    is_first: bool,
    h: usize,
    scale: __m512,
    x_scales: &'a [f32; TOKENS],
    min: __m512,
    /// Sub-mins, and sums they are multiplied by, of each two periods; nothing if there are no mins.
    sub_mins: &'a [[i32; ROWS]],
    sums: &'a [[i32; TOKENS]],
    /// The next token.
    token: usize,
    tokens: usize,
}

impl<'a> Scaling<'a> {
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn new(panel: &'a Panel, q: &Quantization, tile: &'a Tile, group: usize, h: usize) -> Self {
        let pairs = if q.has_min { q.group / q.period / 2 } else { 0 };
        let pairs = group * pairs..(group + 1) * pairs;
        Self {
            is_first: group == 0,
            h,
            scale: halves(&panel.scales, group)[h],
            x_scales: &tile.scales.as_chunks().0[group],
            min: if q.has_min { halves(&panel.mins, group)[h] } else { _mm512_setzero_ps() },
            sub_mins: &panel.sub_mins.as_flattened().as_chunks().0[pairs.clone()],
            sums: &tile.pairs.as_chunks().0[pairs],
            token: 0,
            tokens: tile.len,
        }
    }

    /// Adds the sums of so many more tokens to `y`.
    ///
    /// # Safety
    ///
    /// They are stored.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    unsafe fn advance(&mut self, count: usize, sums: &Sums, y: &mut [[f32; ROWS]]) {
        let end = self.tokens.min(self.token + count);
        for (t, y) in (self.token..end).zip(&mut y[self.token..end]) {
            let y = &mut y.as_chunks_mut::<SIXTEEN>().0[self.h];
            // SAFETY: by the contract.
            let (low, high) = unsafe { (sums.load(t, 0), sums.load(t, 1)) };
            let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(low, _mm512_slli_epi32::<8>(high)));
            let x_scale = _mm512_set1_ps(self.x_scales[t]);
            let before = if self.is_first { _mm512_setzero_ps() } else { from_array(y) };
            let mut to = _mm512_fmadd_ps(sum, _mm512_mul_ps(self.scale, x_scale), before);
            if !self.sub_mins.is_empty() {
                let mut dot = _mm512_setzero_si512();
                for (sub_mins, sums) in self.sub_mins.iter().zip(self.sums) {
                    let of_rows: &[[i32; OCTET]; ROWS / OCTET] =
                        sub_mins.as_chunks().0.try_into().expect("rows");
                    dot = _mm512_dpwssd_epi32(dot, integers(of_rows)[self.h], _mm512_set1_epi32(sums[t]));
                }
                to = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(self.min, x_scale), to);
            }
            // SAFETY: sixteen numbers.
            unsafe { _mm512_storeu_ps(y.as_mut_ptr(), to) };
        }
        self.token = end;
    }
}
