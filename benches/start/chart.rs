//! The chart: one bar for each launcher, the cheapest first.
//!
//! Bars begin at zero, so that their lengths can be compared; one that is far longer than the others is cut and marked.
//! The background is white, since the picture is shown on light and on dark pages.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;
use crate::launchers::Kind;

const WIDTH: i32 = 860;
/// Where the bars begin and where the longest ends, with room for a number to its right.
const LEFT: i32 = 190;
const RIGHT: i32 = WIDTH - 80;
const TOP: i32 = 74;
const ROW: i32 = 28;
const BAR: i32 = 18;
const BOTTOM: i32 = 68;
/// Longer bars are cut here.
const CUT: f64 = 5.0;

const FAMILY: &str = "sans-serif";
const INK: RGBColor = RGBColor(31, 35, 40);
const PALE_INK: RGBColor = RGBColor(89, 99, 110);
const LINE: RGBColor = RGBColor(222, 226, 230);
const OURS: RGBColor = RGBColor(9, 105, 218);
const FLOOR: RGBColor = RGBColor(110, 119, 129);
const PEERS: RGBColor = RGBColor(182, 190, 199);

pub struct Bar {
    pub name: String,
    pub kind: Kind,
    /// To the floor.
    pub ratio: f64,
    /// For a launcher that creates a file.
    pub to_floor_with_file: Option<f64>,
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the chart to `path`.
pub fn draw(path: &Path, mut bars: Vec<Bar>, title: &str, subtitle: &str) -> Result<()> {
    bars.sort_by(|one, other| one.ratio.total_cmp(&other.ratio));
    let rows = i32::try_from(bars.len())?;
    let height = TOP + rows * ROW + BOTTOM;
    let canvas = SVGBackend::new(path, (WIDTH.unsigned_abs(), height.unsigned_abs())).into_drawing_area();
    canvas.fill(&WHITE)?;
    write(&canvas, title, (16, 26), 19, INK, HPos::Left)?;
    write(&canvas, subtitle, (16, 50), 13, PALE_INK, HPos::Left)?;

    let end = bars.iter().map(|bar| bar.ratio).fold(1.0, f64::max).min(CUT);
    #[allow(clippy::cast_possible_truncation)] // a column of the picture
    let column = |ratio: f64| LEFT + (f64::from(RIGHT - LEFT) * ratio / end).round() as i32;
    let bottom = TOP + rows * ROW;
    let step = if end > 2.5 { 1.0 } else { 0.25 };
    let mut tick = 0.0;
    while tick <= end {
        let x = column(tick);
        let line = if (tick - 1.0).abs() < f64::EPSILON { FLOOR } else { LINE };
        canvas.draw(&PathElement::new([(x, TOP - 4), (x, bottom)], line))?;
        write(&canvas, &format!("{tick}"), (x, bottom + 12), 12, PALE_INK, HPos::Center)?;
        tick += step;
    }
    let axis = "wall time until the launcher has exited, median, as a multiple of the floor's";
    write(&canvas, axis, (LEFT, bottom + 34), 12, PALE_INK, HPos::Left)?;
    let parentheses = "(in parentheses: as a multiple of the time of the floor with a file)";
    write(&canvas, parentheses, (LEFT, bottom + 52), 12, PALE_INK, HPos::Left)?;

    for (row, bar) in (0..rows).zip(&bars) {
        let middle = TOP + row * ROW + ROW / 2;
        let colour = match bar.kind {
            Kind::Floor | Kind::FloorWithFile => FLOOR,
            Kind::Detach => OURS,
            Kind::Peer => PEERS,
        };
        let right = column(bar.ratio.min(end));
        let corners = [(LEFT, middle - BAR / 2), (right, middle + BAR / 2)];
        canvas.draw(&Rectangle::new(corners, colour.filled()))?;
        if bar.ratio > end {
            mark_cut(&canvas, right - 22, middle)?;
        }
        let ink = if bar.kind == Kind::Detach { OURS } else { INK };
        write(&canvas, &bar.name, (LEFT - 10, middle), 14, ink, HPos::Right)?;
        let ratio = match bar.to_floor_with_file.filter(|_| bar.kind == Kind::Detach) {
            Some(other) => format!("{:.2} ({other:.2})", bar.ratio),
            None => format!("{:.2}", bar.ratio),
        };
        // No line of the grid through a number.
        let digits = i32::try_from(ratio.len())?;
        let room = [(right + 4, middle - BAR / 2), (right + 10 + digits * 7, middle + BAR / 2)];
        canvas.draw(&Rectangle::new(room, WHITE.filled()))?;
        write(&canvas, &ratio, (right + 8, middle), 14, ink, HPos::Left)?;
    }
    canvas.present()?;
    Ok(())
}

/// Two slanting gaps in a bar.
fn mark_cut(canvas: &Canvas, x: i32, middle: i32) -> Result<()> {
    for x in [x, x + 8] {
        let ends = [(x - 3, middle + BAR / 2 + 2), (x + 3, middle - BAR / 2 - 2)];
        canvas.draw(&PathElement::new(ends, WHITE.stroke_width(3)))?;
    }
    Ok(())
}

fn write(canvas: &Canvas, text: &str, place: (i32, i32), size: i32, ink: RGBColor, anchor: HPos) -> Result<()> {
    let style = (FAMILY, size).into_font().color(&ink).pos(Pos::new(anchor, VPos::Center));
    canvas.draw(&Text::new(text, place, style)).map_err(|error| Box::<dyn Error>::from(error.to_string()))
}
