//! Models on OS threads of their own, fed by dynamic batching across streams.
