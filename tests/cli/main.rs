//! The command line as its users meet it: exit codes, what is said, what is never written, and `run` around a command.
//! No root is needed, but where a test says so; those skip loudly without, unless `MMPGUARD_REQUIRE_ROOT=1` makes
//! that a failure.

mod areas;
mod arguments;
mod clear;
mod clear_asked;
mod demo;
mod fence;
mod guarded;
mod helper;
#[path = "../images/mod.rs"]
#[allow(dead_code)] // not all of it is asked for here
mod images;
mod monitor;
mod native;
mod refusals;
mod reports;
mod run;
mod scan;
mod support;
mod terminal;
