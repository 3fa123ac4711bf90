//! A filesystem that is mounted elsewhere (K2).

use std::time::Duration;

use crate::book::{Book, Guarded};
use crate::harness::Outcome;
use crate::scenarios::stage::{BUSY_SECONDS, Kind, Pair, REFUSAL_SECONDS, Writer};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "live_refusal_kernel", set: Set::Long, run: |book| live_refusal(book, Guarded::Kernel) },
    Scenario { name: "live_refusal_mmp", set: Set::Short, run: |book| live_refusal(book, Guarded::Mmp) },
];

/// K2: how soon a second mount of a live filesystem is refused.
fn live_refusal(book: &Book, guarded: Guarded) -> Outcome<()> {
    const TRIES: u32 = 5;
    let pair = Pair::ext4()?;
    let mount = guarded.mount(&pair.disk.node());
    pair.a.must(&mount)?;
    let mut writer = Writer::start(&pair.a, 1, Duration::from_millis(100))?;
    let limit = if guarded == Guarded::Kernel { 24.0 } else { REFUSAL_SECONDS };
    // A busy machine may delay them all, but not up to the 11 s of the kernel's.
    let promised = format!(
        "refused as in use within {limit} s, {BUSY_SECONDS} s more if busy; whole, and the block clean after the holder's unmount"
    );
    let promise = book.promise("K2 second mount of a live filesystem", guarded, &promised);
    let (mut refused, mut seconds) = (0, Vec::new());
    for _ in 0..TRIES {
        let log_before = pair.b.kernel_log().len();
        let ended = pair.b.run(&mount)?;
        refused += u32::from(guarded.says_in_use(&pair.b, &pair.disk.node(), log_before, &ended)?);
        seconds.push(ended.seconds);
    }
    seconds.sort_by(f64::total_cmp);
    writer.wait_for(1, Duration::from_secs(30))?;
    let durable = writer.stop(&pair.a)?;
    pair.a.must(&guarded.umount())?;
    let turns = pair.turns()?;
    let verdict = pair.inspect(Kind::Ext4, &durable)?;
    let (first, last) = (seconds[0], seconds[seconds.len() - 1]);
    let kept =
        refused == TRIES && last <= limit + BUSY_SECONDS && verdict.is_whole_and_left() && turns.len() == 1;
    promise.judge(
        kept,
        &format!("{refused} of {TRIES} refused, {first:.2} to {last:.2} s; {}", verdict.words_and_block()),
    )
}
