//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows, a line of 64 bytes at once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{avx2, DenseFormat, Grouped};
use crate::kernels::panel::{
    from_array, join, quarter_sums, sixteen_words, to_array, transpose_sixteen, Outlier, Panel, Tile, QUAD,
    SIXTEEN,
};

/// Numbers that are unpacked at once for a panel, and bytes that are multiplied at once.
pub(super) const WIDE: usize = 64;

/// Sums of a row that are kept until they are scaled: with those of rows of 8192 inputs, half a first-level cache.
const CHUNK: usize = 64;

/// Bytes from what is multiplied to what is fetched: what memory delivers to a thread in about twice its latency.
const AHEAD: usize = 4096;

/// Groups whose scales are read at once.
const SCALES: usize = 8;

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn matmul<const BITS: u32>(
    w: &Grouped,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    let whole = range.start + range.len() / SIXTEEN * SIXTEEN;
    let rows = range.start..whole;
    // What the formats in use come to has code of its own.
    match (BITS, w.period()) {
        (8, 256) => sixteens::<BITS, 4, 4>(w, rows, x, &mut out),
        (4, 256) => sixteens::<BITS, 2, 4>(w, rows, x, &mut out),
        (4, 64) => sixteens::<BITS, 1, 2>(w, rows, x, &mut out),
        _ => sixteens::<BITS, 1, 0>(w, rows, x, &mut out),
    }
    if whole < range.end {
        avx2::matmul::<BITS>(w, whole..range.end, x, out);
    }
}

/// [`matmul`] of sixteens of rows. `TOGETHER` lines of 64 bytes have one sum, and `QUARTERS` of such sums, or if that
/// is 0 any number of them, a period.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn sixteens<const BITS: u32, const TOGETHER: usize, const QUARTERS: usize>(
    w: &Grouped,
    range: Range<usize>,
    x: &[Tile],
    out: &mut impl FnMut(usize, usize, &[f32]),
) {
    let mut sums = [[_mm512_setzero_si512(); SIXTEEN]; CHUNK / 4];
    for (t, x) in x.iter().enumerate() {
        let lines = lines::<BITS>(x);
        for from in range.clone().step_by(SIXTEEN) {
            fetch_scales(w, from + SIXTEEN);
            let mut y = Results::new(w, from, x);
            // Each row is read from end to end before the next: one stream is what the processor fetches best. What
            // all rows do together, their scales and sums, comes after them.
            for (n, lines) in lines.chunks(CHUNK * TOGETHER).enumerate() {
                for r in 0..SIXTEEN {
                    let row = &w.row(from + r)[n * CHUNK * TOGETHER * WIDE..];
                    multiply::<BITS, TOGETHER>(row, lines, r, &mut sums);
                }
                for sums in &sums[..lines.len().div_ceil(4 * TOGETHER)] {
                    let columns = transpose_sixteen(*sums);
                    for i in 0..4 {
                        y.add::<QUARTERS>([columns[i], columns[4 + i], columns[8 + i], columns[12 + i]]);
                    }
                }
            }
            out(from, t, &to_array(y.y));
        }
    }
}

/// Activations as they meet a line of weights: 64, or of nibbles the 64 in low halves and the 64 in high ones.
type Line = [__m512i; 2];

/// The lines of a row; zeros past its end.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn lines<const BITS: u32>(x: &Tile) -> Vec<Line> {
    let zero = _mm512_setzero_si512();
    let lines = x.quads.chunks(WIDE / QUAD * 8 / BITS as usize);
    lines
        .map(|quads| match BITS {
            8 => [load_quads(quads), zero],
            _ => {
                let (first, second) = quads.split_at(quads.len().min(WIDE / QUAD));
                let (first, second) = (load_quads(first), load_quads(second));
                let low = |v| _mm512_cvtepi16_epi8(v);
                let high = |v| _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(v));
                [join(low(first), low(second)), join(high(first), high(second))]
            }
        })
        .collect()
}

/// The sums of a chunk: `[four sums][row]`, see [`multiply`].
type Sums = [[__m512i; SIXTEEN]; CHUNK / 4];

/// The products of a row's bytes and as many lines, those of every `TOGETHER` added up, and four such sums in
/// `sums[..][r]`: quarter `q` of that has the quarters `q` of the four.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn multiply<const BITS: u32, const TOGETHER: usize>(row: &[u8], lines: &[Line], r: usize, sums: &mut Sums) {
    let lines = lines.chunks(4 * TOGETHER);
    for ((lines, row), sums) in lines.zip(row.chunks(4 * TOGETHER * WIDE)).zip(sums) {
        let mut four = [_mm512_setzero_si512(); 4];
        for (i, sum) in four.iter_mut().enumerate() {
            let from = i * TOGETHER;
            if row.len() >= (from + TOGETHER) * WIDE {
                let (row, lines) = (&row[from * WIDE..], &lines[from..]);
                let mut parts = [_mm512_setzero_si512(); 2];
                for j in 0..TOGETHER {
                    prefetch(row, j * WIDE + AHEAD);
                    parts[j % 2] = dot::<BITS>(parts[j % 2], load_line(&row[j * WIDE..][..WIDE]), &lines[j]);
                }
                *sum = if TOGETHER == 1 { parts[0] } else { _mm512_add_epi32(parts[0], parts[1]) };
            } else {
                for (row, line) in row.chunks(WIDE).zip(lines).skip(from).take(TOGETHER) {
                    *sum = dot::<BITS>(*sum, load_line(row), line);
                }
            }
        }
        sums[r] = quarter_sums(four);
    }
}

/// `sum` and the products of a line of weights.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn dot<const BITS: u32>(sum: __m512i, w: __m512i, x: &Line) -> __m512i {
    if BITS == 8 {
        return _mm512_dpbusd_epi32(sum, _mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN)), x[0]);
    }
    let nibbles = _mm512_set1_epi8(15);
    let sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(w, nibbles), x[0]);
    _mm512_dpbusd_epi32(sum, _mm512_and_si512(_mm512_srli_epi16::<4>(w), nibbles), x[1])
}

/// Results of sixteen rows and a token, as the sums come in.
struct Results<'a> {
    w: &'a Grouped<'a>,
    x: &'a Tile,
    from: usize,
    y: __m512,
    /// The period that comes next.
    period: usize,
    /// Its sum so far, and of how many quarters.
    dot: (__m512i, usize),
    group: usize,
    /// Where the next group begins.
    next_group: usize,
    scales: [__m512; SCALES],
    mins: [__m512; SCALES],
    outliers: &'a [Outlier],
}

impl<'a> Results<'a> {
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn new(w: &'a Grouped<'a>, from: usize, x: &'a Tile) -> Self {
        let zeros = [_mm512_setzero_ps(); SCALES];
        let (scales, mins, outliers) = (zeros, zeros, &x.outliers[..]);
        let dot = (_mm512_setzero_si512(), 0);
        Self { w, x, from, y: zeros[0], period: 0, dot, group: 0, next_group: 0, scales, mins, outliers }
    }

    /// Adds the four quarters of a sum; what comes after the last period is left out.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn add<const QUARTERS: usize>(&mut self, [a, b, c, d]: [__m512i; 4]) {
        match QUARTERS {
            4 => self.add_period(_mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d))),
            2 => {
                self.add_period(_mm512_add_epi32(a, b));
                self.add_period(_mm512_add_epi32(c, d));
            }
            _ => {
                let quarters = self.w.period() * self.w.bits.per_weight() as usize / (2 * WIDE);
                for part in [a, b, c, d] {
                    self.dot = (_mm512_add_epi32(self.dot.0, part), self.dot.1 + 1);
                    if self.dot.1 == quarters {
                        self.add_period(self.dot.0);
                        self.dot = (_mm512_setzero_si512(), 0);
                    }
                }
            }
        }
    }

    /// Adds a period, by the same operations in the same order as the specification.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn add_period(&mut self, dot: __m512i) {
        let (w, x, i) = (self.w, self.x, self.period);
        let first = i * w.period();
        if first >= w.cols {
            return;
        }
        if first == self.next_group {
            self.group = first / w.group;
            self.next_group += w.group;
            if self.group.is_multiple_of(SCALES) {
                sixteen_scales(w, self.from, self.group, &mut self.scales, &mut self.mins);
            }
        }
        let group = self.group % SCALES;
        let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_set1_epi32(x.starts[i]), dot));
        let scale = _mm512_mul_ps(self.scales[group], _mm512_set1_ps(x.scales[i]));
        self.y = _mm512_fmadd_ps(sum, scale, self.y);
        if w.zeros.is_some() {
            self.y = _mm512_fmadd_ps(_mm512_set1_ps(x.sums[i]), self.mins[group], self.y);
        }
        self.period += 1;
        while let [outlier, rest @ ..] = self.outliers {
            if outlier.input >= first + w.period() {
                break;
            }
            let weights: [_; SIXTEEN] = std::array::from_fn(|r| w.weight(self.from + r, outlier.input));
            self.y = _mm512_fmadd_ps(_mm512_set1_ps(outlier.value), from_array(&weights), self.y);
            self.outliers = rest;
        }
    }
}

/// [`Grouped::scale`] of sixteen rows from `from` on and of groups from `group` on, as far as there are any.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn sixteen_scales(
    w: &Grouped,
    from: usize,
    group: usize,
    scales: &mut [__m512; SCALES],
    mins: &mut [__m512; SCALES],
) {
    let groups = w.cols / w.group;
    let left = SCALES.min(groups - group);
    let at = from * groups + group;
    match w.scale_format {
        DenseFormat::F32 => {
            for half in 0..left.div_ceil(4) {
                let columns = columns(&w.scales[4 * (at + 4 * half)..], 4 * groups, 4 * (left - 4 * half));
                for (i, column) in columns.into_iter().enumerate() {
                    scales[4 * half + i] = _mm512_castsi512_ps(column);
                }
            }
        }
        DenseFormat::F16 => {
            for (i, two) in columns(&w.scales[2 * at..], 2 * groups, 2 * left).into_iter().enumerate() {
                scales[2 * i] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(two));
                scales[2 * i + 1] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(two)));
            }
        }
        DenseFormat::BF16 => {
            let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            for (i, two) in columns(&w.scales[2 * at..], 2 * groups, 2 * left).into_iter().enumerate() {
                scales[2 * i] = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(two));
                scales[2 * i + 1] = _mm512_castsi512_ps(_mm512_and_si512(two, high));
            }
        }
    }
    let Some(zeros) = w.zeros else { return };
    for (word, four) in columns(&zeros[at..], groups, left).into_iter().enumerate().take(SCALES / 4) {
        for i in 0..4 {
            let zero = _mm512_srl_epi32(four, _mm_cvtsi32_si128(8 * i as i32));
            let zero = _mm512_cvtepi32_ps(_mm512_and_si512(zero, _mm512_set1_epi32(255)));
            let min = _mm512_mul_ps(scales[4 * word + i], zero);
            mins[4 * word + i] = _mm512_xor_ps(min, _mm512_set1_ps(-0.0));
        }
    }
}

/// Of sixteen rows `stride` bytes apart the first 16 bytes, or `len` and zeros, as columns of 32 bits.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn columns(bytes: &[u8], stride: usize, len: usize) -> [__m512i; 4] {
    let len = len.min(16);
    let bytes = &bytes[..(SIXTEEN - 1) * stride + len];
    let mask = ((1u32 << len) - 1) as u16;
    let mut v = [_mm512_setzero_si512(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        for q in 0..4 {
            let row = bytes.as_ptr().wrapping_add((4 * q + i) * stride);
            // SAFETY: `len` bytes of each row are there, and no other is read.
            let row = _mm512_broadcast_i32x4(unsafe { _mm_maskz_loadu_epi8(mask, row.cast()) });
            *v = _mm512_mask_mov_epi32(*v, 15 << (4 * q), row);
        }
    }
    sixteen_words(v)
}

/// Brings the scales of sixteen rows nearer, and the zero points; they may lie past the end.
#[inline(always)]
fn fetch_scales(w: &Grouped, from: usize) {
    let groups = w.cols / w.group;
    let size = w.scale_format.size();
    for (bytes, size) in [(w.scales, size), (w.zeros.unwrap_or_default(), 1)] {
        let lines = (0..SIXTEEN * groups * size).step_by(WIDE);
        lines.for_each(|line| prefetch(bytes, from * groups * size + line));
    }
}

/// Brings a line nearer; it may lie past the end.
#[inline(always)]
fn prefetch(bytes: &[u8], at: usize) {
    // SAFETY: SSE is part of the baseline, and nothing is dereferenced.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) };
}

/// 64 activations, or as many as there are and zeros.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn load_quads(quads: &[i32]) -> __m512i {
    const ALL: usize = WIDE / QUAD;
    // SAFETY: no quad beyond the slice is read, and any alignment will do.
    unsafe {
        match quads.len() {
            ALL.. => _mm512_loadu_si512(quads.as_ptr().cast()),
            len => _mm512_maskz_loadu_epi32((1 << len) - 1, quads.as_ptr()),
        }
    }
}

/// 64 bytes, or as many as there are and zeros.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn load_line(bytes: &[u8]) -> __m512i {
    // SAFETY: no byte beyond the slice is read, and any alignment will do.
    unsafe {
        if bytes.len() >= WIDE {
            _mm512_loadu_si512(bytes.as_ptr().cast())
        } else {
            _mm512_maskz_loadu_epi8((1 << bytes.len()) - 1, bytes.as_ptr().cast())
        }
    }
}

/// Packs the quants of sixteen rows into sixteen `s`, those of 8 bits with their sign flipped; `next` are the
/// rows to come.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn pack<const BITS: u32>(rows: [&[u8]; SIXTEEN], next: &[u8], s: usize, panel: &mut Panel) {
    let bytes = BITS as usize * WIDE / 8;
    let quads = panel.quads();
    for unit in 0..rows[0].len().div_ceil(bytes) {
        let mut v = [_mm512_setzero_si512(); SIXTEEN];
        for r in 0..SIXTEEN {
            prefetch(next, (unit * SIXTEEN + r) * bytes);
            let row = &rows[r][unit * bytes..];
            // SAFETY: the rest of the row.
            v[r] = unsafe { quants::<BITS>(row.as_ptr(), row.len()) };
        }
        let first = unit * (WIDE / QUAD);
        for (j, column) in transpose_sixteen(v).into_iter().enumerate().take(quads - first) {
            // SAFETY: a line's 64 bytes, at any alignment.
            unsafe { _mm512_storeu_si512(panel.sixteen_mut(s, first + j).as_mut_ptr().cast(), column) };
        }
    }
}

/// 64 quants, a byte each, unsigned; past the end of the row anything.
///
/// # Safety
///
/// `left` bytes can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn quants<const BITS: u32>(at: *const u8, left: usize) -> __m512i {
    if BITS == 8 {
        // SAFETY: no byte beyond those left is read.
        let v = unsafe {
            if left >= WIDE {
                _mm512_loadu_si512(at.cast())
            } else {
                _mm512_maskz_loadu_epi8((1 << left) - 1, at.cast())
            }
        };
        _mm512_xor_si512(v, _mm512_set1_epi8(i8::MIN))
    } else {
        // SAFETY: as above.
        let v = unsafe {
            if left >= WIDE / 2 {
                _mm256_loadu_si256(at.cast())
            } else {
                _mm256_maskz_loadu_epi8((1 << left) - 1, at.cast())
            }
        };
        let pairs = _mm512_cvtepu8_epi16(v);
        _mm512_and_si512(_mm512_or_si512(pairs, _mm512_slli_epi16::<4>(pairs)), _mm512_set1_epi8(15))
    }
}
