//! One step, then many: pre-training and mid-training
