//! What turns log-probabilities into the derivative of a loss.

/// A loss over the predictions of a batch, known by its derivative. An engine calls it with numbers and gets numbers
/// back, so it works the same wherever the model runs.
///
/// With `z` the logits of a prediction, `lse = log sum_v exp(z_v)` and `y` its target, the log-probability is
/// `z_y - lse`. Every objective but distillation depends on the logits through these two numbers alone.
pub trait Rule {
    /// Writes the derivatives of the predictions from row `first` on. Rows come in order, whole windows at a time.
    ///
    /// All slices hold the same `[N]` rows. `d_log_probs` is the derivative of the loss with respect to `log_probs`,
    /// `d_lse` with respect to `lse` (0 without z-loss); both arrive as zeros.
    fn differentiate(
        &mut self,
        first: usize,
        log_probs: &[f32],
        lse: &[f32],
        d_log_probs: &mut [f32],
        d_lse: &mut [f32],
    );
}
