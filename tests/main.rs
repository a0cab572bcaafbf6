//! The integration tests, in one binary. Those that need a service take its address from the
//! environment, as `ops/test` sets it.

mod benches;
mod cache;
mod captions;
mod cli;
mod config;
mod diffuse;
mod docs;
mod engine;
mod golden {
    mod film_cuts;
}
mod house;
mod live;
mod outage;
mod overload;
mod records;
mod support;
mod transcribe;
