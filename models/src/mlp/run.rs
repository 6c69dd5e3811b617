//! Running a network over many rows.

use candle_engine::train::{Graph, Params, Plan};
use candle_engine::Result;

use super::encode::Encoded;
use super::network::{Network, Recorded};

/// Rows that are computed at once.
pub(super) const BATCH: usize = 256;

/// The outputs for some rows, `[rows, outputs]`. Those of a row do not depend on the others.
pub(super) fn outputs(
    network: &Network,
    params: &Params,
    data: &Encoded,
    rows: &[usize],
) -> Result<Vec<f32>> {
    let mut graph = Graph::new();
    let recorded = network.record(&mut graph, rows.len().clamp(1, BATCH))?;
    let width = graph.shape(recorded.output).1;
    let mut plan = graph.inference(None);
    let mut all = Vec::with_capacity(rows.len() * width);
    for rows in rows.chunks(BATCH) {
        // What is left of the batch before computes in vain at the end.
        fill(&mut plan, &recorded, data, rows.iter().copied());
        plan.run(params)?;
        all.extend_from_slice(&plan.rows(recorded.output)?[..rows.len() * width]);
    }
    Ok(all)
}

/// Writes rows into a plan's inputs.
pub(super) fn fill(
    plan: &mut Plan,
    recorded: &Recorded,
    data: &Encoded,
    rows: impl Iterator<Item = usize> + Clone,
) {
    if let Some(dense) = recorded.dense {
        let width = data.dense.len() / data.rows;
        let to = plan.input_mut(dense).chunks_exact_mut(width);
        to.zip(rows.clone()).for_each(|(to, row)| to.copy_from_slice(&data.dense[row * width..][..width]));
    }
    for (ids, entries) in recorded.entries.iter().zip(&data.entries) {
        plan.ids_mut(*ids).iter_mut().zip(rows.clone()).for_each(|(id, row)| *id = entries[row]);
    }
}
