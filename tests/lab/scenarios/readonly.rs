//! K5: a filesystem that is mounted read-write elsewhere is mounted read-only. The kernel does not look at the block then,
//! and replays the journal of the live filesystem.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::{Outcome, seconds};
use crate::scenarios::side::Side;
use crate::scenarios::stage::{BUSY_SECONDS, Kind, Pair, REFUSAL_SECONDS};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "read_only_kernel", set: Set::Long, run: |book| read_only(book, Guarded::Kernel) },
    Scenario { name: "read_only_mmp", set: Set::Short, run: |book| read_only(book, Guarded::Mmp) },
];

/// How often the reader tries.
const TRIES: usize = 4;

fn read_only(book: &Book, guarded: Guarded) -> Outcome<()> {
    let promised = if guarded == Guarded::Kernel {
        "nothing: it is let in, and writes the live journal back over the live filesystem".to_owned()
    } else {
        format!(
            "refused within {REFUSAL_SECONDS} s (+{BUSY_SECONDS} s if busy), and the reader's host writes nothing at all; the block clean after the holder's unmount"
        )
    };
    let promise = book.promise("K5 read-only mount of a live filesystem", guarded, &promised);
    let pair = Pair::ext4()?;
    let holder = Side::new(&pair.a, &pair.disk, guarded);
    let reader = Side::new(&pair.b, &pair.disk, guarded).arguments("-o ro");
    pair.a.must(&holder.mount())?;
    let mut writer = holder.writer(1)?;
    let since_s = seconds();
    let (mut let_in, mut longest, mut codes) = (0, 0.0_f64, Vec::new());
    for number in 1..=TRIES {
        writer.wait_for(number * 10, Duration::from_secs(60))?;
        let ended = reader.try_mount()?;
        longest = longest.max(ended.seconds);
        codes.push(ended.code);
        if ended.ok() {
            let_in += 1;
            clock::sleep(Duration::from_secs(1));
            pair.b.run(&reader.umount())?;
        }
    }
    writer.wait_for(TRIES * 10 + 10, Duration::from_secs(60))?;
    let durable = writer.stop(&pair.a)?;
    let outside = reader.writes_since(since_s)?.len();
    let all = pair.b.writes(&pair.disk)?.len();
    // A filesystem that was written to from elsewhere may end in any way.
    let left = pair.a.run(&holder.umount())?;
    let verdict = pair.inspect(Kind::Ext4, &durable)?;
    let measured = format!(
        "let in {let_in} of {TRIES} times, answered within {longest:.2} s; the reader's host wrote {all} times, {outside} outside \
         the MMP block; {}",
        verdict.words_and_block()
    );
    let kept = if guarded == Guarded::Kernel {
        let_in > 0 && outside > 0
    } else {
        let refused = codes.iter().all(|code| *code == 1) && longest <= REFUSAL_SECONDS + BUSY_SECONDS;
        refused && all == 0 && left.ok() && verdict.is_whole_and_left()
    };
    promise.judge(kept, &measured)
}
