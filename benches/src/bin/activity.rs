//! What do events of viewers cost?

fn main() {
    benches::main(benches::activity::run);
}
