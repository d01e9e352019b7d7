//! Mean loss on text that is not trained on.

use crate::step::Trainer;
use remit_batch::Batch;
use remit_corpus::Windows;

/// Mean next-token loss, in nats a token, over the first `limit` windows (0 for all).
pub(crate) fn loss(
    trainer: &mut Trainer,
    windows: &Windows,
    limit: u64,
    micro_batch: usize,
    mask_documents: bool,
) -> f64 {
    let count = if limit == 0 { windows.len() } else { limit.min(windows.len()) };
    let (mut sum, mut tokens) = (0.0, 0u64);
    for first in (0..count).step_by(micro_batch) {
        let part: Vec<_> =
            (first..count.min(first + micro_batch as u64)).map(|index| windows.window(index)).collect();
        let batch = Batch::stack(&part, mask_documents);
        let log_probs = trainer.log_probs(&batch);
        for (log_prob, _) in log_probs.iter().zip(&batch.mask).filter(|(_, counts)| **counts) {
            sum -= f64::from(*log_prob);
            tokens += 1;
        }
    }
    sum / tokens as f64
}
