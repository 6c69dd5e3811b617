//! Log-probabilities, by the vector kernels: at 50 000 tokens a step, exponentials one by one would cost a tenth of it.

use candle_engine::kernels::act::log_sum_exp;
use candle_engine::{Error, Result};

/// What is subtracted from logits to make them log-probabilities: ln Σ exp(x).
///
/// Errors: `Input` if a logit is NaN, or none is above −∞.
pub(super) fn log_total(logits: &[f32]) -> Result<f64> {
    match log_sum_exp(logits) {
        total if total.is_finite() => Ok(total),
        _ => Err(Error::Input("the logits hold NaN, infinity, or nothing that may come".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.02 - 5.0).collect();
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        assert!((log_total(&logits).unwrap() - total).abs() < 1e-5);
        assert_eq!(log_total(&[f32::NEG_INFINITY, 3.0]).unwrap(), 3.0);
        for wrong in [&[f32::NAN, 1.0][..], &[f32::NEG_INFINITY; 3], &[f32::INFINITY, 0.0], &[]] {
            assert!(log_total(wrong).is_err(), "{wrong:?}");
        }
    }
}
