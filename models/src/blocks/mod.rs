//! What families share: attention, feed-forward layer, norms, rotary embedding.

mod attention;
mod mlp;
mod norm;
mod rope;

pub use self::attention::{Attention, CrossAttention, Projections};
pub use self::mlp::Mlp;
pub use self::norm::{LayerNorm, RmsNorm};
pub use self::rope::{RopeConfig, Scaling, Yarn};
pub use candle_engine::ops::Act;

use candle_core::Tensor;
use candle_engine::kv::Batch;
use candle_engine::Result;

/// The rows of `x [t, n]` whose logits a batch wants.
pub fn wanted_rows(x: Tensor, batch: &Batch) -> Result<Tensor> {
    let rows = batch.logit_rows();
    if rows.len() == batch.rows() {
        return Ok(x);
    }
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    let count = rows.len();
    Ok(x.index_select(&Tensor::from_vec(rows, count, x.device())?, 0)?)
}
