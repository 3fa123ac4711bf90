//! The administrator's command, and helpers that hang.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mmpguard::clock;
use mmpguard::sys::Target;
use mmpguard::sys::fence::{ClimbReport, Outcome};
use mmpguard::sys::process::Stat;

use crate::host::*;
use crate::stage::*;

pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_command_vouches_by_its_status", vouches),
    ("a_command_that_fails_is_no_fence_and_the_next_one_runs", fails),
    ("a_command_that_hangs_is_killed_with_what_it_started", hangs),
    ("a_command_that_is_no_program_fails", no_program),
    ("at_the_limit_nothing_begins", no_time),
    ("a_command_starts_as_if_an_administrator_had_started_it", environment),
];

struct Stage {
    device: Loop,
    image: Image,
}

impl Stage {
    fn new() -> Stage {
        let image = Image::new(8);
        Stage { device: Loop::over(&image.path), image }
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.image.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn file(&self, name: &str) -> PathBuf {
        self.image.dir.path().join(name)
    }

    fn climbed(&self, commands: &[&Path]) -> ClimbReport {
        let rungs: Vec<_> = commands.iter().map(|command| format!("exec:{}", command.display())).collect();
        let mut ladder = prepared(self.device.target(), "ext4", &rungs.join(","));
        assert!(ladder.is_complete());
        climbed(&mut ladder, LIMIT)
    }
}

fn vouches() {
    need!("losetup");
    let stage = Stage::new();
    let yes = stage.script("yes", "#!/bin/sh\nexit 0\n");
    let report = stage.climbed(&[&yes]);
    assert!(report.done && report.in_flight == Some(0), "{report:?}");
    println!("exec: {} ms", report.took_ms);
    // A file has no count of what is under way: the vouch is all there is.
    let file = Target::of(&stage.image.path).unwrap();
    let mut ladder = prepared(file, "ext4", &format!("exec:{}", yes.display()));
    let report = climbed(&mut ladder, LIMIT);
    assert_eq!((report.done, report.in_flight), (true, None));
}

fn fails() {
    need!("losetup");
    let stage = Stage::new();
    let no = stage.script("no", "#!/bin/sh\nexit 3\n");
    let dies = stage.script("dies", "#!/bin/sh\nkill -TERM $$\nsleep 10\n");
    let report = stage.climbed(&[&no, &dies]);
    assert_eq!((report.done, report.incomplete), (false, false));
    assert_eq!(outcomes(&report), [Outcome::Failed, Outcome::Failed]);
    assert_eq!(
        (&*report.rungs[0].detail, &*report.rungs[1].detail),
        ("exit status 3", "killed by signal 15")
    );
    let yes = stage.script("yes", "#!/bin/sh\nexit 0\n");
    let report = stage.climbed(&[&no, &yes]);
    assert!(report.done && report.by.unwrap().ends_with("/yes"));
}

fn hangs() {
    need!("losetup");
    let stage = Stage::new();
    let pids = stage.file("pids");
    let text = format!("#!/bin/sh\nsleep 1000 &\necho $$ $! >{}\nwait\n", pids.display());
    let hanging = stage.script("hangs", &text);
    let yes = stage.script("yes", "#!/bin/sh\nexit 0\n");
    let report = stage.climbed(&[&hanging, &yes]);
    assert!(report.done, "{report:?}");
    assert_eq!(outcomes(&report), [Outcome::Late, Outcome::Achieved]);
    assert!((5000..5500).contains(&report.rungs[0].took_ms), "{report:?}");
    clock::sleep(ms(100));
    for pid in fs::read_to_string(&pids).unwrap().split_ascii_whitespace() {
        let stat = Stat::of(pid.parse().unwrap());
        assert!(stat.as_ref().is_none_or(Stat::is_over), "{stat:?} lives on");
    }
}

fn no_program() {
    need!("losetup");
    let stage = Stage::new();
    let broken = stage.script("broken", "#!/nonexistent/interpreter\n");
    let report = stage.climbed(&[&broken]);
    assert!(
        !report.done && report.rungs[0].detail.starts_with("cannot be executed: No such file"),
        "{report:?}"
    );
}

fn no_time() {
    need!("losetup");
    let stage = Stage::new();
    let mark = stage.file("mark");
    let marks = stage.script("marks", &format!("#!/bin/sh\ntouch {}\n", mark.display()));
    let mut ladder = prepared(stage.device.target(), "ext4", &format!("exec:{}", marks.display()));
    let report = climbed(&mut ladder, ms(0));
    // Late is better than never, as long as no reboot follows that would be better still.
    assert_eq!((report.done, outcomes(&report)), (true, vec![Outcome::Achieved]));
    assert!(mark.exists());
}

fn environment() {
    need!("losetup");
    let stage = Stage::new();
    let told = stage.file("told");
    let text = "#!/bin/sh\necho $MMP_DEVICE $MMP_FILESYSTEM $(ls /proc/$$/fd | tr '\\n' ' ') >TOLD\n\
        grep -E '^Sig(Blk|Ign)' /proc/self/status >>TOLD\n";
    let tells = stage.script("tells", &text.replace("TOLD", told.to_str().unwrap()));
    assert!(stage.climbed(&[&tells]).done);
    let told = fs::read_to_string(&told).unwrap();
    let first = told.lines().next().unwrap();
    let open = first.strip_prefix(&format!("{} ext4 ", stage.device.0)).expect(first);
    let mut open: Vec<u32> = open.split(' ').map(|number| number.parse().unwrap()).collect();
    // The shell's own, on its script and for its pipe to ls.
    open.retain(|number| ![3, 10, 255].contains(number));
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2], "{told}");
    for line in told.lines().skip(1) {
        // nohup's and a shell's are left as they are, and two of glibc's own, which a program cannot set.
        let set = u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap();
        assert_eq!(set & !(0b11 << 31 | 0b111), 0, "{told}");
    }
}
