//! The report as a page: one file that asks nothing of a network, for light and dark, wide and narrow.

use crate::document::{Block, Document, Table};
use std::fmt::Write as _;

impl Document {
    /// As a self-contained page.
    pub fn to_html(&self) -> String {
        let mut page = head(&self.title, include_str!("page.css")) + "<nav>";
        for section in &self.sections {
            let _ = write!(page, "<a href=\"#{}\">{}</a> ", section.id, escape(&section.title));
        }
        page += "</nav>\n";
        for section in &self.sections {
            let _ = write!(page, "<section id=\"{}\">\n<h2>{}</h2>\n", section.id, escape(&section.title));
            section.blocks.iter().for_each(|block| write(&mut page, block));
            page += "</section>\n";
        }
        page + "</body>\n</html>\n"
    }
}

fn write(page: &mut String, block: &Block) {
    match block {
        Block::Heading(heading) => *page += &format!("<h3>{}</h3>\n", escape(heading)),
        Block::Text(text) => *page += &format!("<p>{}</p>\n", escape(text)),
        Block::List(items) => {
            let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
            *page += &format!("<ul>\n{items}</ul>\n");
        }
        Block::Table(table) => write_table(page, table),
        Block::Charts(charts) => {
            *page += "<div class=\"charts\">\n";
            charts.iter().for_each(|chart| *page += &chart.to_html());
            *page += "</div>\n";
        }
        Block::Code(code) => *page += &format!("<pre><code>{}</code></pre>\n", escape(code)),
        Block::Details(summary, blocks) => {
            *page += &format!("<details>\n<summary>{}</summary>\n", escape(summary));
            blocks.iter().for_each(|block| write(page, block));
            *page += "</details>\n";
        }
        Block::Excerpts(excerpts) => {
            *page += "<ul class=\"excerpts\">\n";
            for [before, token, after, weight] in excerpts {
                let [before, token, after] = [before, token, after].map(|text| escape(text));
                *page += &format!(
                    "<li><span class=\"quiet\">{weight}</span> <code>{before}<b>{token}</b>{after}</code></li>\n"
                );
            }
            *page += "</ul>\n";
        }
    }
}

/// Words stand at the left and numbers at the right; an interval has a column of its own below the heading of its mean.
fn write_table(page: &mut String, table: &Table) {
    let columns = 0..table.headings.len();
    let has_interval = |column: usize| table.rows.iter().any(|row| interval_of(&row[column]).is_some());
    let kinds: Vec<(bool, bool)> =
        columns.map(|column| (table.is_words(column), column > 0 && has_interval(column))).collect();
    *page += "<div class=\"scroll\"><table><thead><tr>";
    for (heading, (is_words, has_interval)) in table.headings.iter().zip(&kinds) {
        let class = if *is_words { " class=\"words\"" } else { "" };
        let span = if *has_interval { " colspan=\"2\"" } else { "" };
        *page += &format!("<th scope=\"col\"{class}{span}>{}</th>", escape(heading));
    }
    *page += "</tr></thead><tbody>\n";
    for row in &table.rows {
        *page += &format!("<tr><th scope=\"row\">{}</th>", escape(&row[0]));
        for (cell, (is_words, has_interval)) in row.iter().zip(&kinds).skip(1) {
            let (mean, interval) = interval_of(cell).unwrap_or((cell, ""));
            let [mean, interval] = [mean, interval].map(escape);
            *page += &match (is_words, has_interval) {
                (_, true) => format!("<td class=\"mean\">{mean}</td><td class=\"interval\">{interval}</td>"),
                (true, _) => format!("<td class=\"words\">{mean}</td>"),
                (false, _) => format!("<td>{mean}</td>"),
            };
        }
        *page += "</tr>\n";
    }
    *page += "</tbody></table></div>\n";
}

/// A mean and the interval behind it, with the number of seeds where that is said.
fn interval_of(cell: &str) -> Option<(&str, &str)> {
    let at = cell.find(" [").filter(|_| cell.ends_with([']', ')']))?;
    Some((&cell[..at], &cell[at + 1..]))
}

/// What a self-contained page begins with, its heading included.
pub fn head(title: &str, css: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{css}</style>\n</head>\n<body>\n<h1>{title}</h1>"
    )
}

/// Text as HTML, inside elements and quoted attributes.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            other => html.push(other),
        }
    }
    html
}
