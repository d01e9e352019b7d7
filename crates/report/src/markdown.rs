//! The report as Markdown: the same tables, no charts.

use crate::document::{Block, Document, Table};
use std::fmt::Write as _;

impl Document {
    /// As Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n", escape(&self.title));
        for section in &self.sections {
            let _ = write!(text, "\n## {}\n", escape(&section.title));
            section.blocks.iter().for_each(|block| write(&mut text, block));
        }
        text
    }
}

fn write(text: &mut String, block: &Block) {
    match block {
        Block::Charts(_) => {}
        Block::Heading(heading) => *text += &format!("\n### {}\n", escape(heading)),
        Block::Text(words) => *text += &format!("\n{}\n", escape(words)),
        Block::List(items) => {
            text.push('\n');
            items.iter().for_each(|item| *text += &format!("- {}\n", escape(item)));
        }
        Block::Table(table) => write_table(text, table),
        Block::Code(code) => *text += &format!("\n```sh\n{code}\n```\n"),
        Block::Details(summary, blocks) => {
            *text += &format!("\n### {}\n", escape(summary));
            blocks.iter().for_each(|block| write(text, block));
        }
        Block::Excerpts(excerpts) => {
            let mut table = Table::new(["weight", "token", "in context"]);
            for [before, token, after, weight] in excerpts {
                table.row([weight.clone(), token.clone(), format!("{before}{token}{after}")]);
            }
            write_table(text, &table);
        }
    }
}

fn write_table(text: &mut String, table: &Table) {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    *text += &format!("\n{}", line(&table.headings));
    let align = |column| if table.is_words(column) { "---|" } else { "--:|" };
    *text += &format!("|{}\n", (0..table.headings.len()).map(align).collect::<String>());
    table.rows.iter().for_each(|row| *text += &line(row));
}

/// Text that Markdown leaves as it is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => escaped.push(' '),
            '<' => escaped += "&lt;",
            '&' => escaped += "&amp;",
            // An interval keeps its brackets: only what would make a link or an image of them is taken apart.
            '(' if escaped.ends_with(']') => escaped += "\\(",
            '\\' | '`' | '*' | '_' | '|' | '~' => {
                escaped.push('\\');
                escaped.push(character);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("a_b *c* `d` | ~~e~~ \\"), "a\\_b \\*c\\* \\`d\\` \\| \\~\\~e\\~\\~ \\\\");
        assert_eq!(escape("![a](http://b) <i> &lt;\r\n"), "![a]\\(http://b) &lt;i> &amp;lt;  ");
        assert_eq!(escape("+1.0 [-0.5, +2.5]"), "+1.0 [-0.5, +2.5]");
    }
}
