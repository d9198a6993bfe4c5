//! The daemon `mtpolicyd`: reads the command line and does what it asks for.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mtpolicyd::cli::run()
}
