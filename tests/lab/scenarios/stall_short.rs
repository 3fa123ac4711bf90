//! A holder stands still for 8 s, less than anybody waits: nothing may come of it.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::Outcome;
use crate::scenarios::side::Side;
use crate::scenarios::stage::{Kind, Pair};
use crate::scenarios::stall::Stall;
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "stall_short_mmp", set: Set::Short, run: short }];

const STALLED: Duration = Duration::from_secs(8);
/// Enough for a holder that was to lose anything to have lost it.
const AFTERWARDS: Duration = Duration::from_secs(5);

fn short(book: &Book) -> Outcome<()> {
    let promise = book.promise(
        "the holder stands still for 8 s, in both ways",
        Guarded::Mmp,
        "nothing comes of it: the peer is refused, the holder goes on guarded, and is not rebooted; the filesystem whole, and the block clean after the unmount",
    );
    let pair = Pair::ext4()?;
    let [a, b] = [&pair.a, &pair.b].map(|vm| Side::new(vm, &pair.disk, Guarded::Mmp));
    pair.a.must(&a.mount())?;
    let mut writer = a.writer(1)?;
    writer.wait_for(5, Duration::from_secs(30))?;
    let (mut refused, mut seconds) = (0, Vec::new());
    for how in [Stall::Hang, Stall::Pause] {
        how.begin(&pair.a)?;
        let stalled = clock::mono();
        let asked = pair.b.start(&b.mount())?;
        clock::sleep((stalled + STALLED).since(clock::mono()));
        how.end(&pair.a)?;
        let ended = asked.wait()?;
        refused += usize::from(ended.code == 1);
        seconds.push(format!("{:.1}", ended.seconds));
        clock::sleep(AFTERWARDS);
    }
    let guarded = a.is_guarded()?;
    let written = writer.durable().len();
    let goes_on = writer.wait_for(written + 5, Duration::from_secs(30)).is_ok();
    let durable = writer.stop(&pair.a)?;
    a.leave()?;
    let (boots, turns) = (pair.a.boots(), pair.turns()?.len());
    let verdict = pair.inspect(Kind::Ext4, &durable)?;
    let kept = refused == 2 && guarded && goes_on && boots == 1 && turns == 1 && verdict.is_whole_and_left();
    promise.judge(
        kept,
        &format!(
            "peer refused {refused} of 2 times, after {} s; holder guarded: {guarded}, wrote on: {goes_on}, boots {boots}; {}",
            seconds.join(" and "),
            verdict.words_and_block()
        ),
    )
}
