//! A report before it is HTML or Markdown: both say the same because both are written from this.

use crate::chart::Chart;

/// A report.
#[derive(Clone, Debug, Default)]
pub struct Document {
    pub(crate) title: String,
    pub(crate) sections: Vec<Section>,
}

#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub id: &'static str,
    pub title: String,
    pub blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
pub(crate) enum Block {
    Heading(String),
    Text(String),
    List(Vec<String>),
    Table(Table),
    /// Of the page alone.
    Charts(Vec<Chart>),
    Code(String),
    /// Folded up on the page.
    Details(String, Vec<Block>),
    /// A token in its context: before, token, after, weight.
    Excerpts(Vec<[String; 4]>),
}

/// Rows below headings. The first cell of a row is its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub headings: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(headings: impl IntoIterator<Item = impl Into<String>>) -> Table {
        Table { headings: headings.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        debug_assert_eq!(self.rows.last().map(Vec::len), Some(self.headings.len()));
    }

    /// Whether a column is of words: in one of its cells there is neither a number nor nothing.
    pub fn is_words(&self, column: usize) -> bool {
        let is_number = |cell: &String| {
            cell == "-" || cell.trim_start_matches(['+', '-', '[']).starts_with(|c: char| c.is_ascii_digit())
        };
        column == 0 || !self.rows.iter().all(|row| is_number(&row[column]))
    }
}
