//! Writes a form of texts and files (`multipart/form-data`, RFC 7578).

use super::{ImageFile, random::random_hex, request::RequestBody};
use std::borrow::Cow;

/// A form. Parts are kept until the end, because the boundary must not occur in them.
#[derive(Default)]
pub(super) struct Multipart<'a> {
    /// Headers and content.
    parts: Vec<(String, Cow<'a, [u8]>)>,
}

impl<'a> Multipart<'a> {
    /// Adds a text.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        let head = format!(
            "Content-Disposition: form-data; name=\"{}\"\r\n\r\n",
            escaped(name)
        );
        self.parts.push((head, value.as_bytes().to_vec().into()));
    }

    /// Adds a file; its name gets the extension of its format.
    pub(super) fn file(&mut self, name: &str, file_name: &str, image: &'a ImageFile) {
        let format = image.format();
        let head = format!(
            "Content-Disposition: form-data; name=\"{}\"; filename=\"{file_name}.{}\"\r\n\
             Content-Type: {}\r\n\r\n",
            escaped(name),
            format.extension(),
            format.mime_type()
        );
        self.parts.push((head, image.bytes().into()));
    }

    /// The form with a boundary that no part contains.
    pub(super) fn finish(self) -> RequestBody {
        let contains = |part: &[u8], boundary: &str| {
            let mut windows = part.windows(boundary.len());
            windows.any(|window| window == boundary.as_bytes())
        };
        let boundary = loop {
            let boundary = format!("aigc-{}", random_hex());
            if !self.parts.iter().any(|(_, part)| contains(part, &boundary)) {
                break boundary;
            }
        };
        let mut bytes = Vec::new();
        for (head, part) in &self.parts {
            bytes.extend_from_slice(format!("--{boundary}\r\n{head}").as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        RequestBody {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            bytes,
        }
    }
}

/// A name within quotation marks, as HTML's forms write it.
fn escaped(name: &str) -> String {
    name.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_has_every_part_once() {
        let image = image::DynamicImage::new_rgb8(2, 1);
        let image = ImageFile::from_image(&image).unwrap();
        let mut form = Multipart::default();
        form.text("prompt", "two\r\nlines, \"quoted\"");
        form.text("odd\"name\n", "x");
        form.file("image", "image-0", &image);
        let body = form.finish();
        let boundary = body.content_type.split_once("boundary=").unwrap().1;
        let bytes = &body.bytes;
        let text = String::from_utf8_lossy(bytes);
        let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
        assert_eq!(parts.len(), 5);
        assert_eq!(
            parts[1],
            "\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n\
             two\r\nlines, \"quoted\"\r\n"
        );
        assert!(parts[2].contains("name=\"odd%22name%0A\"\r\n\r\nx\r\n"));
        assert!(parts[3].contains("filename=\"image-0.png\"\r\nContent-Type: image/png\r\n\r\n"));
        assert_eq!(parts[4], "--\r\n");
        let mut windows = bytes.windows(8);
        let start = windows.position(|window| window == b"\x89PNG\r\n\x1a\n");
        let start = start.unwrap();
        assert_eq!(&bytes[start..start + image.bytes().len()], image.bytes());
    }
}
