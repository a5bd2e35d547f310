//! A table: in columns that fit a terminal, or separated by tabs for other readers.
//!
//! Widths are those of a terminal, on which some characters take two columns and some none.

use nu_ansi_term::Style;
use unicode_width::UnicodeWidthStr;

use crate::term::text::cut;

/// Between two columns.
const GAP: usize = 2;

/// One field of a row; it holds no control characters.
pub struct Cell {
    pub text: String,
    pub style: Style,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, style: Style::new() }
    }
}

/// How a column looks.
#[derive(Clone, Copy)]
pub enum Column {
    /// Aligned to the left, at most this wide on a terminal.
    Text(&'static str, usize),
    /// Aligned to the right.
    Number(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Text(title, _) | Self::Number(title) => title,
        }
    }
}

/// One line a row, the fields separated by tabs: nothing is cut, and there is no heading.
pub fn with_tabs(rows: &[Vec<Cell>]) -> String {
    let line = |row: &Vec<Cell>| row.iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>().join("\t") + "\n";
    rows.iter().map(line).collect()
}

/// Columns under a heading, every line cut at `width`.
pub fn in_columns(columns: &[Column], rows: &[Vec<Cell>], width: usize, has_colour: bool) -> String {
    let heading = columns.iter().map(|column| Cell { text: column.title().to_owned(), style: Style::new().dimmed() });
    let heading: Vec<Cell> = heading.collect();
    let rows: Vec<&Vec<Cell>> = std::iter::once(&heading).chain(rows).collect();
    let widths = columns.iter().enumerate().map(|(number, column)| {
        let widest = rows.iter().filter_map(|row| row.get(number)).map(|cell| cell.text.width()).max().unwrap_or(0);
        if let Column::Text(_, most) = column { widest.min(*most) } else { widest }
    });
    let widths: Vec<usize> = widths.collect();
    let mut text = String::new();
    for row in rows {
        let mut left = width;
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(columns).zip(&widths) {
            let field = cut(&cell.text, (*width).min(left));
            let padding = " ".repeat(width.min(&left).saturating_sub(field.width()));
            let style = if has_colour { cell.style } else { Style::new() };
            let field = style.paint(field).to_string();
            line += &match column {
                Column::Text(..) => field + &padding,
                Column::Number(_) => padding + &field,
            };
            left = left.saturating_sub(width + GAP);
            line += &" ".repeat(GAP.min(left));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<Cell>> {
        [["1", "make", "make -j8 all"], ["4242", "宽字符宽字符", "x"]]
            .map(|row| row.map(|text| Cell::from(text.to_owned())).into())
            .into()
    }

    #[test]
    fn columns_fit_the_terminal() {
        let columns = [Column::Number("PID"), Column::Text("NAME", 8), Column::Text("COMMAND", usize::MAX)];
        let at = |width| in_columns(&columns, &rows(), width, false);
        assert_eq!(at(80), " PID  NAME      COMMAND\n   1  make      make -j8 all\n4242  宽字符…   x\n");
        assert_eq!(at(22), " PID  NAME      COMMA…\n   1  make      make …\n4242  宽字符…   x\n");
        assert_eq!(at(5), " PID\n   1\n4242\n");
        assert_eq!(at(0), "\n\n\n");
    }

    #[test]
    fn tabs_cut_nothing() {
        assert_eq!(with_tabs(&rows()), "1\tmake\tmake -j8 all\n4242\t宽字符宽字符\tx\n");
    }

    #[test]
    fn colour_is_put_around_the_field_alone() {
        let style = Style::new().bold();
        let rows = [vec![Cell { text: "a".into(), style }, Cell::from("b".to_owned())]];
        let columns = [Column::Text("AB", 9), Column::Text("C", 9)];
        let text = in_columns(&columns, &rows, 80, true);
        assert!(text.ends_with("\n\u{1b}[1ma\u{1b}[0m   b\n"), "{text:?}");
    }
}
