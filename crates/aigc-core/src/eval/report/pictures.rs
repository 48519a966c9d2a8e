//! Grids of images with their nearest training images.

use super::{
    html::{counted, encoded_length, escape, isolate},
    number::significant,
    page::Page,
};
use crate::{Error, Result};
use serde::Serialize;

/// Images of up to this side are shown with square pixels.
const TINY: u32 = 64;
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// An image of the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Picture {
    #[serde(skip)]
    png: Vec<u8>,
    width: u32,
    height: u32,
}

impl Picture {
    /// The image of a PNG file, which is embedded unchanged.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the bytes do not begin like a PNG file.
    pub fn from_png(png: Vec<u8>) -> Result<Self> {
        let side = |at: usize| {
            let bytes = png.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?)).filter(|side| *side > 0)
        };
        let is_png = png.starts_with(PNG_SIGNATURE) && png.get(12..16) == Some(b"IHDR");
        match (is_png, side(16), side(20)) {
            (true, Some(width), Some(height)) => Ok(Self { width, height, png }),
            _ => Err(Error::argument(
                "png",
                format!("{} bytes without a PNG header", png.len()),
                "the content of a PNG file",
            )),
        }
    }

    /// The images of a batch.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`, channels 1 (grey) or 3 (RGB)
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no image, or the channels are neither 1 nor 3.
    #[cfg(feature = "image")]
    pub fn from_tensor(images: &burn::tensor::Tensor<4>) -> Result<Vec<Self>> {
        use crate::output::ImageGrid;
        if images.dims()[0] == 0 {
            return Err(Error::argument("images", "empty", "at least one image"));
        }
        let grid = ImageGrid {
            scale: 1,
            padding: 0,
            ..ImageGrid::new(1, 1)
        };
        (0..images.dims()[0])
            .map(|i| {
                let drawn = grid.draw(&images.clone().narrow(0, i, 1))?;
                let mut png = std::io::Cursor::new(Vec::new());
                drawn
                    .write_to(&mut png, image::ImageFormat::Png)
                    .map_err(Error::other)?;
                Self::from_png(png.into_inner())
            })
            .collect()
    }

    fn render(&self, out: &mut String, alt: &str) {
        let class = if self.is_tiny() {
            " class=\"tiny\""
        } else {
            ""
        };
        out.push_str(&format!(
            "<img{class} width=\"{}\" height=\"{}\" alt=\"{}\" src=\"{}\">",
            self.width,
            self.height,
            escape(alt),
            super::html::data_uri("image/png", &self.png)
        ));
    }

    fn is_tiny(&self) -> bool {
        self.width.max(self.height) <= TINY
    }
}

/// A sample with its nearest training images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    picture: Picture,
    caption: String,
    neighbors: Vec<Neighbor>,
}

/// A training image near a sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Neighbor {
    picture: Picture,
    label: String,
    distance: f64,
    is_copy: bool,
}

impl Sample {
    /// A sample with a caption, such as its file, prompt or class.
    pub fn new(picture: Picture, caption: impl Into<String>) -> Self {
        Self {
            picture,
            caption: caption.into(),
            neighbors: Vec::new(),
        }
    }

    /// Adds a training image beneath the sample: its name or number, its distance, and whether the
    /// sample is flagged as a copy of it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a distance that is not finite.
    pub fn with_neighbor(
        mut self,
        picture: Picture,
        label: impl Into<String>,
        distance: f64,
        is_copy: bool,
    ) -> Result<Self> {
        if !distance.is_finite() {
            return Err(Error::argument("distance", distance, "a finite number"));
        }
        self.neighbors.push(Neighbor {
            picture,
            label: label.into(),
            distance,
            is_copy,
        });
        Ok(self)
    }

    fn size(&self) -> usize {
        let neighbors = self.neighbors.iter().map(|n| &n.picture);
        std::iter::once(&self.picture)
            .chain(neighbors)
            .map(|picture| encoded_length(picture.png.len()))
            .sum()
    }

    fn render(&self, out: &mut String) {
        let copy = self.neighbors.iter().any(|n| n.is_copy);
        out.push_str(if copy {
            "<li><figure class=\"sample copy\">"
        } else {
            "<li><figure class=\"sample\">"
        });
        let alt = if self.caption.is_empty() {
            "sample"
        } else {
            &self.caption
        };
        self.picture.render(out, alt);
        if !self.neighbors.is_empty() {
            out.push_str("<div class=\"near\">");
            for neighbor in &self.neighbors {
                neighbor.picture.render(
                    out,
                    &format!(
                        "training image {}, distance {}",
                        neighbor.label,
                        significant(neighbor.distance, 3)
                    ),
                );
            }
            out.push_str("</div>");
        }
        out.push_str("<figcaption>");
        if copy {
            out.push_str("<strong class=\"flag\">copy</strong> ");
        }
        out.push_str(&isolate(&self.caption));
        if let Some(nearest) = self.neighbors.first() {
            out.push_str(&format!(
                "<span class=\"distance\">{} at {}</span>",
                isolate(&nearest.label),
                significant(nearest.distance, 3)
            ));
        }
        out.push_str("</figcaption></figure></li>");
    }
}

/// Samples in rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Gallery {
    caption: String,
    samples: Vec<Sample>,
}

impl Gallery {
    /// Samples with a caption that says what they are and how they were chosen.
    pub fn new(caption: impl Into<String>, samples: Vec<Sample>) -> Self {
        Self {
            caption: caption.into(),
            samples,
        }
    }

    pub(super) fn render(&self, out: &mut String, page: &mut Page) {
        let fits = page.take_media(self.samples.iter().map(Sample::size));
        let widest = self.samples.iter().map(|s| s.picture.width).max();
        let class = match widest {
            Some(width) if width > 160 => "large",
            Some(width) if width > TINY => "medium",
            _ => "small",
        };
        out.push_str(&format!("<p class=\"caption\">{}", isolate(&self.caption)));
        if self.samples.iter().any(|s| !s.neighbors.is_empty()) {
            out.push_str(
                " Beneath each sample: the nearest training images, with the distance of the \
                 nearest.",
            );
        }
        let copies = self
            .samples
            .iter()
            .filter(|s| s.neighbors.iter().any(|n| n.is_copy))
            .count();
        if copies > 0 {
            out.push_str(&format!(
                " Flagged as a copy: {}.",
                counted(copies, "sample")
            ));
        }
        if fits < self.samples.len() {
            out.push_str(&format!(
                " Shown: the first {fits} of {}, which the size limit of the page allows.",
                counted(self.samples.len(), "sample")
            ));
        }
        out.push_str(&format!("</p><ul class=\"gallery {class}\">"));
        for sample in &self.samples[..fits] {
            sample.render(out);
        }
        out.push_str("</ul>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header is all that the page looks at.
    fn header(width: u32, height: u32, padding: usize) -> Vec<u8> {
        let mut png = PNG_SIGNATURE.to_vec();
        png.extend_from_slice(b"\0\0\0\x0dIHDR");
        png.extend_from_slice(&width.to_be_bytes());
        png.extend_from_slice(&height.to_be_bytes());
        png.resize(png.len() + padding, 0);
        png
    }

    #[test]
    fn only_png_is_accepted() {
        assert!(Picture::from_png(header(28, 28, 9)).unwrap().is_tiny());
        assert!(!Picture::from_png(header(28, 65, 9)).unwrap().is_tiny());
        let cut = header(28, 28, 0)[..20].to_vec();
        for bytes in [vec![], b"GIF89a".to_vec(), header(0, 28, 9), cut] {
            let error = Picture::from_png(bytes).unwrap_err().to_string();
            assert!(error.contains("PNG"), "{error}");
        }
    }

    #[cfg(all(feature = "image", feature = "flex"))]
    #[test]
    fn batches_become_pictures() {
        use burn::tensor::{Device, Tensor};
        let pictures = |shape: [usize; 4]| {
            let images = Tensor::<4>::zeros(shape, &Device::flex());
            Picture::from_tensor(&images)
        };
        let found = pictures([2, 3, 5, 7]).unwrap();
        let sides: Vec<_> = found.iter().map(|p| (p.width, p.height)).collect();
        assert_eq!(sides, [(7, 5), (7, 5)]);
        for (shape, expected) in [
            ([0, 1, 4, 4], "`images` is empty"),
            ([1, 2, 4, 4], "`channels` is 2"),
        ] {
            let error = pictures(shape).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn neighbors_need_a_distance() {
        let picture = Picture::from_png(header(8, 8, 0)).unwrap();
        let sample = Sample::new(picture.clone(), "a");
        assert!(sample.with_neighbor(picture, "b", f64::NAN, false).is_err());
    }
}
