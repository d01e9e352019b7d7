//! Names and bytes to disk, atomically: checkpoints, manifests, scores
