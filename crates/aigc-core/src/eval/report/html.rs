//! Text in HTML, escaped.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Escapes text for the content of an element and for a quoted attribute. Control characters, which
/// HTML does not allow, become U+FFFD; line breaks and tabs stay.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Text of others, escaped and isolated: marks that reverse the direction of text end with it.
pub(super) fn isolate(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(text))
}

/// JSON for a `script` element, where nothing can end the element.
pub(super) fn json_in_script(json: &str) -> String {
    // Outside of strings, JSON has none of these characters.
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// A `data:` address of bytes.
pub(super) fn data_uri(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

/// Length of [`data_uri`] without the media type.
pub(super) fn encoded_length(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// `1 image`, `2 images`; nouns with a regular plural.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let number = super::number::integer(count as u64);
    if count == 1 {
        format!("{number} {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_inert() {
        assert_eq!(
            escape("<script>alert('1')</script> & \"x\"\0\n"),
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;x&quot;\u{fffd}\n"
        );
        let json = serde_json::to_string("</script><!--\u{2028}&").unwrap();
        let inside = json_in_script(&json);
        assert!(!inside.contains(['<', '>', '&', '\u{2028}']), "{inside}");
        assert_eq!(
            serde_json::from_str::<String>(&inside).unwrap(),
            "</script><!--\u{2028}&"
        );
    }

    #[test]
    fn data_uri_is_base64() {
        assert_eq!(
            data_uri("image/png", b"abcd"),
            "data:image/png;base64,YWJjZA=="
        );
        assert_eq!(encoded_length(4), 8);
        assert_eq!(
            (counted(1, "image"), counted(2000, "image")),
            ("1 image".into(), "2,000 images".into())
        );
    }
}
