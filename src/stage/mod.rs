//! The stage contract: traits, kinds, queues, joins, and the ledger.
