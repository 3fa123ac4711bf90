//! The device: `O_DIRECT`, aligned locked buffers.
