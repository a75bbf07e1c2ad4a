//! What does one control take?

fn main() {
    benches::main(benches::control::run);
}
