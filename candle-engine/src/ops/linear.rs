//! Products with matrices that lie in mapped files, and what is fused with them.

use candle_core::Tensor;

use super::{tensor, with_slice, Act, Exec};
use crate::kernels::embed::gather;
use crate::kernels::matmul::{matmul, matmul_gated, Dense, DenseFormat};
use crate::kernels::{act, blocks, unwritten, Isa};
use crate::weights::{Format, Stored};
use crate::{Error, Result};

/// Multiplies by a mapped matrix, dense or in a block format.
///
/// y = x · Wᵀ + b
///
/// Shapes: `x [.., k]`, `w [n, k]`, `bias [n]` → `[.., n]`. Accumulates in f32; block formats quantize `x` to 8 bits.
/// Errors: `Tensor` if the weight is in no format that a kernel reads; candle's, if the shapes disagree.
pub fn linear(x: &Tensor, w: &Stored, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, k) = matrix(w)?;
    if w.format.is_dense() {
        let w = dense(w)?;
        return product(x, (n, k), |x, y| with_bias(bias, |bias| matmul(x, &w, bias, y)));
    }
    readable(w)?;
    product(x, (n, k), |x, y| {
        blocks::matmul(Isa::best(), w.format, &w.bytes, k, x, y);
        with_bias(bias, |bias| {
            if let Some(bias) = bias {
                y.chunks_exact_mut(n).for_each(|row| act::add(row, bias));
            }
        })
    })
}

/// The two upper matrices of a gated feed-forward layer, both dense, or both in one block format and without bias.
///
/// y = act(x · Gᵀ + g) · (x · Uᵀ + u)
///
/// Shapes: `x [.., k]`, both matrices `[n, k]`, both biases `[n]` → `[.., n]`. Accumulates in f32.
/// Errors: as [`linear`]; `Tensor` for other pairs.
pub fn linear_gated(
    x: &Tensor,
    act: Act,
    [g, u]: [&Stored; 2],
    [gb, ub]: [Option<&Tensor>; 2],
) -> Result<Tensor> {
    let shape = matrix(g)?;
    if blocks::supports(g.format) {
        if matrix(u)? != shape || u.format != g.format || gb.is_some() || ub.is_some() {
            let what = format!("expected what `{}` is, {} {shape:?}, without biases", g.name, g.format);
            return Err(Error::Tensor { name: u.name.clone(), what });
        }
        return product(x, shape, |x, y| {
            let both = [&g.bytes[..], &u.bytes[..]];
            blocks::matmul_gated(Isa::best(), g.format, both, act, shape.1, x, y);
            Ok(())
        });
    }
    let (g, u) = (dense(g)?, dense(u)?);
    product(x, shape, |x, y| {
        with_bias(gb, |gb| with_bias(ub, |ub| matmul_gated(x, (g, gb), (u, ub), act, y)))?
    })
}

/// act(gate) · up, element by element.
///
/// Shapes: both the same, and so is the result.
/// Errors: candle's, if the shapes disagree.
pub fn gate(exec: &Exec, act: Act, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if !exec.is_fused() {
        let activated = match act {
            Act::Silu => gate.silu()?,
            Act::Gelu => gate.gelu_erf()?,
            Act::GeluTanh => gate.gelu()?,
            Act::Relu => gate.relu()?,
        };
        return Ok((activated * up)?);
    }
    if gate.shape() != up.shape() {
        return Err(disagree("gate", gate.dims(), up.dims()));
    }
    let mut y = with_slice(gate, <[f32]>::to_vec)?;
    with_slice(up, |up| act::act_mul(act, &mut y, up))?;
    tensor(y, gate.shape())
}

/// Rows of a table by index, widened to f32.
///
/// Shapes: `table [n, k]`, `ids [t]` → `[t, k]`.
/// Errors: `Input` for an index that the table has not; `Tensor` if it is in no format that a kernel reads.
pub fn embed(table: &Stored, ids: &[u32]) -> Result<Tensor> {
    let (rows, width) = matrix(table)?;
    check_ids(ids, rows)?;
    let mut y = unwritten(ids.len() * width);
    if table.format.is_dense() {
        gather(&dense(table)?, ids, &mut y);
    } else {
        readable(table)?;
        let row_bytes = table.bytes.len() / rows;
        for (&id, y) in ids.iter().zip(y.chunks_exact_mut(width)) {
            blocks::dequantize(table.format, &table.bytes[id as usize * row_bytes..][..row_bytes], y);
        }
    }
    tensor(y, (ids.len(), width))
}

pub(super) fn check_ids(ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => Err(Error::Input(format!("token id {id}: the embedding has {rows} rows"))),
        None => Ok(()),
    }
}

/// Whether the kernels read this format.
pub const fn reads(format: Format) -> bool {
    format.is_dense() || blocks::supports(format)
}

fn readable(stored: &Stored) -> Result<()> {
    if reads(stored.format) {
        return Ok(());
    }
    let what = format!("{} is not a weight format", stored.format);
    Err(Error::Tensor { name: stored.name.clone(), what })
}

pub(super) fn product(
    x: &Tensor,
    (n, k): (usize, usize),
    run: impl FnOnce(&[f32], &mut [f32]) -> Result<()>,
) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(k) {
        return Err(disagree("linear", x.dims(), &[n, k]));
    }
    shape.push(n);
    let mut y = unwritten(shape.iter().product());
    with_slice(x, |x| run(x, &mut y))??;
    tensor(y, shape)
}

pub(super) fn with_bias<R>(bias: Option<&Tensor>, f: impl FnOnce(Option<&[f32]>) -> R) -> Result<R> {
    match bias {
        Some(bias) => with_slice(bias, |bias| f(Some(bias))),
        None => Ok(f(None)),
    }
}

fn dense(stored: &Stored) -> Result<Dense<'_>> {
    let (rows, cols) = matrix(stored)?;
    let format = match stored.format {
        Format::F32 => DenseFormat::F32,
        Format::F16 => DenseFormat::F16,
        Format::BF16 => DenseFormat::BF16,
        other => {
            let what = format!("expected F32, F16 or BF16, got {other}");
            return Err(Error::Tensor { name: stored.name.clone(), what });
        }
    };
    Ok(Dense::new(&stored.bytes, format, rows, cols))
}

fn matrix(stored: &Stored) -> Result<(usize, usize)> {
    match stored.shape[..] {
        [rows, cols] => Ok((rows, cols)),
        _ => {
            let what = format!("expected a matrix, got shape {:?}", stored.shape);
            Err(Error::Tensor { name: stored.name.clone(), what })
        }
    }
}

fn disagree(op: &'static str, lhs: &[usize], rhs: &[usize]) -> Error {
    candle_core::Error::ShapeMismatchBinaryOp { lhs: lhs.into(), rhs: rhs.into(), op }.into()
}
