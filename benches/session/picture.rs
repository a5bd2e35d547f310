//! The windows as an SVG: one below the other, each with a caption.
//!
//! A run of characters has its place and its length in the picture, so that columns stay columns in any font. The page
//! shows through between the windows; there is a palette for light pages and one for dark ones.

use std::fmt::Write;

use crate::screen::{Line, Run, Style};

pub struct Palette {
    window: &'static str,
    border: &'static str,
    ink: &'static str,
    /// Dim text, and captions.
    pale_ink: &'static str,
    /// Black, red, green, yellow, blue, magenta, cyan, white.
    colours: [&'static str; 8],
}

pub const LIGHT: Palette = Palette {
    window: "#f6f8fa",
    border: "#d1d9e0",
    ink: "#1f2328",
    pale_ink: "#59636e",
    colours: ["#1f2328", "#cf222e", "#1a7f37", "#9a6700", "#0969da", "#8250df", "#1b7c83", "#59636e"],
};

pub const DARK: Palette = Palette {
    window: "#151b23",
    border: "#3d444d",
    ink: "#e6edf3",
    pale_ink: "#9198a1",
    colours: ["#656c76", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#e6edf3"],
};

const FAMILY: &str = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
const SIZE: usize = 14;
/// The width of a character, in tenths: 0.6 em, as in most fonts.
const COLUMN_TENTHS: usize = 84;
const ROW: usize = 20;
const PADDING: usize = 14;
const CAPTION: usize = 26;
const GAP: usize = 12;

pub fn draw(windows: &[(&str, Vec<Line>)], palette: &Palette) -> String {
    let lines = windows.iter().flat_map(|(_, lines)| lines);
    let columns = lines.map(|line| line.last().map_or(0, |run| run.column + width(run))).max().unwrap_or(0);
    let full_width = columns * COLUMN_TENTHS / 10 + 2 * PADDING + 2;
    let mut body = String::new();
    let mut top = 0;
    for (caption, lines) in windows {
        let ink = palette.pale_ink;
        writeln!(body, r#"<text x="1" y="{}" fill="{ink}">{caption}</text>"#, top + CAPTION - 10).unwrap();
        top += CAPTION;
        let height = lines.len() * ROW + 2 * PADDING;
        let (window, border) = (palette.window, palette.border);
        let size = format!(r#"width="{}" height="{height}""#, full_width - 1);
        writeln!(body, r#"<rect x="0.5" y="{top}.5" {size} rx="8" fill="{window}" stroke="{border}"/>"#).unwrap();
        for (row, line) in lines.iter().enumerate() {
            for run in line {
                draw_run(&mut body, run, top + PADDING + row * ROW + 15, palette);
            }
        }
        top += height + GAP;
    }
    let full_height = top - GAP + 2;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {full_width} {full_height}\" \
         width=\"{full_width}\" height=\"{full_height}\" font-family=\"{FAMILY}\" font-size=\"{SIZE}\">\n{body}</svg>\n"
    )
}

fn draw_run(body: &mut String, run: &Run, baseline: usize, palette: &Palette) {
    let text = run.text.trim();
    if text.is_empty() {
        return;
    }
    let indent = run.text.chars().take_while(|character| *character == ' ').count();
    let x = PADDING * 10 + (run.column + indent) * COLUMN_TENTHS;
    let length = text.chars().count() * COLUMN_TENTHS;
    let Style { is_bold, is_dim, colour } = run.style;
    let ink = match colour {
        Some(colour) => palette.colours[usize::from(colour)],
        None if is_dim => palette.pale_ink,
        None => palette.ink,
    };
    let weight = if is_bold { r#" font-weight="bold""# } else { "" };
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    writeln!(
        body,
        r#"<text x="{}" y="{baseline}" textLength="{}" fill="{ink}"{weight} xml:space="preserve">{text}</text>"#,
        tenths(x),
        tenths(length)
    )
    .unwrap();
}

fn width(run: &Run) -> usize {
    run.text.chars().count()
}

fn tenths(number: usize) -> String {
    format!("{}.{}", number / 10, number % 10)
}
