//! The `remit` program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: remit_cli::out_of_memory::Allocator = remit_cli::out_of_memory::Allocator;

fn main() -> ExitCode {
    remit_cli::args::main(std::env::args_os())
}
