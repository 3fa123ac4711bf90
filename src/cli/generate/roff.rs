//! The language of man pages: what is written by hand, line by line.

use std::fmt::Write as _;

/// Lines are broken here, so that no tool that judges pages calls them long.
const WIDTH: usize = 76;
/// What a table may take of a terminal's 80 columns.
const TABLE: usize = 70;
/// A filled column has at least so much, as long words are no longer.
const FILLED: usize = 22;

/// The line that begins a page. `with_tables` has tbl(1) run over it.
pub(in crate::cli) fn title(name: &str, section: &str, date: &str, with_tables: bool) -> String {
    let source = concat!("mmpguard ", env!("CARGO_PKG_VERSION"));
    let tables = if with_tables { "'\\\" t\n" } else { "" };
    let name = escaped(&name.to_uppercase());
    format!("{tables}.TH \"{name}\" {section} {date} \"{source}\" \"{}\"\n", super::MANUAL)
}

/// A heading.
pub(super) fn section(text: &mut String, title: &str) {
    let _ = writeln!(text, ".SH \"{}\"", title.replace('"', "\\(dq"));
}

/// A heading below one.
pub(super) fn subsection(text: &mut String, title: &str) {
    let _ = writeln!(text, ".SS \"{}\"", title.replace('"', "\\(dq"));
}

/// A paragraph of escaped words.
pub(super) fn paragraph(text: &mut String, words: &str) {
    set_off(text);
    flow(text, words);
}

/// A term and what it means, both escaped.
pub(super) fn item(text: &mut String, term: &str, words: &str) {
    let _ = writeln!(text, ".TP\n{}", safe(term));
    flow(text, words);
}

/// One of a list, behind `mark`.
pub(super) fn listed(text: &mut String, mark: &str, words: &str) {
    let _ = writeln!(text, ".IP {mark} 4");
    flow(text, words);
}

/// Lines as they are, indented.
pub(super) fn verbatim(text: &mut String, lines: &[&str]) {
    set_off(text);
    text.push_str(".RS 4\n.nf\n");
    for line in lines {
        let _ = writeln!(text, "{}", safe(&escaped(line)));
    }
    text.push_str(".fi\n.RE\n");
}

/// Rows of escaped cells, the first one a heading. Columns are as wide as their cells, but where a line would not take that:
/// then the widest of them are filled, and share what the others leave.
pub(super) fn table(text: &mut String, rows: &[Vec<String>]) {
    let filled = filled(rows);
    let layout = |font: &str| -> String {
        let of = |fills: &bool| format!("l{font}{}", if *fills { "x" } else { "" });
        filled.iter().map(of).collect::<Vec<_>>().join(" ")
    };
    set_off(text);
    // Cells are narrow: adjusted on both sides they would be full of gaps.
    let _ = write!(text, ".na\n.TS\ntab(|);\n{}\n{}.\n", layout("b"), layout(""));
    for row in rows {
        let words = |column| row.get(column).map_or("", String::as_str);
        let cells: Vec<_> = filled.iter().enumerate().map(|(at, fills)| cell(words(at), *fills)).collect();
        let _ = writeln!(text, "{}", cells.join("|"));
    }
    text.push_str(".TE\n.ad\n");
}

/// Which columns have to be broken into lines.
fn filled(rows: &[Vec<String>]) -> Vec<bool> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| shown(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let mut filled = vec![false; columns];
    loop {
        let taken = |(width, fills): (&usize, &bool)| 3 + if *fills { FILLED.min(*width) } else { *width };
        let needed: usize = widths.iter().zip(&filled).map(taken).sum();
        let next = (0..columns).filter(|at| !filled[*at]).max_by_key(|at| widths[*at]);
        match next {
            Some(at) if needed > TABLE => filled[at] = true,
            _ => return filled,
        }
    }
}

/// How many columns of a terminal escaped words take.
fn shown(words: &str) -> usize {
    let mut count = 0;
    let mut letters = words.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            count += 1;
            continue;
        }
        match letters.next() {
            Some('f') => drop(letters.next()),
            Some('(') => {
                letters.nth(1);
                count += 1;
            }
            _ => count += 1,
        }
    }
    count
}

/// A new paragraph, but for right below a heading, which begins one.
fn set_off(text: &mut String) {
    let headed =
        text.lines().next_back().is_some_and(|line| line.starts_with(".SH ") || line.starts_with(".SS "));
    if !headed {
        text.push_str(".PP\n");
    }
}

/// Words that are filled, broken into short lines.
fn flow(text: &mut String, words: &str) {
    text.push_str(&broken(words));
    text.push('\n');
}

fn cell(words: &str, fills: bool) -> String {
    match words {
        "" => "\\&".to_owned(),
        // Names of the format are longer than a column may be.
        words if fills => format!("T{{\n{}\nT}}", broken(&words.replace('_', "_\\:"))),
        words => safe(words),
    }
}

fn broken(words: &str) -> String {
    let mut lines = vec![String::new()];
    for word in words.split_ascii_whitespace() {
        let line = lines.last_mut().expect("has a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() > WIDTH {
            lines.push(word.to_owned());
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.iter().map(|line| safe(line)).collect::<Vec<_>>().join("\n")
}

/// No line of text is a request.
fn safe(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

/// Hyphens are hyphens, backslashes are backslashes, quotes and tildes are those of a keyboard.
pub(super) fn escaped(words: &str) -> String {
    let mut text = String::with_capacity(words.len());
    for character in words.chars() {
        match character {
            '\\' => text.push_str("\\e"),
            '-' => text.push_str("\\-"),
            '\'' => text.push_str("\\(aq"),
            '`' => text.push_str("\\(ga"),
            '^' => text.push_str("\\(ha"),
            '~' => text.push_str("\\(ti"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_become_requests() {
        let mut page = String::new();
        paragraph(&mut page, &escaped(".so /etc/passwd"));
        paragraph(&mut page, &escaped("'a-b\\c"));
        assert_eq!(page, ".PP\n\\&.so /etc/passwd\n.PP\n\\(aqa\\-b\\ec\n");
    }

    #[test]
    fn a_line_that_was_broken_is_no_request_either() {
        let words = format!("{} .so x", "x".repeat(WIDTH));
        assert_eq!(broken(&words), format!("{}\n\\&.so x", "x".repeat(WIDTH)));
    }

    #[test]
    fn widths_are_those_of_what_is_shown() {
        assert_eq!(shown("\\fBa\\-b\\fR \\(aqc\\e"), "a-b 'c\\".len());
    }

    #[test]
    fn only_what_does_not_fit_is_filled() {
        let row = |cells: &[usize]| cells.iter().map(|width| "x".repeat(*width)).collect::<Vec<_>>();
        assert_eq!(filled(&[row(&[10, 50])]), [false, false]);
        assert_eq!(filled(&[row(&[10, 25, 100])]), [false, false, true]);
        assert_eq!(filled(&[row(&[10, 90, 100])]), [false, true, true]);
    }

    #[test]
    fn a_paragraph_right_below_a_heading_needs_no_request() {
        let mut page = String::new();
        section(&mut page, "A");
        paragraph(&mut page, "one");
        paragraph(&mut page, "two");
        assert_eq!(page, ".SH \"A\"\none\n.PP\ntwo\n");
    }
}
