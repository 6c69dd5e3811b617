//! Weights: mapped files, never copied on the CPU.
