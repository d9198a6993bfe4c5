//! SPF on the bench.
