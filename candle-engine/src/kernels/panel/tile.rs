//! Activations as 8-bit integers, in the order in which the kernels take them.

use std::ops::Range;

use crate::kernels::aligned::Aligned;
use crate::kernels::lanes::{per_isa, sum, Arith};
use crate::kernels::prefetch::{prefetch, LINE};
use crate::kernels::threads::parallel_chunks;
use crate::kernels::Isa;

use super::{QUAD, UNIT};

/// Tokens of a tile.
pub const TILE: usize = 12;

/// Numbers of a group at most.
const MOST: usize = 512;

/// How much larger than the mean magnitude of its group an activation is that is multiplied apart.
///
/// Of normal numbers none in 10^35 is. At most one in so many can be, which bounds the work.
const OUTLIER: f32 = 16.0;

/// What a format wants of the activations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quantization {
    /// Numbers of a row.
    pub k: usize,
    /// Numbers whose products are summed as integers; the last period of a row may be shorter.
    pub period: usize,
    /// Numbers under one scale, of the activations too. If that is more than a period, periods have integers of their
    /// own to scale their sums by, and if there are mins, those too.
    pub group: usize,
    /// What is taken from every quant of the weights.
    pub offset: i32,
    /// Whether the weights have mins.
    pub has_min: bool,
    /// Whether outliers are multiplied apart.
    pub outliers: bool,
    /// Whether activations take 16 bits: each token becomes two, its quants and those of what they leave.
    pub precise: bool,
}

impl Quantization {
    /// Periods of a row.
    pub fn periods(&self) -> usize {
        self.k.div_ceil(self.period)
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.k.div_ceil(self.group)
    }

    /// Whether periods have scales of their own.
    pub fn has_sub_scales(&self) -> bool {
        self.group > self.period
    }

    /// Quantized tokens that a token becomes.
    pub fn parts(&self) -> usize {
        1 + usize::from(self.precise)
    }
}

/// An activation that is multiplied apart.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Outlier {
    /// Its place in the row.
    pub input: usize,
    /// Its token within the tile.
    pub token: usize,
    /// Its value.
    pub value: f32,
}

/// What a level multiplies at once: a quad of bytes, or half of one as 16 bits each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Parts {
    /// Quads, of which four products are added up in 32 bits.
    #[default]
    Quads,
    /// Quads, of which products are added up in twos as 16 bits, then those of so many quads.
    Pairs(usize),
    /// Of each quad its first and third number, then its second and fourth: so a register of quads becomes two by shifts.
    Words,
}

impl Parts {
    /// 32-bit numbers that a quad takes.
    pub fn of_quad(self) -> usize {
        1 + usize::from(self == Self::Words)
    }
}

/// How a tile's tokens lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// How many tokens there is room for.
    pub width: usize,
    /// Quads of a token that lie together, then those of the next: they divide a group, or fill it up.
    pub run: usize,
    /// What a quad is.
    pub parts: Parts,
}

impl Shape {
    /// Of one token as its row, of several in turn.
    pub const fn in_turn(width: usize) -> Self {
        Self { width, run: 1, parts: Parts::Quads }
    }

    /// Where quad `quad` of token `token` lies; of a token alone as its place in the row.
    fn at(self, quad: usize, token: usize) -> usize {
        (quad / self.run * self.parts.of_quad() * self.width + token) * self.run + quad % self.run
    }

    /// Starts of a period.
    fn starts(self, q: &Quantization) -> usize {
        match self.parts {
            Parts::Pairs(quads) => (q.period / QUAD).div_ceil(quads),
            Parts::Quads | Parts::Words => 1,
        }
    }

    /// Writes a token's quads, the first at the start of `to`.
    #[inline(always)]
    fn lay(self, bytes: &[u8], to: &mut [i32]) {
        let from = bytes.as_chunks::<QUAD>().0;
        if self.parts == Parts::Words {
            // Loops of their own again.
            let (mut even, mut odd) = ([0; MOST / QUAD], [0; MOST / QUAD]);
            for ((even, odd), quad) in even.iter_mut().zip(&mut odd).zip(from) {
                let quad = i32::from_le_bytes(*quad);
                *even = (quad << 24 >> 24) & 0xffff | (quad << 8 >> 24) << 16;
                *odd = (quad << 16 >> 24) & 0xffff | (quad >> 24) << 16;
            }
            for (half, first) in [even, odd].iter().zip([0, self.width]) {
                let places = to.iter_mut().skip(first).step_by(2 * self.width);
                places.zip(&half[..from.len()]).for_each(|(to, half)| *to = *half);
            }
        } else if self.run == 1 {
            // A loop over runs would be a call for each, and one over places would look for the end at each.
            for (to, quad) in to.chunks_mut(self.width).zip(from) {
                to[0] = i32::from_le_bytes(*quad);
            }
        } else {
            let runs = to.chunks_mut(self.run * self.width);
            for (from, to) in from.chunks(self.run).zip(runs) {
                to.iter_mut().zip(from).for_each(|(to, quad)| *to = i32::from_le_bytes(*quad));
            }
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self::in_turn(1)
    }
}

/// Some tokens, interleaved; one alone lies as its row.
#[derive(Default)]
pub struct Tile {
    /// How many tokens there are.
    pub len: usize,
    /// How they lie; the last tile may have fewer than there is room for.
    shape: Shape,
    /// Four quants of each token, a byte each: `[k / QUAD / run][width][run]`; or two of 16 bits, `[k / 2][width]`
    pub quads: Aligned<i32>,
    /// `[groups][width]`
    pub scales: Vec<f32>,
    /// `−offset · Σ quant`: where a period's integer sum starts, `[periods][width]`. Of [`Parts::Pairs`] where each sum of
    /// 16 bits starts, those of first halves of quads in the low 16 bits, `[periods][sums of a period][width]`.
    pub starts: Vec<i32>,
    /// `scale · Σ quant`, `[groups][width]`; nothing if the weights have no mins, or periods have them.
    pub sums: Vec<f32>,
    /// `Σ quant` of two periods, the first's in the low 16 bits, `[periods / 2][width]`; nothing if periods have no mins.
    pub pairs: Vec<i32>,
    /// By input, then by token.
    pub outliers: Vec<Outlier>,
}

impl Tile {
    /// What its quads are.
    pub fn parts(&self) -> Parts {
        self.shape.parts
    }

    /// Those of an input and of what follows.
    pub fn outliers_from(&self, input: usize) -> impl Iterator<Item = &Outlier> {
        self.outliers[self.outliers.partition_point(|o| o.input < input)..].iter()
    }
}

/// Quantized rows of activations.
#[derive(Default)]
pub struct Tokens {
    tiles: Vec<Tile>,
    len: usize,
    shape: Shape,
    /// The place in memory of an input that several matrices multiply.
    shared: Option<Range<usize>>,
    /// How they were made of it, if they were.
    made: Option<(Isa, Quantization)>,
}

impl Tokens {
    /// Says at which place in memory an input lies that does not change until it is said again; returns what was said before.
    pub fn share(&mut self, place: Option<Range<usize>>) -> Option<Range<usize>> {
        self.made = None;
        std::mem::replace(&mut self.shared, place)
    }

    /// Quantizes `x`, rows of `k`, into the buffers that are there: tiles of this shape. Does nothing if that is what they
    /// are, of an input that is shared.
    pub fn quantize(&mut self, isa: Isa, x: &[f32], q: &Quantization, shape: Shape) {
        assert!(q.group.is_multiple_of(q.period) && q.group.is_multiple_of(UNIT) && q.group <= MOST, "{q:?}");
        let Range { start, end } = x.as_ptr_range();
        let made = (self.shared == Some(start.addr()..end.addr())).then_some((isa, *q));
        if made.is_some() && (self.made, self.shape) == (made, shape) {
            return;
        }
        self.made = None;
        (self.len, self.shape) = (x.len() / q.k * q.parts(), shape);
        let (len, width) = (self.len, shape.width);
        let count = len.div_ceil(width);
        self.tiles.resize_with(count.max(self.tiles.len()), Tile::default);
        parallel_chunks(&mut self.tiles[..count], 1, |i, tile| {
            tile[0].shape = shape;
            fill(isa, &mut tile[0], i * width..len.min((i + 1) * width), x, q);
        });
        self.made = made;
    }

    /// The tiles; all but the last are full.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles[..self.len.div_ceil(self.shape.width)]
    }

    /// What the tiles' quads are.
    pub fn parts(&self) -> Parts {
        self.shape.parts
    }

    /// Number of tokens; where they are precise, of their parts.
    pub fn len(&self) -> usize {
        self.len
    }
}

fn fill(isa: Isa, tile: &mut Tile, range: Range<usize>, x: &[f32], q: &Quantization) {
    per_isa!(isa, fill_tile, (tile: &mut Tile, range: Range<usize>, x: &[f32], q: &Quantization));
}

/// The parts `range` of all tokens.
#[inline(always)]
fn fill_tile(_: impl Arith, tile: &mut Tile, range: Range<usize>, x: &[f32], q: &Quantization) {
    let shape @ Shape { width, run, parts } = tile.shape;
    // Zeros fill the last period up to so many numbers, and the row.
    let step = if run == 1 { UNIT } else { run * QUAD };
    let unit = q.period.min(step);
    tile.len = range.len();
    let mut rest = vec![0.0; if q.precise { q.group } else { 0 }];
    tile.quads.resize(q.k.next_multiple_of(step) / QUAD * parts.of_quad() * width);
    tile.scales.resize(q.groups() * width, 0.0);
    let in_period = shape.starts(q);
    tile.starts.resize(q.periods() * in_period * width, 0);
    if q.offset == 0 {
        tile.starts.fill(0);
    }
    // By way of memory, in loops of their own: so each becomes vector code.
    let mut bytes = [0; MOST];
    let (sums, pairs) = match (q.has_min, q.has_sub_scales()) {
        (false, _) => (0, 0),
        (true, false) => (q.groups() * width, 0),
        (true, true) => (0, q.periods() / 2 * width),
    };
    tile.sums.resize(sums, 0.0);
    tile.pairs.resize(pairs, 0);
    tile.outliers.clear();
    // Some groups of all tokens, then the next: so many quads stay in a first-level cache.
    let groups = (MOST / q.group).max(1);
    let spans = (0..q.k).step_by(groups * q.group);
    let part_of =
        |start: usize, part: usize| &x[part / q.parts() * q.k..][start..q.k.min(start + groups * q.group)];
    let mut places =
        spans.flat_map(|start| range.clone().enumerate().map(move |token| (start, token))).peekable();
    while let Some((start, (token, part))) = places.next() {
        let x = part_of(start, part);
        if let Some((start, (_, part))) = places.peek() {
            // Rows are too far apart for a CPU to see what is read next.
            part_of(*start, *part).chunks(LINE / size_of::<f32>()).for_each(|x| prefetch(x.as_ptr().cast()));
        }
        for (g, mut x) in (start / q.group..).zip(x.chunks(q.group)) {
            let mut scale = Scale::of(x, q.outliers);
            if !part.is_multiple_of(q.parts()) {
                let rest = &mut rest[..x.len()];
                scale.rest(x, rest);
                scale = Scale::of(rest, false);
                x = rest;
            } else if scale.largest > scale.limit {
                let outliers = x.iter().enumerate().filter(|(_, x)| x.abs() > scale.limit);
                let outlier = |(i, &value)| Outlier { input: g * q.group + i, token, value };
                tile.outliers.extend(outliers.map(outlier));
            }
            tile.scales[g * width + token] = scale.scale;
            let bytes = &mut bytes[..x.len().next_multiple_of(unit)];
            scale.quantize(x, bytes);
            shape.lay(bytes, &mut tile.quads[shape.at(g * (q.group / QUAD), token)..]);
            if q.offset == 0 && !q.has_min {
                continue;
            }
            for (period, bytes) in (g * (q.group / q.period)..).zip(bytes.chunks(q.period)) {
                let sum = bytes.iter().map(|&byte| i32::from(byte as i8)).sum::<i32>();
                let mut starts = tile.starts[period * in_period * width + token..].iter_mut().step_by(width);
                match parts {
                    Parts::Pairs(_) if q.offset == 0 => {}
                    Parts::Pairs(quads) => {
                        starts
                            .zip(bytes.chunks(quads * QUAD))
                            .for_each(|(to, bytes)| *to = pair(-q.offset, bytes));
                    }
                    Parts::Quads | Parts::Words => {
                        *starts.next().expect("a period's start") = -q.offset * sum
                    }
                }
                if let Some(to) = tile.sums.get_mut(g * width + token) {
                    *to = sum as f32 * scale.scale;
                }
                if let Some(to) = tile.pairs.get_mut(period / 2 * width + token) {
                    *to = if period % 2 == 0 { sum & 0xffff } else { *to | sum << 16 };
                }
            }
        }
    }
    tile.outliers.sort_by_key(|outlier| (outlier.input, outlier.token));
}

/// How the numbers of a group become quants.
struct Scale {
    /// What a quant is multiplied by: the largest magnitude but for outliers, over 127. If that is too small to
    /// divide by, 0; a group with an infinity or a NaN gets NaN, which every product with it then shows.
    scale: f32,
    /// The reciprocal, or 0.
    inverse: f32,
    /// The largest magnitude of all.
    largest: f32,
    /// The magnitude above which a number is an outlier.
    limit: f32,
}

impl Scale {
    #[inline(always)]
    fn of(x: &[f32], outliers: bool) -> Self {
        // Magnitudes compare as integers, and a NaN is the largest.
        let magnitude = |v: &f32| v.to_bits() & 0x7fff_ffff;
        let largest = f32::from_bits(x.iter().map(magnitude).fold(0, u32::max));
        let (mut limit, mut most) = (f32::INFINITY, largest);
        if outliers {
            let mean = sum(x, |x, s| s + x.abs()) / x.len() as f32;
            if (mean * OUTLIER).is_finite() && largest > mean * OUTLIER {
                limit = mean * OUTLIER;
                let bits = limit.to_bits();
                let inliers = x.iter().map(magnitude).map(|m| if m > bits { 0 } else { m });
                most = f32::from_bits(inliers.fold(0, u32::max));
            }
        }
        let inverse = 127.0 / most;
        let (scale, inverse) = match (most.is_finite(), inverse.is_finite()) {
            (false, _) => (f32::NAN, 0.0),
            (true, false) => (0.0, 0.0),
            (true, true) => (most / 127.0, inverse),
        };
        Self { scale, inverse, largest, limit }
    }

    /// What the quants leave of each number; of an outlier nothing.
    #[inline(always)]
    fn rest(&self, x: &[f32], rest: &mut [f32]) {
        for (rest, &v) in rest.iter_mut().zip(x) {
            let v = if v.abs() > self.limit { 0.0 } else { v };
            *rest = v - self.scale * f32::from(self.quant(v));
        }
    }

    /// The nearest quant, ties to even.
    #[inline(always)]
    fn quant(&self, v: f32) -> i8 {
        // Adding 1.5 · 2^23 leaves the nearest integer in the low bits. An inverse of zero makes zeros, also of
        // infinities and NaN, whose scale is NaN.
        (v * self.inverse + 12_582_912.0).to_bits() as i8
    }

    /// Writes the nearest quants, zero for outliers and past the end.
    #[inline(always)]
    fn quantize(&self, x: &[f32], bytes: &mut [u8]) {
        let (quants, rest) = bytes.split_at_mut(x.len());
        for (byte, &v) in quants.iter_mut().zip(x) {
            let v = if v.abs() > self.limit { 0.0 } else { v };
            *byte = self.quant(v) as u8;
        }
        rest.fill(0);
    }
}

/// `factor · Σ quant` of the first halves of quads in the low 16 bits, and of the second ones in the high.
#[inline(always)]
fn pair(factor: i32, bytes: &[u8]) -> i32 {
    let mut sums = [0; 2];
    for quad in bytes.as_chunks::<QUAD>().0 {
        let [a, b, c, d] = quad.map(|byte| i32::from(byte as i8));
        sums = [sums[0] + a + b, sums[1] + c + d];
    }
    (factor * sums[0]) & 0xffff | (factor * sums[1]) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_quantized_once_while_it_is_shared() {
        let (k, outliers, precise) = (32, false, false);
        let q = Quantization { k, period: k, group: k, offset: 0, has_min: false, outliers, precise };
        let (mut x, mut tokens) = (vec![1.0; k], Tokens::default());
        let scale = |tokens: &mut Tokens, x: &[f32], q: &Quantization| {
            tokens.quantize(Isa::best(), x, q, Shape::in_turn(1));
            tokens.tiles()[0].scales[0] * 127.0
        };
        let place = Some(x.as_ptr().addr()..x.as_ptr_range().end.addr());
        assert_eq!(tokens.share(place.clone()), None);
        assert_eq!(scale(&mut tokens, &x, &q), 1.0);
        // Unseen, though nobody should do it; but not by another format, nor after another input.
        x[0] = 2.0;
        assert_eq!(scale(&mut tokens, &x, &q), 1.0);
        assert_eq!(scale(&mut tokens, &x, &Quantization { outliers: true, ..q }), 2.0);
        x[0] = 3.0;
        assert_eq!(scale(&mut tokens, &[4.0; 32], &q), 4.0);
        assert_eq!(scale(&mut tokens, &x, &q), 3.0);
        // Another input at the same place, and one that is not shared.
        x[0] = 5.0;
        assert_eq!(tokens.share(place.clone()), place);
        assert_eq!(scale(&mut tokens, &x, &q), 5.0);
        tokens.share(None);
        for largest in [6.0, 7.0] {
            x[0] = largest;
            assert_eq!(scale(&mut tokens, &x, &q), largest);
        }
    }
}
