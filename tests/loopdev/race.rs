//! Case 8: two claims at almost the same time, and one of them with a write that comes late. Whatever happens, one of
//! the two gets in, and never both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use mmpguard::clock::{self, Mono};

use crate::Case;
use crate::harness::lun::{Lun, Shape, text};
use crate::harness::started::{Started, patiently};
use crate::harness::{millis, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("case_08_two_runs_with_one_write_delayed_have_one_user", delayed),
    ("case_08_two_runs_at_once_have_one_user_in_30_rounds", at_once),
];

const SEED: u64 = 8;
const ROUNDS: usize = 30;
const ROUNDS_AT_ONCE: usize = 15;
/// From far below a limit (2.75 s) to beyond a wait (11 s).
const DELAYS_MS: [u64; 6] = [300, 1000, 2500, 4000, 8000, 13_000];
/// Time for a second claimer to start and to look, on a slow machine too.
const BOTH_LOOK_MS: u64 = 1500;
/// On a busy machine the rival may come too late to meet the slow write; a delay that never happened would prove nothing, so the round
/// is played again, and not for ever.
const TRIES: usize = 5;
/// The longest honest way in: a late write starts the claim anew with the check interval doubled, more than once.
const PATIENCE: Duration = Duration::from_secs(300);
/// Takes a lock for as long as anything of it lives: whoever comes meanwhile finds that out.
const USE: &str = r#"
exec 9>>"$DIR/lock"
say() { echo "$1 $MMP_NODE $(cut -d' ' -f1 /proc/uptime)" >> "$DIR/log"; }
flock -n 9 || say OVERLAP
say begins
sleep 15
say ends
"#;

#[derive(Clone, Debug)]
struct Round {
    name: String,
    /// Alpha starts first, beta so much later; with a slow claim so long after he could have met it.
    offset: Duration,
    slow: Vec<Slow>,
}

/// A claim with a slow write.
#[derive(Clone, Debug)]
struct Slow {
    host: &'static str,
    nth: u32,
    ms: u64,
    library: PathBuf,
}

fn at_once() {
    let mut random = fastrand::Rng::with_seed(SEED);
    let rounds: Vec<Round> = (1..=ROUNDS)
        .map(|number| Round {
            name: number.to_string(),
            offset: millis(random.u64(0..=50)),
            slow: Vec::new(),
        })
        .collect();
    let offsets: Vec<_> = rounds.iter().map(|round| round.offset.as_millis().to_string()).collect();
    observed("8", &format!("seed {SEED}, {ROUNDS} rounds, offsets in ms: {}", offsets.join(" ")));
    for batch in rounds.chunks(ROUNDS_AT_ONCE) {
        play_all(batch);
    }
    observed("8", &format!("one user in each of {ROUNDS} rounds"));
}

/// The first to come is slow in each of his writes. The second is slow in his first, and meets a first who is slow
/// enough for both to have found the LUN clean.
fn delayed() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let library = build(directory.path());
    let mut random = fastrand::Rng::with_seed(SEED + 1);
    let mut rounds = Vec::new();
    for (host, nth) in [("alpha", 1), ("alpha", 2), ("alpha", 3), ("beta", 1)] {
        for ms in DELAYS_MS {
            let offset = millis(random.u64(0..=50));
            let name = format!("{host}'s write {nth} delayed by {ms} ms, offset {offset:?}");
            let slow = |host, nth, ms| Slow { host, nth, ms, library: library.clone() };
            let slow = match host {
                "alpha" => vec![slow(host, nth, ms)],
                _ => vec![slow("alpha", 1, BOTH_LOOK_MS), slow(host, nth, ms)],
            };
            rounds.push(Round { name, offset, slow });
        }
    }
    play_all(&rounds);
    observed("8, delayed", &format!("one user in each of {} rounds", rounds.len()));
}

/// So that he meets the slow write: while the first is under way; after the first landed; and for the last one after
/// the middle beat, which would refuse him.
fn when_the_rival_comes(round: &Round, lun: &Lun, alpha: &mut Started) -> Mono {
    match round.slow.first() {
        Some(Slow { nth: 1, .. }) => {
            let begun = patiently(seconds(20), || lun.file("delayed-alpha").exists().then(clock::mono));
            begun.expect("the first write is delayed")
        }
        Some(Slow { nth: 2, .. }) => alpha.says("claimed;", seconds(20)),
        Some(Slow { .. }) => alpha.says("claimed;", seconds(20)) + seconds(6),
        None => alpha.at,
    }
}

pub(crate) fn build(into: &Path) -> PathBuf {
    let library = into.join("slow_write.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/loopdev/preload/slow_write.c");
    let flags = ["-shared", "-fPIC", "-O", "-Wall", "-o", text(&library), source, "-ldl"];
    let built = Command::new("cc").args(flags).status().expect("cc runs");
    assert!(built.success(), "cc: {built}");
    library
}

fn play_all(rounds: &[Round]) {
    let failed: Vec<String> = thread::scope(|scope| {
        let playing: Vec<_> = rounds.iter().map(|round| scope.spawn(|| play_until_delayed(round))).collect();
        let ended = playing.into_iter().zip(rounds).map(|(played, round)| (played.join(), round));
        ended.filter(|(played, _)| played.is_err()).map(|(_, round)| round.name.clone()).collect()
    });
    assert!(failed.is_empty(), "these rounds failed: {failed:#?}");
}

fn play_until_delayed(round: &Round) {
    for _ in 0..TRIES {
        let Some(undelayed) = play(round) else { return };
        observed("8, delayed", &format!("{}: {undelayed} was not delayed; once more", round.name));
    }
    panic!("round {round:?}: in {TRIES} tries a delay never happened");
}

/// Plays and judges a round; names a host whose write was to be slow and was never made.
fn play(round: &Round) -> Option<&'static str> {
    let lun = Lun::shaped(Shape { bytes: 16 << 20, filesystem_bytes: 16 << 20, ..Shape::default() });
    let env = |host: &str| match round.slow.iter().find(|slow| slow.host == host) {
        Some(slow) => vec![
            ("LD_PRELOAD", text(&slow.library).to_owned()),
            ("SLOW_WRITE_NTH", slow.nth.to_string()),
            ("SLOW_WRITE_MS", slow.ms.to_string()),
            ("SLOW_WRITE_LOG", text(&lun.file(&format!("delayed-{host}"))).to_owned()),
        ],
        None => Vec::new(),
    };
    let mut alpha = lun.run_with("alpha", &lun.a, &[], USE, &env("alpha"));
    clock::sleep_until(when_the_rival_comes(round, &lun, &mut alpha) + round.offset);
    let mut beta = lun.run_with("beta", &lun.b, &[], USE, &env("beta"));
    let ends = [("alpha", alpha.end(PATIENCE)), ("beta", beta.end(PATIENCE))];
    let log = std::fs::read_to_string(lun.file("log")).unwrap_or_default();
    let all = format!("round {round:?}:\n{log}{ends:#?}");

    assert!(!log.contains("OVERLAP"), "used by two, {all}");
    let began = log.lines().filter(|line| line.starts_with("begins")).count();
    let ended = log.lines().filter(|line| line.starts_with("ends")).count();
    assert!(began >= 1, "nobody got in, {all}");
    assert_eq!(began, ended, "a user was killed, {all}");
    // Who got in saw his command end; the other was told that it is in use.
    for (host, end) in &ends {
        let used = log.lines().any(|line| line.starts_with(&format!("begins {host} ")));
        assert_eq!(end.code, if used { 0 } else { 121 }, "{host}, {all}");
    }
    let got_in = log.lines().next().unwrap_or_default();
    let codes = format!("alpha {}, beta {}", ends[0].1.code, ends[1].1.code);
    let undelayed = round.slow.iter().find(|slow| !lun.file(&format!("delayed-{}", slow.host)).exists());
    if !round.slow.is_empty() {
        observed("8, delayed", &format!("{}: {got_in}; {codes}", round.name));
    }
    undelayed.map(|slow| slow.host)
}
