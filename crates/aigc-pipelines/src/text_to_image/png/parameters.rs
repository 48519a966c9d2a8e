//! The text `parameters` of Stable Diffusion's web interface: the prompt, a line with the negative
//! prompt, and a line `Steps: 20, Sampler: …, CFG scale: 7, Seed: 1, Size: 512x512, Model: …`.

use super::Stored;
use aigc_diffusion::AnyScheduler;

const NEGATIVE: &str = "Negative prompt: ";

pub(super) fn write(stored: &Stored) -> String {
    let mut fields: Vec<(String, String)> = vec![];
    let mut field = |name: &str, value: Option<String>| {
        fields.extend(value.map(|value| (name.to_owned(), value)));
    };
    let setting = |name: &str| {
        let found = stored.settings.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.clone())
    };
    field(
        "Steps",
        stored.num_inference_steps.map(|steps| steps.to_string()),
    );
    field("Sampler", setting("scheduler"));
    field(
        "CFG scale",
        stored.guidance_scale.map(|scale| scale.to_string()),
    );
    field("Seed", stored.seed.map(|seed| seed.to_string()));
    field("Image index", stored.index.map(|index| index.to_string()));
    field("Size", stored.size.map(|size| size.to_string()));
    field(
        "Denoising strength",
        stored.strength.map(|strength| strength.to_string()),
    );
    field("Model hash", stored.model_hash.clone());
    field(
        "Model",
        Some(stored.model.clone()).filter(|model| !model.is_empty()),
    );
    field(
        "Version",
        Some(concat!("aigc ", env!("CARGO_PKG_VERSION")).into()),
    );
    let line: Vec<String> = fields
        .into_iter()
        .map(|(name, value)| format!("{name}: {}", quoted(&value)))
        .collect();
    let negative = match &stored.negative_prompt {
        Some(negative) => format!("\n{NEGATIVE}{negative}"),
        None => String::new(),
    };
    let text = format!("{}{negative}\n{}", stored.prompt, line.join(", "));
    // The character that ends texts in PNG files.
    text.replace('\0', "")
}

pub(super) fn read(text: &str) -> Stored {
    let text = text.trim_end();
    let (prompts, fields) = match text.rsplit_once('\n') {
        Some((prompts, last)) if is_fields(last) => (prompts, pairs(last)),
        None if is_fields(text) => ("", pairs(text)),
        _ => (text, vec![]),
    };
    let at_start = prompts
        .strip_prefix(NEGATIVE)
        .map(|negative| ("", negative));
    let (prompt, negative) = at_start
        .or_else(|| prompts.split_once(&format!("\n{NEGATIVE}")))
        .map_or((prompts, None), |(prompt, negative)| {
            (prompt, Some(negative))
        });
    let field = |name: &str| {
        let found = fields.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    };
    let sampler = field("Sampler").map(|value| {
        let is_class = AnyScheduler::CLASSES.contains(&value);
        let name = if is_class { "scheduler" } else { "sampler" };
        (name.to_owned(), value.to_owned())
    });
    Stored {
        prompt: prompt.into(),
        negative_prompt: negative.map(Into::into),
        size: field("Size").and_then(|size| size.parse().ok()),
        seed: field("Seed").and_then(|seed| seed.parse().ok()),
        index: field("Image index").and_then(|index| index.parse().ok()),
        n: None,
        guidance_scale: field("CFG scale").and_then(|scale| scale.parse().ok()),
        num_inference_steps: field("Steps").and_then(|steps| steps.parse().ok()),
        strength: field("Denoising strength").and_then(|strength| strength.parse().ok()),
        model: field("Model").unwrap_or_default().into(),
        model_hash: field("Model hash").map(Into::into),
        settings: sampler.into_iter().collect(),
        inputs: vec![],
    }
}

/// Whether a line has fields: a prompt may have colons, too.
fn is_fields(line: &str) -> bool {
    line.starts_with("Steps: ") || line.contains(", Seed: ") || line.contains(", Version: ")
}

/// A value, as a JSON string if it has characters that separate fields.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n', '"']) {
        serde_json::to_string(value).expect("a text")
    } else {
        value.into()
    }
}

/// The fields of a line `name: value, name: "quoted value"`.
fn pairs(line: &str) -> Vec<(String, String)> {
    let mut pairs = vec![];
    let mut rest = line;
    while let Some((name, after)) = rest.split_once(": ") {
        let mut quoted = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let read = match after.starts_with('"') {
            true => quoted.next().and_then(|value| value.ok()),
            false => None,
        };
        let (value, behind) = match read {
            Some(value) => (value, &after[quoted.byte_offset()..]),
            None => {
                let end = after.find(", ").unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        pairs.push((name.trim().to_owned(), value));
        rest = behind.trim_start_matches([',', ' ']);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_web_interface() {
        let text = "a cat\nsitting\nNegative prompt: bad,\nworse\nSteps: 20, Sampler: Euler a, \
                    CFG scale: 7, Seed: 965400086, Size: 512x768, Model hash: 45dee52b, \
                    Lora hashes: \"x: 1, y: 2\", Denoising strength: 0.5";
        let stored = read(text);
        assert_eq!(stored.prompt, "a cat\nsitting");
        assert_eq!(stored.negative_prompt.as_deref(), Some("bad,\nworse"));
        assert_eq!(
            (stored.seed, stored.num_inference_steps),
            (Some(965_400_086), Some(20))
        );
        assert_eq!(stored.strength, Some(0.5));
        assert_eq!(stored.size.unwrap().to_string(), "512x768");
        assert_eq!(stored.settings, [("sampler".into(), "Euler a".into())]);
        let ours = read("a\nSteps: 3, Sampler: DDIMScheduler, Seed: 1");
        assert_eq!(
            ours.settings,
            [("scheduler".into(), "DDIMScheduler".into())]
        );
        // Without fields, all is the prompt.
        assert_eq!(read("just a prompt").prompt, "just a prompt");
        assert_eq!(read("a cat\nstyle: oil").prompt, "a cat\nstyle: oil");
        assert_eq!(read("Steps: 3, Seed: 1").num_inference_steps, Some(3));
    }
}
