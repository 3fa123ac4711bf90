//! The MMP block as it stands on the disk, read and written with `O_DIRECT` beside every host, and a thread that
//! records each change of it.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mmpguard::Place;
use mmpguard::clock::{self, Mono};
use mmpguard::format::superblock::SUPERBLOCK_OFFSET_BYTES;
use mmpguard::format::{ChecksumSeed, Image, MMP_STRUCT_BYTES, MmpBlock, Superblock};
use mmpguard::io::Arena;
use nix::libc::O_DIRECT;

/// What direct I/O is aligned to: enough for every disk.
const WINDOW: usize = 4096;

/// Where the block is.
pub(crate) struct RawBlock {
    file: File,
    /// None in an area.
    superblock: Option<Superblock>,
    seed: Option<ChecksumSeed>,
    /// From the start of the image, in bytes.
    pub(crate) offset: usize,
}

/// One state of the block.
#[derive(Clone)]
pub(crate) struct Sample {
    /// It was first seen then.
    pub(crate) at: Mono,
    pub(crate) block: MmpBlock,
    image: Image,
}

/// Without the bytes, which say nothing to a reader.
impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MmpBlock { seq, node, device, .. } = &self.block;
        write!(f, "{:.3} s: {seq:#x} {node} {device}", self.at.since(Mono(0)).as_secs_f64())
    }
}

impl RawBlock {
    pub(crate) fn find(image: &Path) -> RawBlock {
        let file = File::options().read(true).write(true).custom_flags(O_DIRECT).open(image).expect("opens");
        let mut bytes = [0; 1024];
        let start = usize::try_from(SUPERBLOCK_OFFSET_BYTES).expect("is small");
        bytes.copy_from_slice(&window(&file, 0).bytes()[start..start + 1024]);
        let native = Superblock::decode(&bytes).ok().and_then(|superblock| {
            let offset = superblock.mmp_offset_bytes().ok()?;
            Some((superblock, offset))
        });
        match native {
            Some((superblock, offset)) => {
                let (seed, offset) = (superblock.checksum_seed, usize::try_from(offset).expect("is small"));
                RawBlock { file, superblock: Some(superblock), seed, offset }
            }
            None => RawBlock::of_slot(file, image),
        }
    }

    /// The block of an area's slot begins with the same struct.
    fn of_slot(file: File, image: &Path) -> RawBlock {
        let place = Place::find(image, None).expect("is protected");
        let seed = place.slot().map(|(area, _)| area.header.seed());
        let offset = usize::try_from(place.offset_bytes()).expect("is small");
        RawBlock { file, superblock: None, seed, offset }
    }

    /// Of its filesystem.
    pub(crate) fn block_bytes(&self) -> u32 {
        self.superblock.as_ref().expect("is native").block_bytes
    }

    /// The bytes, torn or not.
    fn image(&self) -> Image {
        let at = self.offset % WINDOW;
        let window = window(&self.file, self.offset - at);
        window.bytes()[at..at + MMP_STRUCT_BYTES].try_into().expect("has that length")
    }

    /// The block; a read that a concurrent write tore is repeated.
    pub(crate) fn read(&self) -> MmpBlock {
        self.read_image().1
    }

    fn read_image(&self) -> (Image, MmpBlock) {
        for _ in 0..100 {
            let image = self.image();
            if let Ok(block) = MmpBlock::decode(&image, self.seed) {
                return (image, block);
            }
            clock::sleep(Duration::from_millis(1));
        }
        panic!("the MMP block is damaged: {:?}", MmpBlock::fields(&self.image()));
    }

    /// Writes the block's fields. Nobody else may write near it meanwhile.
    pub(crate) fn write(&self, block: &MmpBlock) {
        let at = self.offset % WINDOW;
        let start = self.offset - at;
        let mut window = window(&self.file, start);
        let mut image: Image = window.bytes()[at..at + MMP_STRUCT_BYTES].try_into().expect("has that length");
        block.encode_into(&mut image, self.seed);
        window.bytes_mut()[at..at + MMP_STRUCT_BYTES].copy_from_slice(&image);
        let written = self.file.write_at(window.bytes(), start as u64).expect("writes");
        assert_eq!(written, WINDOW);
    }
}

fn window(file: &File, start: usize) -> Arena {
    let mut arena = Arena::new(WINDOW).expect("has memory");
    let read = file.read_at(arena.bytes_mut(), start as u64).expect("reads");
    assert_eq!(read, WINDOW);
    arena
}

/// Records the block's states.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Sample>>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub(crate) fn start(image: &Path, period: Duration) -> Sampler {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::<Sample>::new())));
        let (raw, stopped, into) = (RawBlock::find(image), Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !stopped.load(SeqCst) {
                let (image, block) = raw.read_image();
                let mut seen = into.lock().expect("no panic");
                if seen.last().is_none_or(|last| last.image != image) {
                    seen.push(Sample { at: clock::mono(), block, image });
                }
                drop(seen);
                clock::sleep(period);
            }
        });
        Sampler { stop, seen, thread: Some(thread) }
    }

    pub(crate) fn seen(&self) -> Vec<Sample> {
        self.seen.lock().expect("the sampler lives").clone()
    }

    /// The states first seen after `at`.
    pub(crate) fn since(&self, at: Mono) -> Vec<Sample> {
        self.seen().into_iter().filter(|sample| sample.at > at).collect()
    }

    pub(crate) fn last(&self) -> Sample {
        self.seen().pop().expect("has seen something")
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the sampler failed");
        }
    }
}
