//! Benches of printed kernels, and the comparison with peers.
//!
//! `cargo bench -p benches` times kernels at the sizes of the 1024 x 1024 tower and of the 0.5B decoder, next to
//! the peaks of this machine. `cargo xtask bench` times the whole vision tower beside ONNX Runtime, `cargo xtask
//! bench-peers` every phase beside every peer. Benches report; they do not assert.
