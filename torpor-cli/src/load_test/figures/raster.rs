//! A PNG of an SVG, with a font that is here wherever the program is.

use epaint_default_fonts::UBUNTU_LIGHT;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use std::sync::Arc;

/// Pixels for each of the SVG's, for those who look closely.
const SCALE: f32 = 2.0;

/// Draws it.
///
/// # Errors
/// What is wrong with the SVG.
pub(super) fn png(svg: &str) -> Result<Vec<u8>, String> {
    let mut options = Options::default();
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_font_data(UBUNTU_LIGHT.to_vec());
    fonts.set_sans_serif_family("Ubuntu");
    "Ubuntu".clone_into(&mut options.font_family);
    let tree = Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or("it has no size")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or("it is too large")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_seen() {
        let with = |text: &str| {
            let svg = format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"90\" height=\"30\"><text x=\"5\" y=\"20\" \
                 font-family=\"sans-serif\" font-size=\"16\">{text}</text></svg>"
            );
            png(&svg).unwrap()
        };
        assert!(with("latency").starts_with(b"\x89PNG"));
        assert_ne!(with("latency"), with(""), "there is a font for it");
        assert!(png("no picture").is_err());
    }
}
