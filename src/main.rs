//! The `violetd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    violetd::cli::main(std::env::args_os())
}
