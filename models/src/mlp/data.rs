//! A table made ready to learn from: what it holds, and which rows are kept for validation.

use candle_engine::text::sampler::SplitMix64;
use candle_engine::{Error, Result};

use super::encode::Encoded;
use super::infer::Hints;
use super::schema::Schema;
use super::table::Table;

/// A table made ready to learn from.
#[derive(Debug, Clone)]
pub struct Data {
    /// What its columns are.
    pub schema: Schema,
    /// All rows.
    pub rows: Encoded,
    /// Numbers of the rows to learn from.
    pub train: Vec<usize>,
    /// Numbers of the rows to measure on.
    pub validation: Vec<usize>,
}

impl Data {
    /// Finds what the columns are and sets a share of the rows aside, drawn by the seed.
    ///
    /// A share above 0 is one row at least.
    ///
    /// Errors: `Input` if the share leaves nothing to learn from, and as [`Schema::infer`].
    pub fn new(table: &Table, hints: &Hints, share: f64, seed: u64) -> Result<Self> {
        let count = table.rows();
        let aside = ((count as f64 * share).round() as usize).max(usize::from(share > 0.0));
        if aside >= count {
            return Err(Error::Input(format!(
                "{}: {share} of {count} rows for validation leaves none to learn from",
                table.source
            )));
        }
        let mut train: Vec<usize> = (0..count).collect();
        shuffle(&mut train, &mut SplitMix64::new(seed));
        let mut validation = train.split_off(count - aside);
        // In the table's order, so that reading goes forward.
        train.sort_unstable();
        validation.sort_unstable();
        let schema = Schema::infer(table, hints, &train)?;
        let rows = Encoded::new(&schema, table, true)?;
        Ok(Self { schema, rows, train, validation })
    }
}

/// Fisher and Yates's shuffle.
pub(super) fn shuffle(rows: &mut [usize], rng: &mut SplitMix64) {
    for i in (1..rows.len()).rev() {
        // The bias of the remainder is below one in 2³² for any table that fits in memory.
        rows.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
}
