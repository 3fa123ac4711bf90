//! Who beats a block. Protects nothing: it is what others are told of a guard.

/// Who beats the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nobody of ours yet.
    Claiming,
    /// The kernel is about to: it mounts.
    Expecting,
    /// The kernel, and we watch it.
    Watching,
    /// We, because the kernel cannot while its filesystem is frozen.
    Bridging,
    /// We.
    Beating,
    /// Nobody any more.
    Over,
}
