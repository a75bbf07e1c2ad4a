//! What does it cost to check a token?

fn main() {
    benches::main(benches::token::run);
}
