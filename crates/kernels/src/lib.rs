//! The fused operations of a decoder on the CPU, forward and backward
