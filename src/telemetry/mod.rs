//! Logs, metric names, and samples of the host and the GPU.
