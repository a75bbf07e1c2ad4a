//! How even is placement, what does a change move, what does a look-up cost?

fn main() {
    benches::main(benches::placement::run);
}
