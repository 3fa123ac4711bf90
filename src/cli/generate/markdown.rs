//! Pages that are written as Markdown: as much of it as they use, turned into a man page's language.
//!
//! Headings of the second and third level, paragraphs, lists of one level, terms (`: ` begins what a term means), tables,
//! fenced code, emphasis, code and links. The title of the first level is the page's name and is left out, and so is what
//! stands in comments.

use super::roff::{self, escaped};

/// Appends `text` to `page`.
pub(super) fn append(page: &mut String, text: &str) {
    let mut lines = text.lines().peekable();
    let mut has_section = false;
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            roff::section(page, &plain(title).to_uppercase());
            has_section = true;
            continue;
        }
        if let Some(title) = line.strip_prefix("### ") {
            roff::subsection(page, &plain(title));
            continue;
        }
        if line.trim().is_empty() || line.starts_with("# ") || line.starts_with("<!--") {
            continue;
        }
        if !has_section {
            roff::section(page, "DESCRIPTION");
            has_section = true;
        }
        if line.starts_with("```") {
            let code: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            roff::verbatim(page, &code);
        } else if line.starts_with('|') {
            let mut rows = vec![cells(line)];
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(cells(row));
            }
            // The second line says how columns are set.
            rows.remove(1.min(rows.len() - 1));
            roff::table(page, &rows);
        } else if let Some(words) = line.strip_prefix("- ") {
            roff::listed(page, "\\(bu", &inline(&continued(words, &mut lines)));
        } else if let Some((number, words)) = numbered(line) {
            roff::listed(page, &format!("{number}."), &inline(&continued(words, &mut lines)));
        } else if lines.peek().is_some_and(|next| next.starts_with(": ")) {
            let words = lines.next().unwrap_or_default().trim_start_matches(": ");
            roff::item(page, &inline(line), &inline(&continued(words, &mut lines)));
        } else {
            roff::paragraph(page, &inline(&continued(line, &mut lines)));
        }
    }
}

/// `text` has a table.
pub(super) fn has_table(text: &str) -> bool {
    text.lines().any(|line| line.starts_with('|'))
}

/// A block goes on until something else begins.
fn continued<'a>(first: &str, lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> String {
    let mut words = first.to_owned();
    while let Some(line) = lines.next_if(|line| goes_on(line)) {
        words.push(' ');
        words.push_str(line.trim());
    }
    words
}

fn goes_on(line: &str) -> bool {
    let begins = ["#", "|", "```", "- ", "<!--", ": "];
    !line.trim().is_empty() && !begins.iter().any(|mark| line.starts_with(mark)) && numbered(line).is_none()
}

/// `1. words`
fn numbered(line: &str) -> Option<(&str, &str)> {
    let (number, words) = line.split_once(". ")?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some((number, words))
}

/// The cells of a row. A bar in code is written `\|`.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{0}");
    row.split('|').map(|cell| inline(&cell.trim().replace('\u{0}', "\\|")).replace("\\e|", "\\(ba")).collect()
}

/// Without marks, for a heading.
fn plain(text: &str) -> String {
    text.replace(['`', '*'], "")
}

/// Emphasis, code and links inside a paragraph.
fn inline(text: &str) -> String {
    in_font(text, 'R')
}

fn in_font(text: &str, around: char) -> String {
    let mut roff = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        roff.push_str(&escaped(&rest[..at]));
        rest = &rest[at..];
        let spans: [(&str, char); 3] = [("`", 'B'), ("**", 'B'), ("*", 'I')];
        let span = spans.iter().find_map(|(mark, font)| Some((*font, *mark, between(rest, mark)?)));
        if let Some((font, mark, inner)) = span {
            let set = if mark == "`" { escaped(inner) } else { in_font(inner, font) };
            roff.push_str(&format!("\\f{font}{set}\\f{around}"));
            rest = &rest[inner.len() + 2 * mark.len()..];
        } else if let Some((words, after)) = link(rest) {
            roff.push_str(&in_font(words, around));
            rest = after;
        } else {
            roff.push_str(&escaped(&rest[..1]));
            rest = &rest[1..];
        }
    }
    roff.push_str(&escaped(rest));
    roff
}

/// What stands between two marks at the beginning of `text`; none if that is no mark but a character.
fn between<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let inside = text.strip_prefix(mark)?;
    let inner = &inside[..inside.find(mark)?];
    let is_mark = !inner.is_empty() && !inner.starts_with(' ') && !inner.ends_with(' ');
    is_mark.then_some(inner)
}

/// The words of a link, and what follows it. Where it leads to is a file beside the source, or stands in its words.
fn link(text: &str) -> Option<(&str, &str)> {
    let (words, rest) = text.strip_prefix('[')?.split_once("](")?;
    let (_, after) = rest.split_once(')')?;
    (!words.contains(['[', ']'])).then_some((words, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let mut page = String::new();
        append(&mut page, text);
        page
    }

    #[test]
    fn emphasis_code_and_links() {
        assert_eq!(inline("a **b `c-d` e** *f* `*g*`"), "a \\fBb \\fBc\\-d\\fB e\\fR \\fIf\\fR \\fB*g*\\fR");
        assert_eq!(inline("2 * x * y, [a](b.md), [1]"), "2 * x * y, a, [1]");
        assert_eq!(inline("`unclosed"), "\\(gaunclosed");
    }

    #[test]
    fn blocks_end_where_others_begin() {
        let text = "# Title\nfirst\nline\n- one\n  more\n- two\n\n`key`\n: what it\n  means\n\n## Next\n1. a\n2. b\n";
        assert_eq!(
            rendered(text),
            ".SH \"DESCRIPTION\"\nfirst line\n.IP \\(bu 4\none more\n.IP \\(bu 4\ntwo\n.TP\n\\fBkey\\fR\nwhat it means\n\
             .SH \"NEXT\"\n.IP 1. 4\na\n.IP 2. 4\nb\n"
        );
    }

    #[test]
    fn tables_and_code() {
        let long = "z".repeat(80);
        let table = rendered(&format!("| a | b |\n|---|---|\n| x | `y \\| {long}` |\n"));
        assert!(table.contains("lb lbx\nl lx.\na|T{\nb\nT}\nx|T{\n\\fBy \\(ba\n"), "{table}");
        assert!(table.contains(&format!("{long}\\fR\nT}}\n.TE\n")), "{table}");
        let code = rendered("```sh\n.x -y\n```\nend\n");
        assert!(code.contains(".nf\n\\&.x \\-y\n.fi\n.RE\n.PP\nend\n"), "{code}");
    }
}
