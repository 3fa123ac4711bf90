//! The edits of `ext4/`, judged by e2fsprogs: the same layouts edited by tune2fs(8) and by us and compared byte by byte,
//! checked by e2fsck(8), undone by each other, cut after every write, and refused. No root is needed. Tools that are
//! missing are a skip, said loudly, unless `MMPGUARD_REQUIRE_TOOLS=1` says that everything must run.

#[path = "../images/mod.rs"]
mod golden;

mod compare;
mod cuts;
mod images;
mod layouts;
mod memory;
mod refused;
