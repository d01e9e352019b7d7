//! The `remit` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    remit_cli::args::main(std::env::args_os())
}
