//! tailbeam
fn main() {}
