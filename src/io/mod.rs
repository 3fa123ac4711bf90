//! The device: `O_DIRECT`, aligned locked buffers.
//!
//! Protects: what is read comes from the disk and not from a page cache; what follows the struct in its block, and
//! every other block, keeps its bytes; nothing is opened for writing before [`BlockStore::open_for_writing`]; a
//! watcher keeps no descriptor, which would keep a stale page cache alive; a path that names another node than the
//! one that was inspected is refused. Does not protect: *whether* a block may be written is `protocol`'s business,
//! and a checksum mismatch is the caller's, who knows the seed ([`read_settled`] does the waiting).
//!
//! | module | what |
//! |---|---|
//! | `device` | [`Device`]: what a path is, learnt once, no descriptor kept |
//! | `node` | opening it again, and being sure that it is still the same |
//! | `direct` | where a file allows `O_DIRECT`, and where it must |
//! | `read_at` | [`ReadAt`]: whatever is read as a device is |
//! | `reader` | [`Reader`]: a device that is open for several reads of one look |
//! | `block_file` | [`BlockFile`]: the MMP block of a native filesystem |
//! | `slot_file` | [`SlotFile`]: a slot of an area, with its entry and the area's headers |
//! | `writer` | [`BlockWriter`]: blocks of an area that no beat writes |
//! | `editor` | [`Editor`]: any bytes of a device, for the edits of `ext4` |
//! | `look` | a descriptor for one look |
//! | `transfer` | whole reads and whole writes |
//! | `cache` | [`Device::flush`] and [`Device::drop_cache`]: the page cache of the node that is used |
//! | `arena` | [`Arena`]: aligned, locked memory |
//! | `mem` | [`MemStore`]: several stores over the same bytes in memory; [`MemImage`]: bytes that are read as a device is |

mod arena;
mod block_file;
mod cache;
mod device;
mod direct;
mod editor;
mod ioctl;
mod look;
mod mem;
mod node;
mod read_at;
mod reader;
mod settle;
mod slot_file;
mod store;
mod transfer;
mod writer;

pub use arena::Arena;
pub use block_file::BlockFile;
pub use cache::FLUSH;
pub use device::Device;
pub use editor::Editor;
pub use mem::{MemImage, MemStore, SharedImage};
pub use node::DeviceKind;
pub(crate) use node::{find, kernel_refuses_mounted_writes};
pub use read_at::ReadAt;
pub use reader::{ReadBuffer, Reader};
pub use settle::read_settled;
pub use slot_file::SlotFile;
pub use store::{BlockStore, Durability};
pub use writer::BlockWriter;
