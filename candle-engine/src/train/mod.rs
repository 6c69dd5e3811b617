//! Training of small networks: a graph recorded once from layer code, then replayed.
//!
//! [`Graph`] records what a network does with a batch of one shape; [`Graph::training`] turns that into a [`Plan`] in
//! which every buffer is allocated and every choice made. A step of the plan runs forward, backward and the
//! optimizer's update, allocates nothing, and gives the same bits for any number of threads.
//!
//! ```
//! use candle_engine::train::{Activation, Graph, Linear, Optimizer, Params};
//!
//! # fn main() -> candle_engine::Result<()> {
//! let mut params = Params::new(7);
//! let hidden = Linear::new(&mut params, "hidden", 2, 16)?;
//! let out = Linear::new(&mut params, "out", 16, 2)?;
//!
//! let mut graph = Graph::new();
//! let (x, labels) = (graph.input("x", 4, 2), graph.ids("labels", 4));
//! let h = hidden.forward(&mut graph, x)?;
//! let h = graph.activation(h, Activation::Tanh);
//! let logits = out.forward(&mut graph, h)?;
//! let loss = graph.cross_entropy(logits, labels, Default::default())?;
//!
//! let mut plan = graph.training(loss, &params)?;
//! let mut optimizer = Optimizer::adam(0.05);
//! plan.input_mut(x).copy_from_slice(&[0., 0., 0., 1., 1., 0., 1., 1.]);
//! plan.ids_mut(labels).copy_from_slice(&[0, 1, 1, 0]);
//! for _ in 0..200 {
//!     plan.step(&mut params, &mut optimizer)?;
//! }
//! assert!(plan.loss() < 0.05);
//! # Ok(())
//! # }
//! ```

mod audit;
mod backward;
mod compile;
mod forward;
mod graph;
mod init;
mod layers;
mod optimizer;
mod params;
mod plan;
mod schedule;

pub use crate::kernels::train::{Activation, CrossEntropy, Pointwise};
pub use audit::Audit;
pub use graph::{Graph, Ids, Loss, Var};
pub use init::Init;
pub use layers::{BatchNorm, Embedding, LayerNorm, Linear};
pub use optimizer::{Method, Optimizer};
pub use params::{ParamId, Params};
pub use plan::Plan;
pub use schedule::Schedule;
