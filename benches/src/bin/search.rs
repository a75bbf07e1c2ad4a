//! `cargo run --release -p benches --bin search [--small] [--json]`, or `-- --write-lists DIR` to draw the list of queries anew.

use std::{env, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [flag, dir] = args.as_slice() else {
        benches::main(benches::search::run);
        return ExitCode::SUCCESS;
    };
    if flag != "--write-lists" {
        eprintln!("{flag:?} is not known; --write-lists DIR draws the list of queries anew");
        return ExitCode::from(2);
    }
    match benches::search::write_lists(Path::new(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the lists to {dir}: {error}");
            ExitCode::FAILURE
        }
    }
}
