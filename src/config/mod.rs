//! The pipeline's YAML as a tree with a span at every node, its variables filled in; knows no stage kinds.
