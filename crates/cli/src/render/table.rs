//! Small tables: aligned text for a terminal.

use unicode_width::UnicodeWidthStr;

/// A table with one line of headings. Columns whose cells are all numbers are aligned to the right.
#[derive(Clone, Debug)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(headings: &[&str]) -> Table {
        Table { headings: headings.iter().map(|text| text.to_string()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When the row has more or fewer cells than there are headings.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        assert_eq!(cells.len(), self.headings.len(), "a row has a cell for every heading");
        self.rows.push(cells);
    }

    /// Aligned with spaces, two between columns, a rule under the headings.
    pub fn to_plain(&self) -> String {
        let widths = self.widths();
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let lines = [&self.headings, &rule].into_iter().chain(&self.rows);
        lines.map(|cells| self.aligned(cells, &widths, "  ").trim_end().to_string() + "\n").collect()
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|cells| &cells[column]);
            cells.chain([&self.headings[column]]).map(|cell| cell.width()).max().unwrap_or(0)
        };
        (0..self.headings.len()).map(width).collect()
    }

    fn aligned(&self, cells: &[String], widths: &[usize], separator: &str) -> String {
        let padded: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                let padding = " ".repeat(widths[column] - cell.width());
                if self.is_numeric(column) { padding + cell } else { cell.clone() + &padding }
            })
            .collect();
        padded.join(separator)
    }

    /// Whether all cells of a column that say something start as numbers do; units may follow.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|cells| cells[column].as_str()).filter(|cell| !is_blank(cell));
        let starts_as_number = |cell: &str| {
            cell.trim_start_matches(['-', '+', '±', '.']).starts_with(|first: char| first.is_ascii_digit())
        };
        self.rows.iter().any(|cells| !is_blank(&cells[column])) && cells.all(starts_as_number)
    }
}

fn is_blank(cell: &str) -> bool {
    matches!(cell, "" | "-" | "–" | "—")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["arm", "held-out loss", "mean weight"]);
        table.row(["NTP", "1.234", "-"]);
        table.row(["ReMiT", "-0.9", "1.003"]);
        table.row(["日本 | x", "12.5 MiB", ""]);
        table
    }

    #[test]
    fn plain_tables_align_numbers_to_the_right() {
        assert_eq!(
            table().to_plain(),
            "\
arm       held-out loss  mean weight
--------  -------------  -----------
NTP               1.234            -
ReMiT              -0.9        1.003
日本 | x       12.5 MiB
"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        assert_eq!(Table::new(&["a", "bc"]).to_plain(), "a  bc\n-  --\n");
    }
}
