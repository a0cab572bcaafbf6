//! The engine under test: queues, lanes, joins, receipts, drain and deadline, with made-up stages
//! that write down all they see.

mod acts;
mod behaviour;
mod endings;
mod failures;
mod lab;
mod properties;
mod spec;
mod verdict;
