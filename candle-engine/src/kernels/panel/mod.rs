//! Products of 8-bit integers, many rows and many tokens at a time: what all quantized formats share.
//!
//! Some rows of a matrix are unpacked into a [`Panel`], whose registers' lanes are rows; tokens are quantized
//! into [`Tile`]s, whose quads of activations are broadcast to all lanes. Integer products are exact and the
//! sums of a period join the running sum in the order of the row, so a result depends on nothing but its row
//! and its token:
//!
//! y = y + (Σ (quant − offset) · activation) · (scale · activation's scale), fused, for each period in order,
//! and, where the format has a min, y = y + (activation's scale · Σ activation) · min, fused.
//!
//! Where some periods share a scale and have integers of their own under it, these multiply their sums before they are
//! added up, as integers too:
//!
//! y = y + (Σ sub-scale · Σ (quant − offset) · activation) · (scale · activation's scale), fused, for each group in order,
//! and, where the format has a min, y = y + (Σ sub-min · Σ activation) · (min · activation's scale), fused.

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod each;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod driver;
mod tile;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub use self::avx2::{pairs, set_quants};
pub use self::driver::{matmul, matmul_gated, sharing, Few, Source};
pub use self::tile::{Outlier, Quantization, Tile};
use self::tile::{Parts, Tokens};
#[cfg(target_arch = "x86_64")]
pub use self::x86::{
    add_words, field_of_eight, field_of_sixteen, from_array, join, quarter_sums, sixteen_words,
    sums_of_eight, sums_of_quarters, sums_of_rows, to_array, to_integers, transpose, transpose_quarters,
    transpose_sixteen, with_room, Room,
};

/// Numbers of a row that are unpacked at once; a panel's rows are padded to a multiple.
pub const UNIT: usize = 32;

/// Numbers of a row that lie together: what one 32-bit lane multiplies and adds.
pub const QUAD: usize = 4;

/// Rows that are unpacked at once, where a register is one of 256 bits.
pub const OCTET: usize = 8;

/// Rows that are unpacked at once, where a register is one of 512 bits.
pub const SIXTEEN: usize = 16;

/// Rows, unpacked and interleaved.
#[derive(Default)]
pub struct Panel {
    /// Eights of rows.
    octets: usize,
    /// Four quants of each row, `[k / QUAD][octets / 2]`; or two of 16 bits, `[k / 2][octets / 2]`.
    lines: Vec<Line>,
    /// What a line has of a row.
    parts: Parts,
    /// Where matrix registers multiply and there are sub-scales, the high bytes of what `lines` have the low ones of.
    #[cfg(target_arch = "x86_64")]
    high: Vec<Line>,
    /// `[groups][octets]`
    scales: Vec<[f32; OCTET]>,
    /// As the scales, or nothing.
    mins: Vec<[f32; OCTET]>,
    /// `[periods][octets]`, or nothing.
    sub_scales: Vec<[i32; OCTET]>,
    /// Of two periods, 16 bits each, `[periods / 2][octets]`; or nothing.
    sub_mins: Vec<[i32; OCTET]>,
}

/// Four quants of sixteen rows, or two.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([[u8; OCTET * QUAD]; 2]);

impl Panel {
    /// Room for so many rows of `k` numbers.
    fn resize(&mut self, octets: usize, parts: Parts, q: &Quantization) {
        assert!(octets.is_multiple_of(2), "whole lines");
        (self.octets, self.parts) = (octets, parts);
        // Up to what matrix registers read at once.
        let k = q.k.next_multiple_of(2 * UNIT);
        self.lines.resize(k / QUAD * parts.of_quad() * (octets / 2), Line::default());
        self.scales.resize(q.groups() * octets, Default::default());
        self.mins.resize(if q.has_min { self.scales.len() } else { 0 }, Default::default());
        let periods = if q.has_sub_scales() { q.periods() * octets } else { 0 };
        self.sub_scales.resize(periods, Default::default());
        self.sub_mins.resize(if q.has_min { periods / 2 } else { 0 }, Default::default());
    }

    /// Sets the scales of a group in octet `h`, and the mins, if the format has any.
    #[inline(always)]
    pub fn set_scales(&mut self, h: usize, group: usize, scales: [f32; OCTET], mins: [f32; OCTET]) {
        self.scales[group * self.octets + h] = scales;
        if let Some(to) = self.mins.get_mut(group * self.octets + h) {
            *to = mins;
        }
    }

    /// Sets the sub-scales of a period in octet `h`.
    #[inline(always)]
    pub fn set_sub_scales(&mut self, h: usize, period: usize, scales: [i32; OCTET]) {
        self.sub_scales[period * self.octets + h] = scales;
    }

    /// Sets the sub-mins of periods `2 · pair` and the next in octet `h`: the first's in the low 16 bits.
    #[inline(always)]
    pub fn set_sub_mins(&mut self, h: usize, pair: usize, mins: [i32; OCTET]) {
        self.sub_mins[pair * self.octets + h] = mins;
    }

    /// Eights of rows.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Fours of numbers in a row, padding included.
    pub fn quads(&self) -> usize {
        self.lines.len() / (self.octets / 2)
    }

    /// Four quants, from number `QUAD · quad` on, of each row of sixteen `s`.
    #[inline(always)]
    pub fn sixteen_mut(&mut self, s: usize, quad: usize) -> &mut [u8] {
        self.lines[quad * (self.octets / 2) + s].0.as_flattened_mut()
    }

    /// [`Self::set_scales`] of sixteen `s`.
    #[inline(always)]
    pub fn set_sixteen_scales(
        &mut self,
        s: usize,
        group: usize,
        scales: [f32; SIXTEEN],
        mins: [f32; SIXTEEN],
    ) {
        for h in 0..2 {
            self.set_scales(2 * s + h, group, octet(&scales, h), octet(&mins, h));
        }
    }

    /// [`Self::set_sub_scales`] of sixteen `s`.
    #[inline(always)]
    pub fn set_sixteen_sub_scales(&mut self, s: usize, period: usize, scales: [i32; SIXTEEN]) {
        for h in 0..2 {
            self.set_sub_scales(2 * s + h, period, octet(&scales, h));
        }
    }

    /// [`Self::set_sub_mins`] of sixteen `s`.
    #[inline(always)]
    pub fn set_sixteen_sub_mins(&mut self, s: usize, pair: usize, mins: [i32; SIXTEEN]) {
        for h in 0..2 {
            self.set_sub_mins(2 * s + h, pair, octet(&mins, h));
        }
    }

    /// The weight of row `r` and input `i`.
    #[inline(always)]
    fn weight(&self, r: usize, i: usize, q: &Quantization) -> f32 {
        let (h, lane) = (r / OCTET, r % OCTET);
        let of_row = |line: usize| {
            let line = self.lines[line * (self.octets / 2) + h / 2].0[h % 2];
            i32::from_le_bytes(line.as_chunks().0[lane])
        };
        let quant = match self.parts {
            Parts::Words => of_row(i / QUAD * 2 + i % 2) << (16 * (1 - i % QUAD / 2)) >> 16,
            Parts::Quads | Parts::Pairs(_) => (of_row(i / QUAD) >> (8 * (i % QUAD))) & 255,
        };
        let (group, period) = (i / q.group * self.octets + h, i / q.period);
        let (mut scale, mut min) =
            (self.scales[group][lane], self.mins.get(group).map_or(0.0, |mins| mins[lane]));
        if let Some(sub_scales) = self.sub_scales.get(period * self.octets + h) {
            scale *= sub_scales[lane] as f32;
            let pair = self.sub_mins.get(period / 2 * self.octets + h);
            min *= pair.map_or(0, |mins| (mins[lane] >> (16 * (period % 2))) & 0xffff) as f32;
        }
        scale.mul_add((quant - q.offset) as f32, min)
    }
}

/// Half `h` of sixteen.
#[inline(always)]
fn octet<T: Copy>(sixteen: &[T; SIXTEEN], h: usize) -> [T; OCTET] {
    sixteen.as_chunks().0[h]
}
