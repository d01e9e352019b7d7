//! Gradient to new parameters: AdamW, clipping, schedules
