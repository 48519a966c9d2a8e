//! Texts of files.

use crate::{
    book::{Book, some_of},
    subject::Content,
};
use aigc_core::{DataFault, Error, Result, fs::read_text, rng::Rng};
use std::path::Path;

/// Documents from which whole ones are held out.
const MANY: usize = 10;
/// Size of all documents, in bytes: what an index of copied passages holds in 8 GiB.
const MAX_BYTES: u64 = 1_500_000_000;

/// Texts with their names; there is at least one.
#[derive(Clone, Debug)]
pub(crate) struct Texts {
    pub(crate) name: String,
    pub(crate) texts: Vec<String>,
    pub(crate) names: Vec<String>,
}

impl Texts {
    /// The documents of a file or a folder. Files that cannot be read are left out, with a warning
    /// that names them.
    pub(crate) fn documents(path: &Path, book: &mut Book) -> Result<Self> {
        let files = Content::Texts.files(path)?;
        // Before any is read. What has no size fails below.
        let sizes = files.iter().filter_map(|file| std::fs::metadata(file).ok());
        let bytes: u64 = sizes.map(|about| about.len()).sum();
        if bytes > MAX_BYTES {
            return Err(Error::argument(
                "texts",
                format!("{bytes} bytes in {}", path.display()),
                format!("at most {MAX_BYTES} in all: give a part of them"),
            ));
        }
        let (mut broken, mut failed) = (Vec::new(), None);
        let mut found = Self {
            name: path.display().to_string(),
            texts: vec![],
            names: vec![],
        };
        for file in &files {
            let name = file.strip_prefix(path).unwrap_or(file);
            let name = match name.as_os_str().is_empty() {
                true => file.display().to_string(),
                false => name.display().to_string(),
            };
            match read_text(file) {
                Ok(text) if text.trim().is_empty() => {
                    let empty = || Error::data(file, DataFault::Empty("it has no text".into()));
                    failed.get_or_insert_with(empty);
                    broken.push(name);
                }
                Ok(text) => {
                    found.texts.push(text);
                    found.names.push(name);
                }
                Err(error) => {
                    failed.get_or_insert(error);
                    broken.push(name);
                }
            }
        }
        match failed {
            Some(first) if found.texts.is_empty() => {
                let reason = format!(
                    "none of its {} texts can be read; the first: {first}",
                    files.len()
                );
                return Err(Error::data(path, DataFault::Empty(reason)));
            }
            Some(first) => book.warn(format!(
                "{} of {} files in {} cannot be read and were skipped: {}. The first: {first}.",
                broken.len(),
                files.len(),
                path.display(),
                some_of(&broken)
            )),
            None => {}
        }
        Ok(found)
    }

    /// Samples: the files of a folder, or the paragraphs of a file. From more than `most`, so many
    /// are drawn.
    pub(crate) fn samples(
        path: &Path,
        most: Option<usize>,
        seed: u64,
        book: &mut Book,
    ) -> Result<Self> {
        let mut found = Self::documents(path, book)?;
        if !path.is_dir() {
            found.texts = paragraphs(&found.texts[0]);
            found.names = (1..=found.texts.len())
                .map(|i| format!("paragraph {i}"))
                .collect();
        }
        if let Some(most) = most.filter(|most| *most < found.texts.len()) {
            let mut rows = Rng::stream(seed, "texts", 0).permutation(found.texts.len());
            rows.truncate(most);
            rows.sort_unstable();
            found.texts = rows.iter().map(|row| found.texts[*row].clone()).collect();
            found.names = rows.iter().map(|row| found.names[*row].clone()).collect();
        }
        Ok(found)
    }

    /// Training texts and held-out ones: a tenth of many documents, or the last tenth of each.
    pub(crate) fn split(self) -> (Self, Self) {
        let part = |what: &str| Self {
            name: format!("{}, {what}", self.name),
            texts: vec![],
            names: vec![],
        };
        let (mut train, mut held_out) = (part("training part"), part("held-out tenth"));
        let n = self.texts.len();
        if n >= MANY {
            let mut held = vec![false; n];
            for row in Rng::stream(0, "held-out", 0)
                .permutation(n)
                .into_iter()
                .take(n / 10)
            {
                held[row] = true;
            }
            for ((text, name), held) in self.texts.into_iter().zip(self.names).zip(held) {
                let part = if held { &mut held_out } else { &mut train };
                part.texts.push(text);
                part.names.push(name);
            }
            return (train, held_out);
        }
        for (mut text, name) in self.texts.into_iter().zip(self.names) {
            let last = text.split_off(nine_tenths(&text));
            for (part, text) in [(&mut train, text), (&mut held_out, last)] {
                part.texts.push(text);
                part.names.push(name.clone());
            }
        }
        (train, held_out)
    }

    pub(crate) fn characters(&self) -> usize {
        self.texts.iter().map(|text| text.chars().count()).sum()
    }

    /// The median number of characters.
    pub(crate) fn usual_length(&self) -> usize {
        let mut lengths: Vec<usize> = self.texts.iter().map(|t| t.chars().count()).collect();
        lengths.sort_unstable();
        lengths.get(lengths.len() / 2).copied().unwrap_or(0)
    }
}

/// The byte after nine tenths of a text, at the end of a line if one is near.
fn nine_tenths(text: &str) -> usize {
    let at = text.floor_char_boundary(text.len() - text.len() / 10);
    match text[at..].find('\n') {
        Some(line) if line + 1 < (text.len() - at) / 2 => at + line + 1,
        _ => at,
    }
}

fn paragraphs(text: &str) -> Vec<String> {
    let (mut found, mut lines) = (Vec::new(), Vec::new());
    for line in text.lines().chain([""]) {
        if !line.trim().is_empty() {
            lines.push(line);
        } else if !lines.is_empty() {
            found.push(std::mem::take(&mut lines).join("\n"));
        }
    }
    found
}

/// Up to `count` passages of `length` characters that do not overlap, at equal distances.
pub(crate) fn passages(texts: &Texts, count: usize, length: usize) -> Vec<String> {
    let mut all = Vec::new();
    for text in &texts.texts {
        let starts: Vec<usize> = text
            .char_indices()
            .map(|(at, _)| at)
            .step_by(length)
            .collect();
        for (i, start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(text.len());
            let passage = &text[*start..end];
            // The last one may be shorter.
            if 2 * passage.chars().count() > length {
                all.push(passage);
            }
        }
    }
    let n = count.min(all.len());
    (0..n).map(|i| all[i * all.len() / n].to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Texts {
        Texts {
            name: "t".into(),
            texts: texts.iter().map(|t| t.to_string()).collect(),
            names: vec!["n".into(); texts.len()],
        }
    }

    #[test]
    fn parts_have_all_of_the_text() {
        let text = "雨 line of rain\n".repeat(40);
        let (train, held_out) = texts(&[&text]).split();
        assert_eq!(train.texts.concat() + &held_out.texts.concat(), text);
        let share = held_out.characters() as f64 / text.chars().count() as f64;
        assert!((0.05..0.15).contains(&share), "{share}");
        assert!(train.texts[0].ends_with('\n'));
        let (train, held_out) = texts(&["a"; 25]).split();
        assert_eq!((train.texts.len(), held_out.texts.len()), (23, 2));
    }

    #[test]
    fn passages_are_spread_and_do_not_overlap() {
        let found = passages(&texts(&["αβγδεζηθ", "x"]), 2, 2);
        assert_eq!(found, ["αβ", "εζ"]);
        assert_eq!(passages(&texts(&["abcde"]), 9, 2), ["ab", "cd"]);
        assert!(passages(&texts(&["a"]), 3, 10).is_empty());
    }

    #[test]
    fn paragraphs_end_with_blank_lines() {
        assert_eq!(paragraphs("\na\nb\n \n\nc"), ["a\nb", "c"]);
    }
}
