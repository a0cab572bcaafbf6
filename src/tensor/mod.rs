//! Devices, number formats, and frames as tensors.
