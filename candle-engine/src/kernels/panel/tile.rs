//! Activations as 8-bit integers, in the order in which the kernels take them.

use crate::kernels::lanes::{per_isa, sum, Arith};
use crate::kernels::threads::parallel_chunks;
use crate::kernels::Isa;

use super::{QUAD, UNIT};

/// Tokens of a tile.
pub const TILE: usize = 12;

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
    /// Numbers under one scale of the activations: a multiple of the period.
    pub group: usize,
    /// What is taken from every quant of the weights.
    pub offset: i32,
    /// Whether the weights have mins.
    pub has_min: bool,
    /// Whether outliers are multiplied apart.
    pub outliers: bool,
}

impl Quantization {
    /// `k`, up to a whole unit.
    pub fn padded(&self) -> usize {
        self.k.next_multiple_of(UNIT)
    }

    /// Periods of a row.
    pub fn periods(&self) -> usize {
        self.k.div_ceil(self.period)
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

/// Up to [`TILE`] tokens, interleaved.
#[derive(Default)]
pub struct Tile {
    /// How many tokens there are.
    pub len: usize,
    /// Four quants of each token: `[k / QUAD][TILE]`
    pub quads: Vec<[i32; TILE]>,
    /// `[periods]`
    pub scales: Vec<[f32; TILE]>,
    /// `−offset · Σ quant`: where a period's integer sum starts. `[periods]`
    pub starts: Vec<[i32; TILE]>,
    /// `scale · Σ quant`, `[periods]`; nothing if the weights have no mins.
    pub sums: Vec<[f32; TILE]>,
    /// By input, then by token.
    pub outliers: Vec<Outlier>,
}

/// Quantized rows of activations.
#[derive(Default)]
pub struct Tokens {
    tiles: Vec<Tile>,
    len: usize,
}

impl Tokens {
    /// Quantizes `x`, rows of `k`, into the buffers that are there.
    pub fn quantize(&mut self, isa: Isa, x: &[f32], q: &Quantization) {
        assert!(q.group.is_multiple_of(q.period), "{q:?}");
        self.len = x.len() / q.k;
        self.tiles.resize_with(self.len.div_ceil(TILE).max(self.tiles.len()), Tile::default);
        let tiles = &mut self.tiles[..self.len.div_ceil(TILE)];
        parallel_chunks(tiles, 1, |i, tile| {
            let rows = &x[i * TILE * q.k..x.len().min((i + 1) * TILE * q.k)];
            fill(isa, &mut tile[0], rows, q);
        });
    }

    /// The tiles; all but the last are full.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles[..self.len.div_ceil(TILE)]
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.len
    }
}

fn fill(isa: Isa, tile: &mut Tile, x: &[f32], q: &Quantization) {
    per_isa!(isa, fill_tile, (tile: &mut Tile, x: &[f32], q: &Quantization));
}

#[inline(always)]
fn fill_tile(_: impl Arith, tile: &mut Tile, x: &[f32], q: &Quantization) {
    tile.len = x.len() / q.k;
    tile.quads.resize(q.padded() / QUAD, [0; TILE]);
    tile.scales.resize(q.periods(), [0.0; TILE]);
    tile.starts.resize(q.periods(), [0; TILE]);
    tile.sums.resize(if q.has_min { q.periods() } else { 0 }, [0.0; TILE]);
    tile.outliers.clear();
    let mut quants = [0; UNIT];
    for (t, x) in x.chunks_exact(q.k).enumerate() {
        for (g, x) in x.chunks(q.group).enumerate() {
            let (scale, inverse, limit) = group_scale(x, q.outliers);
            let mut sum = 0;
            for (u, x) in x.chunks(UNIT).enumerate() {
                let input = g * q.group + u * UNIT;
                quantize_unit(x, inverse, limit, &mut quants);
                let quads = quants.as_chunks::<QUAD>().0;
                for (to, quad) in tile.quads[input / QUAD..].iter_mut().zip(quads) {
                    to[t] = i32::from_le_bytes(quad.map(|q| q as u8));
                }
                if limit < f32::INFINITY {
                    let outliers = x.iter().enumerate().filter(|(_, x)| x.abs() > limit);
                    tile.outliers.extend(outliers.map(|(i, &value)| Outlier {
                        input: input + i,
                        token: t,
                        value,
                    }));
                }
                // A period is a part of a unit or whole units.
                for (i, quants) in quants.chunks(q.period.min(UNIT)).enumerate() {
                    let at = input + i * q.period;
                    if at % q.period == 0 {
                        sum = 0;
                    }
                    sum += quants.iter().map(|&q| i32::from(q)).sum::<i32>();
                    if at >= q.k {
                        break;
                    }
                    tile.starts[at / q.period][t] = -q.offset * sum;
                    tile.scales[at / q.period][t] = scale;
                    if let Some(sums) = tile.sums.get_mut(at / q.period) {
                        sums[t] = sum as f32 * scale;
                    }
                }
            }
        }
    }
    tile.outliers.sort_by_key(|outlier| (outlier.input, outlier.token));
}

/// `scale`, `1 / scale` and the magnitude above which a number is an outlier.
///
/// `scale = max |x| / 127`. Zero, or too small to divide by, is 0; a group with an infinity or a NaN gets a
/// scale of NaN, which every product with it then shows.
#[inline(always)]
fn group_scale(x: &[f32], outliers: bool) -> (f32, f32, f32) {
    let mut limit = f32::INFINITY;
    if outliers {
        let mean = sum(x, |x, s| s + x.abs()) / x.len() as f32;
        if (mean * OUTLIER).is_finite() {
            limit = mean * OUTLIER;
        }
    }
    let bits = limit.to_bits();
    // Magnitudes compare as integers, and a NaN is the largest.
    let mut largest = 0;
    for v in x {
        let magnitude = v.to_bits() & 0x7fff_ffff;
        largest = largest.max(if magnitude > bits && limit < f32::INFINITY { 0 } else { magnitude });
    }
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return (f32::NAN, 0.0, limit);
    }
    let inverse = 127.0 / largest;
    if inverse.is_finite() {
        (largest / 127.0, inverse, limit)
    } else {
        (0.0, 0.0, limit)
    }
}

/// `x · inverse` to the nearest, ties to even; zero for outliers and beyond the end of `x`.
#[inline(always)]
fn quantize_unit(x: &[f32], inverse: f32, limit: f32, quants: &mut [i8; UNIT]) {
    let mut padded = [0.0; UNIT];
    let x = match x.try_into() {
        Ok(whole) => whole,
        Err(_) => {
            padded[..x.len()].copy_from_slice(x);
            &padded
        }
    };
    for (q, &v) in quants.iter_mut().zip::<&[f32; UNIT]>(x) {
        let v = if v.abs() > limit { 0.0 } else { v };
        // Adding 1.5 · 2^23 leaves the nearest integer in the low bits. An inverse of zero makes zeros, but
        // for infinities and NaN, whose scale is NaN.
        *q = (v * inverse + 12_582_912.0).to_bits() as i8;
    }
}

/// Quantizes one group of a row, for the specification: its scale and its outliers' places.
pub fn quantize_group(x: &[f32], outliers: bool, quants: &mut [i8]) -> (f32, Vec<usize>) {
    let (scale, inverse, limit) = group_scale(x, outliers);
    for (x, to) in x.chunks(UNIT).zip(quants.chunks_mut(UNIT)) {
        let mut quants = [0; UNIT];
        quantize_unit(x, inverse, limit, &mut quants);
        to.copy_from_slice(&quants[..to.len()]);
    }
    (scale, (0..x.len()).filter(|&i| x[i].abs() > limit).collect())
}
