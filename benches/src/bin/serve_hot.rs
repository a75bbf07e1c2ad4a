//! What does one core of an edge cost, beside other servers?

use std::process::ExitCode;

fn main() -> ExitCode {
    benches::peers::main()
}
