//! The `cloakroom` command: arguments in, exit code out.

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use tikv_jemallocator::Jemalloc;

/// With copies of many sessions beside what requests need, the C library's allocator gets
/// slow.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cloakroom::cli::main()
}
