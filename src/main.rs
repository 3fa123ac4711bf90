//! The `mmp` command: parse, run, exit code.

fn main() -> std::process::ExitCode {
    mmpguard::cli::main()
}
