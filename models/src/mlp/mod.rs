//! Feed-forward networks for the rows of tables: read, train, save, load, predict.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use candle_engine_models::mlp::{Architecture, Data, FitOptions, Hints, Mlp, Table};
//!
//! # fn main() -> candle_engine_models::Result<()> {
//! let rows: String = (0..40).map(|i| format!("{},{}\n", i, if i < 20 { "low" } else { "high" })).collect();
//! let table = Table::from_bytes(format!("x,size\n{rows}").as_bytes(), "sizes.csv")?;
//! let data = Data::new(&table, &Hints::default(), 0.2, 7)?;
//! let mut mlp = Mlp::new(data.schema.clone(), Architecture::default(), 7)?;
//! let options = FitOptions { batch_size: 8, lr: 0.01, ..FitOptions::default() };
//! mlp.fit(&data, &options, &mut |_| ControlFlow::Continue(()))?;
//! assert!(mlp.evaluate(&table)?.score() > 0.9);
//! # Ok(())
//! # }
//! ```

mod data;
mod encode;
mod fit;
mod infer;
mod integers;
mod model;
mod network;
mod read;
mod report;
mod run;
mod schema;
mod table;

pub use candle_engine::train::{Method, Pointwise};

pub use self::data::Data;
pub use self::encode::Encoded;
pub use self::fit::{Decay, End, Epoch, Event, Fit, FitOptions};
pub use self::infer::{Hints, Task};
pub use self::model::{Mlp, Prediction, MODEL_TYPE};
pub use self::network::{Act, Architecture, Norm};
pub use self::report::{Class, Measures, Report};
pub use self::schema::{Input, Kind, Schema, Target};
pub use self::table::Table;

pub(crate) use self::model::Config;
