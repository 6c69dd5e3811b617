//! Any bytes as a table to learn from: an error, or columns that are understood, and rows that they describe.
#![no_main]

use candle_engine_models::mlp::{Data, Hints, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(table) = Table::from_bytes(data, "fuzz") else { return };
    // What a few bytes claim, or unpack to, must not take memory out of all proportion.
    assert!(table.rows() * table.columns().len() <= (64 << 20));
    let Ok(data) = Data::new(&table, &Hints::default(), 0.25, 1) else { return };
    assert_eq!(data.train.len() + data.validation.len(), table.rows());
});
