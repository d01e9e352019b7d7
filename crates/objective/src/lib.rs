//! Log-probabilities to token weights to loss and its derivative
