//! Neural networks in tch, from folders in Hugging Face layout; synchronous, they know nothing of tokio, YAML or metrics.
