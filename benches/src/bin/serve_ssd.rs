//! What do slices from a device cost?

fn main() {
    benches::main(benches::serve_ssd::run);
}
