//! The join: one side drives, points of the collected sides inside its spans are gathered, and it emits when every collected side has
//! passed the span's end, or after a wait.
