//! The `gateway` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gateway::app::heap::prefer_small_pages();
    gateway::cli::main()
}
