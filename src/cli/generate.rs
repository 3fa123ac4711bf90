//! `mmp generate`: man pages and completions out of the command line's own definition, for `make install`; and the pages
//! that are written by hand, as Markdown.

mod markdown;
pub(super) mod roff;
mod written;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory as _, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;

use self::roff::escaped;
use super::args::Cli;
use super::helper::manual;
use super::{exit, output};
use crate::error::Error;

/// The shells there are completions for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];
/// What the pages say where they come from.
pub(super) const MANUAL: &str = "Multiple-mount protection";

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// What to write.
    #[arg(value_enum)]
    what: What,
    /// The directory to write into.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    into: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// mmp.1, one page a verb, and those of the mount helpers.
    Man,
    /// bash, fish and zsh.
    Completions,
}

pub(super) fn run(arguments: &Generate) -> ExitCode {
    let written = fs::create_dir_all(&arguments.into).and_then(|()| match arguments.what {
        What::Man => man_pages(&arguments.into),
        What::Completions => completions(&arguments.into),
    });
    match written {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(source) => output::failure(&Error::io("write", &arguments.into, source)),
    }
}

fn completions(into: &Path) -> io::Result<()> {
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut Cli::command(), "mmp", into)?;
    }
    Ok(())
}

/// `mmp.1`, one page a verb, and those written by hand.
fn man_pages(into: &Path) -> io::Result<()> {
    let date = written::date(std::env::var(written::SOURCE_DATE).ok().as_deref());
    let mut mmp = Cli::command().disable_help_subcommand(true).after_help("");
    mmp.build();
    let mut pages = Vec::new();
    collect(&mmp, "mmp", &mut pages);
    let names: Vec<String> = pages.iter().map(|(name, _)| name.clone()).collect();
    for (name, command) in pages {
        let verb = name.strip_prefix("mmp-").unwrap_or_default().to_owned();
        // The page's name has a hyphen, the synopsis a space, as git's pages have it.
        let page = page(command.display_name(name.clone()), &verb, &names, &date)?;
        fs::write(into.join(format!("{name}.1")), page)?;
    }
    written::pages(into, &date)?;
    manual::write(into, &date)
}

/// A command, and every one below it, with the names of their pages.
fn collect(command: &Command, name: &str, pages: &mut Vec<(String, Command)>) {
    let shown = command.clone().after_help("").disable_help_subcommand(true);
    pages.push((name.to_owned(), shown));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        collect(verb, &format!("{name}-{}", verb.get_name()), pages);
    }
}

fn page(mut command: Command, verb: &str, names: &[String], date: &str) -> io::Result<Vec<u8>> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let has_verbs = command.has_subcommands();
    let usage = command.render_usage().to_string();
    let man = Man::new(command);
    let mut page = roff::title(&name, "1", date, false).into_bytes();
    man.render_name_section(&mut page)?;
    // The library's own synopsis leaves out the values of options and the `--` before a command.
    let mut synopsis = String::new();
    section(&mut synopsis, "SYNOPSIS");
    paragraph(&mut synopsis, usage.trim_start_matches("Usage: "));
    page.extend(synopsis.into_bytes());
    man.render_description_section(&mut page)?;
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    // The library breaks the line before and after an empty one, which ends a line by itself.
    page.extend(String::from_utf8_lossy(&options).replace(".br\n\n.br\n", ".sp\n").into_bytes());
    if has_verbs {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(rest(&name, verb, names).into_bytes());
    Ok(page)
}

/// What the definition does not know.
fn rest(name: &str, verb: &str, names: &[String]) -> String {
    let mut text = String::new();
    section(&mut text, "EXIT STATUS");
    if verb == "run" {
        paragraph(
            &mut text,
            "The status of the command; 128 + N if signal N ended it. Its own are these, so a command that gives one \
             of them itself cannot be told apart:",
        );
        exit::RUN.iter().for_each(|(code, meaning)| item(&mut text, &code.to_string(), meaning));
    } else {
        exit::ALL.iter().for_each(|(code, meaning)| item(&mut text, &code.to_string(), meaning));
    }
    if verb.is_empty() {
        paragraph(&mut text, "mmp run gives its command's status instead; see mmp-run(1).");
    }
    environment(&mut text, verb);
    section(&mut text, "FILES");
    item(
        &mut text,
        "DEV",
        "A block device, or an image file, with ext4 (or ldiskfs) that has the mmp feature, or with an MMP area behind what it holds.",
    );
    item(
        &mut text,
        "TARGET",
        "A block device or a file with an MMP area; TARGET:SLOT is one of its slots, by number or name.",
    );
    item(&mut text, "/proc, /sys/dev/block", "Where the users of a device on this host are looked for.");
    if matches!(verb, "" | "run") {
        item(
            &mut text,
            "/sys/fs/cgroup/.../mmp-run-PID",
            "A control group for the command, where one can be made: killing it takes one write.",
        );
    }
    if matches!(verb, "" | "mount" | "adopt" | "umount" | "remount" | "status") {
        item(
            &mut text,
            "/etc/mmp/mmp.toml",
            "What holds for this host unless the command line says otherwise; see mmp.toml(5).",
        );
        item(
            &mut text,
            "/run/mmp/MAJOR-MINOR.json, .lock, .sock",
            "What is guarded: a record, the lock of its only guard, and where that guard listens.",
        );
    }
    section(&mut text, "SEE ALSO");
    let mut see: Vec<String> =
        names.iter().filter(|other| *other != name).map(|other| format!("{other}(1)")).collect();
    see.sort();
    see.extend(["mmp.toml(5)", "mmp-format(5)", "mmp(7)"].map(str::to_owned));
    see.extend(["dumpe2fs(8)", "e2mmpstatus(8)", "ext4(5)", "mount(8)", "tune2fs(8)"].map(str::to_owned));
    paragraph(&mut text, &see.join(", "));
    text
}

fn environment(text: &mut String, verb: &str) {
    if matches!(verb, "" | "mount" | "adopt" | "umount" | "remount" | "status") {
        section(text, "ENVIRONMENT");
        item(text, "MMP_ON_LOSS", "What is done on a loss, unless --on-loss says otherwise.");
        item(text, "MMP_CONFIG", "The configuration file, instead of /etc/mmp/mmp.toml.");
        item(text, "MMP_RUNTIME_DIR", "Where records are kept, instead of /run/mmp.");
    }
    if matches!(verb, "" | "run") {
        if verb == "run" {
            section(text, "ENVIRONMENT");
        }
        item(text, "MMP_NODE_NAME", "The node name to write into the block, unless --node names another.");
        item(text, "MMP_LOG", "What to tell for debugging on standard error, such as debug.");
        paragraph(text, "The command that run starts finds in its environment:");
        item(text, "MMP_DEVICE", "The device that is held, with symbolic links resolved.");
        item(text, "MMP_NODE", "The node name in the block.");
        item(
            text,
            "MMP_BLOCK",
            "The number of the MMP block, counted in blocks of the filesystem; not in an area.",
        );
        item(text, "MMP_AREA, MMP_SLOT", "The UUID of the area, and the number of the slot; only there.");
        item(
            text,
            "MMP_GENERATION",
            "The number of this acquisition of the slot, greater than all before it; only in an area.",
        );
        item(text, "MMP_MEMBERS", "How many devices are held; those of the second end in _2, and so on.");
    }
    if matches!(verb, "" | "fence") {
        if verb == "fence" {
            section(text, "ENVIRONMENT");
            item(text, "MMP_ON_LOSS", "The rungs to climb on a loss, unless --on-loss names others.");
        }
        paragraph(text, "A command of the rung exec finds in its environment:");
        item(text, "MMP_DEVICE", "The device to cut off, with symbolic links resolved.");
        item(text, "MMP_FILESYSTEM", "The type of its filesystem.");
    }
}

pub(super) fn section(text: &mut String, title: &str) {
    roff::section(text, title);
}

pub(super) fn paragraph(text: &mut String, words: &str) {
    roff::paragraph(text, &escaped(words));
}

pub(super) fn item(text: &mut String, head: &str, words: &str) {
    roff::item(text, &format!("\\fB{}\\fR", escaped(head)), &escaped(words));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_sections() {
        let names = ["mmp".to_owned(), "mmp-run".to_owned()];
        let mut mmp = Cli::command();
        mmp.build();
        let run = mmp.find_subcommand("run").expect("is a verb").clone();
        let page =
            String::from_utf8(page(run, "run", &names, "2023-11-14").expect("renders")).expect("is text");
        for wanted in
            [".SH NAME", "SYNOPSIS", "EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO", "MMP_DEVICE", "125"]
        {
            assert!(page.contains(wanted), "{wanted} is missing in {page}");
        }
    }
}
