//! Figures of a load test: latency, attainment, and how much each GPU was used, as SVG and as PNG.

mod attainment;
mod latency;
mod raster;
mod usage;

use crate::load_test::record::Record;
use crate::load_test::report::Summary;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::prelude::{SVGBackend, WHITE};
use plotters::style::RGBColor;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Names of fonts that are nearly everywhere; in a PNG the one that comes with this program.
const FONT: &str = "sans-serif";
const TITLE_PX: u32 = 22;
const LABEL_PX: u32 = 15;
const WIDTH: u32 = 960;

/// Colours that people with any sight tell apart. Source: Okabe and Ito, Color Universal Design, 2008.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(120, 100, 60),
];

/// Why a figure is not there.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The folder cannot be made, or the file not be written.
    #[error("the figure {path} cannot be written: {error}; --figures names another folder")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It cannot be drawn, which would be a mistake of this program.
    #[error("the figure cannot be drawn: {0}")]
    Undrawable(String),
}

type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for FigureError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self::Undrawable(error.to_string())
    }
}

/// Draws all figures that the records have something for into a folder, and returns the files. `rows` sum the records up.
///
/// # Errors
/// [`FigureError`].
pub fn draw(folder: &Path, records: &[Record], rows: &[Summary]) -> Result<Vec<PathBuf>, FigureError> {
    fs::create_dir_all(folder).map_err(|error| FigureError::Unwritable { path: folder.to_owned(), error })?;
    let mut files = Vec::new();
    let mut write = |name: &str, height: u32, draw: &dyn Fn(&Area<'_>) -> Drawn| {
        let svg = svg(height, draw)?;
        let png = raster::png(&svg).map_err(FigureError::Undrawable)?;
        for (ending, bytes) in [("svg", svg.as_bytes()), ("png", png.as_slice())] {
            let path = folder.join(format!("{name}.{ending}"));
            fs::write(&path, bytes).map_err(|error| FigureError::Unwritable { path: path.clone(), error })?;
            files.push(path);
        }
        Ok::<_, FigureError>(())
    };
    if let Some(figure) = latency::Latency::of(records) {
        write("latency", 540, &|area| figure.draw(area))?;
    }
    if let Some(figure) = attainment::Attainment::of(rows) {
        write("attainment", figure.height(), &|area| figure.draw(area))?;
    }
    if let Some(figure) = usage::Usage::of(records) {
        write("gpus", 480, &|area| figure.draw(area))?;
    }
    Ok(files)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn svg(height: u32, draw: &dyn Fn(&Area<'_>) -> Drawn) -> Result<String, FigureError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(text)
}
