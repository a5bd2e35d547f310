//! What is on the screen after a terminal was sent this text: lines of characters with a style.
//!
//! Newlines and the styles of ECMA-48 that detach uses are all that is known here. Anything else would be drawn wrong,
//! so it ends the program.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub is_bold: bool,
    pub is_dim: bool,
    /// A color from 0, black, to 7, white.
    pub colour: Option<u8>,
}

/// Characters of one style.
#[derive(Debug)]
pub struct Run {
    /// Where it begins.
    pub column: usize,
    pub style: Style,
    pub text: String,
}

pub type Line = Vec<Run>;

pub fn read(sent: &str) -> Vec<Line> {
    let mut style = Style::default();
    sent.replace("\r\n", "\n").lines().map(|line| read_line(line, &mut style)).collect()
}

fn read_line(line: &str, style: &mut Style) -> Line {
    let mut runs = Line::new();
    let mut column = 0;
    // Each part but the first begins behind the introducer of a control sequence.
    for (place, part) in line.split("\x1b[").enumerate() {
        let text = if place == 0 {
            part
        } else {
            let (codes, text) = part.split_once('m').unwrap_or_else(|| panic!("no style: {line:?}"));
            for code in codes.split(';') {
                apply(code, style, line);
            }
            text
        };
        assert!(!text.contains(char::is_control), "{line:?}");
        if !text.is_empty() {
            runs.push(Run { column, style: *style, text: text.to_owned() });
        }
        column += text.chars().count();
    }
    runs
}

/// Select graphic rendition, ECMA-48 section 8.3.117.
fn apply(code: &str, style: &mut Style, line: &str) {
    match code.parse() {
        Ok(0) => *style = Style::default(),
        Ok(1) => style.is_bold = true,
        Ok(2) => style.is_dim = true,
        Ok(code @ 30..=37) => style.colour = Some(code - 30),
        _ => panic!("style {code:?} in {line:?}"),
    }
}
