// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Speeds by size, as a picture: one panel for each direction and size of pages.

use std::io::Write;

use anyhow::{anyhow, Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::{pages, size, Row};
use super::speeds::Direction;
use coax_images::result_file::ResultFile;

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 800;
const FONT: &str = "sans-serif";
/// Least room between the curves and the frame, as a factor.
const MARGIN: f64 = 1.3;

/// A curve: its name, its colour, and which speed of a row it shows.
type Curve = (&'static str, RGBColor, fn(&Row) -> Option<f64>);

/// Colours that people who do not see all colours can tell apart (Okabe and Ito).
const CURVES: [Curve; 4] = [
    ("coax", RGBColor(0, 114, 178), |row| row.coax_gbps),
    ("test_hmm", RGBColor(213, 94, 0), |row| row.test_hmm_gbps),
    ("coax, own call", RGBColor(0, 158, 115), |row| {
        row.own_ioctl_gbps
    }),
    ("memcpy on the host", RGBColor(120, 120, 120), |row| {
        row.memcpy_gbps
    }),
];

/// Writes the picture as SVG.
///
/// # Errors
///
/// Nothing was measured, or the file cannot be written.
pub fn write(file: ResultFile, rows: &[Row]) -> Result<()> {
    let plot = draw(rows)?;
    file.write(|mut file| file.write_all(plot.as_bytes()))
}

fn draw(rows: &[Row]) -> Result<String> {
    let speeds = || rows.iter().flat_map(|row| CURVES.map(|curve| curve.2(row)));
    let span = |values: &mut dyn Iterator<Item = f64>| -> Result<(f64, f64)> {
        let first = values.next().context("There is nothing to plot")?;
        let (least, most) =
            values.fold((first, first), |(a, b), value| (a.min(value), b.max(value)));
        Ok((least / MARGIN, most * MARGIN))
    };
    let sizes = span(&mut rows.iter().map(|row| row.bytes as f64))?;
    let speeds = span(&mut speeds().flatten())?;

    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
    draw_panels(&area, rows, sizes, speeds)
        .and_then(|()| Ok(area.present()?))
        .map_err(|error| anyhow!("Cannot draw the plot: {error}"))?;
    drop(area);
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_panels(area: &Area, rows: &[Row], sizes: (f64, f64), speeds: (f64, f64)) -> Drawn {
    area.fill(&WHITE)?;
    let panels = area.split_evenly((2, 2));
    let kinds = Direction::ALL.map(|direction| [true, false].map(|thp| (direction, thp)));
    for (panel, (direction, thp)) in panels.iter().zip(kinds.concat()) {
        let title = format!("{}, pages of {}", direction.name(), pages(thp));
        let mut chart = ChartBuilder::on(panel)
            .caption(title, (FONT, 18))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(55)
            .build_cartesian_2d(
                (sizes.0..sizes.1).log_scale().base(2.0),
                (speeds.0..speeds.1).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc("size")
            .y_desc("GB/s")
            .x_label_formatter(&|bytes| size(*bytes as u64))
            .y_label_formatter(&|speed| format!("{speed}"))
            .light_line_style(WHITE.mix(0.0))
            .draw()?;
        for (name, colour, value) in CURVES {
            let points: Vec<(f64, f64)> = rows
                .iter()
                .filter(|row| row.direction == direction && row.thp == thp)
                .filter_map(|row| Some((row.bytes as f64, value(row)?)))
                .collect();
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3))?
                .label(name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_all_panels_and_curves() {
        let row = |bytes, thp, direction| Row {
            bytes,
            thp,
            direction,
            coax_gbps: Some(1.0),
            test_hmm_gbps: Some(0.2),
            ratio: Some(5.0),
            own_ioctl_gbps: Some(2.0),
            memcpy_gbps: None,
        };
        let rows = [
            row(2 << 20, true, Direction::ToDevice),
            row(1 << 30, true, Direction::ToDevice),
            row(2 << 20, false, Direction::ToSystem),
        ];
        let svg = draw(&rows).expect("there are values");
        assert!(svg.starts_with("<svg"), "{svg}");
        for text in [
            "to device, pages of 2 MiB",
            "to system, pages of 4 KiB",
            "memcpy on the host",
            "GB/s",
        ] {
            assert!(svg.contains(text), "no {text}");
        }
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn nothing_measured_is_said_so() {
        assert!(draw(&[]).is_err());
    }
}
