//! A holder whose power is cut, and how soon another may have what he held.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Ended, Lab, Outcome, Spec, Vm, turns};
use crate::scenarios::stage::{BUSY_SECONDS, Kind, REFUSAL_SECONDS, Waits, Writer, inspect};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "takeover_kernel", set: Set::Long, run: |book| takeover(book, Guarded::Kernel) },
    Scenario { name: "takeover_mmp", set: Set::Short, run: |book| takeover(book, Guarded::Mmp) },
];

/// What mmp is asked for, and when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// At once after the crash.
    AtOnce,
    /// A check interval after the last beat.
    Later,
    /// With the cluster's word that the holder is dead.
    Vouched,
}

/// One disk of the crashed host, and who wrote what on it.
struct Case {
    ask: Ask,
    disk: Disk,
    directory: String,
    durable: Vec<String>,
    seconds: f64,
}

impl Ask {
    fn text(self) -> &'static str {
        match self {
            Ask::AtOnce => "crash, takeover asked for at once",
            Ask::Later => "crash, takeover asked for C later",
            Ask::Vouched => "crash, takeover with --fenced",
        }
    }

    /// After the crash. More than C by the stamp of the last beat: the clocks of emulated machines, which read whole seconds
    /// when they boot, are some seconds apart, and what is younger than C by the survivor's is watched for a beat first.
    fn pause(self) -> Duration {
        Duration::from_millis(if self == Ask::AtOnce { 0 } else { 9_000 })
    }

    fn arguments(self) -> &'static str {
        if self == Ask::Vouched { "--fenced alpha" } else { "" }
    }

    /// What the kernel's two waits take, and what a vouch leaves of them: one of them, and a quiet interval.
    fn waits(self) -> Waits {
        let (floor_seconds, limit_seconds) = match self {
            Ask::AtOnce => (20.0, 25.2),
            Ask::Later => (20.0, 22.6),
            Ask::Vouched => (11.0, 14.0),
        };
        Waits { floor_seconds, limit_seconds }
    }
}

/// All cases after one crash, each on a disk of its own.
fn takeover(book: &Book, guarded: Guarded) -> Outcome<()> {
    let asks: &[Ask] = match guarded {
        Guarded::Kernel => &[Ask::AtOnce, Ask::Later],
        _ => &[Ask::AtOnce, Ask::Later, Ask::Vouched],
    };
    let lab = Lab::new()?;
    let mut cases = Vec::new();
    for (number, ask) in asks.iter().enumerate() {
        let disk = lab.disk(&format!("shared{number}"), 64)?;
        disk.make_ext4()?;
        let directory = format!("/mnt/disk{number}");
        cases.push(Case { ask: *ask, disk, directory, durable: Vec::new(), seconds: 0.0 });
    }
    let disks: Vec<&Disk> = cases.iter().map(|case| &case.disk).collect();
    let [alpha, beta] = Vm::boot_all(&lab, [Spec::new("alpha", &disks), Spec::new("beta", &disks)])?;
    let promises: Vec<_> = asks
        .iter()
        .map(|ask| {
            let waits = ask.waits().words(BUSY_SECONDS);
            let refused = if guarded == Guarded::Kernel {
                "refused as in use".to_owned()
            } else {
                format!("refused within {REFUSAL_SECONDS} s (+{BUSY_SECONDS} s if busy)")
            };
            let promise = format!(
                "mounted {waits}; nothing durable is lost; the crashed host is {refused}, and gets in after the release; the block clean in the end"
            );
            book.promise(ask.text(), guarded, &promise)
        })
        .collect();
    for case in &cases {
        for vm in [&alpha, &beta] {
            vm.must(&format!("mkdir -p {}", case.directory))?;
        }
    }
    let writers = write_on_all(&alpha, &cases, guarded)?;
    let alpha = alpha.crash();
    // What was durable when the power was cut, not some time before.
    for (case, writer) in cases.iter_mut().zip(writers) {
        case.durable = writer.last_words()?;
    }
    mount_all(&beta, &mut cases, guarded)?;
    let alpha = Vm::boot(&lab, alpha)?;
    let mut refusals = Vec::new();
    for case in &mut cases {
        refusals.push(refusal(&alpha, &beta, case, guarded)?);
    }
    // Each of these waits is long, and none of them hinders another.
    let entered: Vec<Outcome<Ended>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            cases.iter().map(|case| scope.spawn(|| entry(&alpha, &beta, case, guarded))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut judged = Vec::new();
    let returned = refusals.into_iter().zip(entered);
    for ((case, promise), (refused, entered)) in cases.iter().zip(promises).zip(returned) {
        let (kept, words) = verdict(&alpha, &beta, case, &(refused, entered?), guarded)?;
        judged.push(promise.judge(kept, &words));
    }
    // All of them are in the table, whichever fails.
    judged.into_iter().collect()
}

/// Mounts all of them on a host, writes on each for some seconds, and gives the writers, which still run.
fn write_on_all(vm: &Vm, cases: &[Case], guarded: Guarded) -> Outcome<Vec<Writer>> {
    let mounts: Outcome<Vec<_>> = cases
        .iter()
        .map(|case| vm.start(&guarded.mount_at("", &case.disk.node(), &case.directory)))
        .collect();
    for mount in mounts? {
        let ended = mount.wait()?;
        if !ended.ok() {
            return Err(ended.said());
        }
    }
    let mut writers = Vec::new();
    for case in cases {
        writers.push(Writer::start_in(vm, &case.directory, 1, Duration::from_millis(150))?);
    }
    for writer in &mut writers {
        writer.wait_for(10, Duration::from_secs(60))?;
    }
    Ok(writers)
}

/// The survivor mounts each at its time; how long each took from then.
fn mount_all(vm: &Vm, cases: &mut [Case], guarded: Guarded) -> Outcome<()> {
    let crashed = clock::mono();
    let mut running = Vec::new();
    for case in cases.iter() {
        clock::sleep_until(crashed + case.ask.pause());
        running.push(vm.start(&guarded.mount_at(
            case.ask.arguments(),
            &case.disk.node(),
            &case.directory,
        ))?);
    }
    for (case, running) in cases.iter_mut().zip(running) {
        let ended = running.wait()?;
        if !ended.ok() {
            return Err(format!("{}: {}", case.ask.text(), ended.said()));
        }
        case.seconds = ended.seconds;
    }
    Ok(())
}

/// The crashed host is back while the survivor writes, and wants to mount: how that ends, and whether it is refused as it should be.
fn refusal(alpha: &Vm, beta: &Vm, case: &mut Case, guarded: Guarded) -> Outcome<(Ended, bool)> {
    let Case { disk, directory, durable, .. } = case;
    alpha.must(&format!("mkdir -p {directory}"))?;
    let mut writer = Writer::start_in(beta, directory, 2, Duration::from_millis(150))?;
    writer.wait_for(3, Duration::from_secs(30))?;
    let log_before = alpha.kernel_log().len();
    let refused = alpha.run(&guarded.mount_at("", &disk.node(), directory))?;
    let as_in_use = guarded.says_in_use(alpha, &disk.node(), log_before, &refused)?;
    durable.extend(writer.stop(beta)?);
    Ok((refused, as_in_use))
}

/// It wants to again, once the survivor has left.
fn entry(alpha: &Vm, beta: &Vm, case: &Case, guarded: Guarded) -> Outcome<Ended> {
    let Case { disk, directory, .. } = case;
    let umount = guarded.umount_at(directory);
    beta.must(&umount)?;
    let entered = alpha.run(&guarded.mount_at("", &disk.node(), directory))?;
    if entered.ok() {
        alpha.must(&umount)?;
    }
    Ok(entered)
}

/// Whether all was as promised, and what is on the disk.
fn verdict(
    alpha: &Vm,
    beta: &Vm,
    case: &Case,
    ((refused, as_in_use), entered): &((Ended, bool), Ended),
    guarded: Guarded,
) -> Outcome<(bool, String)> {
    let Case { ask, disk, durable, seconds, .. } = case;
    let (of_alpha, of_beta) = (alpha.writes(disk)?, beta.writes(disk)?);
    let turns = turns(&[("alpha", &of_alpha), ("beta", &of_beta)], disk.protection()?);
    let order: Vec<&str> = turns.iter().map(|turn| turn.host.as_str()).collect();
    let verdict = inspect(alpha, disk, Kind::Ext4, durable)?;
    let refused_in_time = guarded == Guarded::Kernel || refused.seconds <= REFUSAL_SECONDS + BUSY_SECONDS;
    let kept = ask.waits().are_kept(BUSY_SECONDS, *seconds)
        && *as_in_use
        && refused_in_time
        && entered.ok()
        && verdict.is_whole_and_left()
        && order == ["alpha", "beta", "alpha"];
    let words = format!(
        "mounted after {seconds:.2} s; the crashed host {} after {:.2} s, {} after the release; turns {}; {}",
        match (refused.ok(), as_in_use) {
            (true, _) => "let in",
            (false, true) => "refused",
            (false, false) => "failed otherwise",
        },
        refused.seconds,
        if entered.ok() { "let in" } else { "refused" },
        order.join(", "),
        verdict.words_and_block()
    );
    Ok((kept, words))
}
