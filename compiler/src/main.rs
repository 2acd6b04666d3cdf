//! The `tvlmc` command.
fn main() {}
