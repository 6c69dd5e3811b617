//! What families share: attention, feed-forward layer, norm, rotary embedding.

mod attention;
mod mlp;
mod norm;
mod rope;

pub use self::attention::Attention;
pub use self::mlp::Mlp;
pub use self::norm::RmsNorm;
pub use self::rope::{RopeConfig, Scaling, Yarn};
pub use candle_engine::ops::Act;
