//! What does a steering decision cost?

fn main() {
    benches::main(benches::steering::run);
}
