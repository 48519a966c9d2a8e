//! What was requested of samples: classes and prompts.

use super::set::ImageSet;
use crate::{
    Options, Part,
    book::{Book, some_of},
    provenance,
    subject::Subject,
};
use aigc_core::{Error, Result, fs::read_text, output::provenance::Provenance};
use std::path::{Path, PathBuf};

/// Samples whose folders are named after the classes of the data were requested of these classes.
pub(super) fn with_classes_of(
    mut samples: ImageSet,
    train: &ImageSet,
    book: &mut Book,
) -> ImageSet {
    if samples.classes.is_empty() || samples.files.is_empty() {
        return samples;
    }
    let place = |name: &String| train.classes.iter().position(|known| known == name);
    let places: Option<Vec<usize>> = samples.classes.iter().map(place).collect();
    for image in &mut samples.images {
        let label = image.label.zip(places.as_ref());
        image.label = label.map(|(label, places)| places[label as usize] as u32);
    }
    if places.is_none() && !train.classes.is_empty() {
        book.warn(format!(
            "The folders of the samples ({}) are not named after the classes of the data ({}); the \
             accuracy of classes is not measured.",
            some_of(&samples.classes),
            some_of(&train.classes)
        ));
    }
    samples.classes.clone_from(&train.classes);
    samples
}

/// Samples without classes get those that their records say were requested.
pub(super) fn with_recorded_classes(
    mut samples: ImageSet,
    train: &ImageSet,
    records: &[Option<Provenance>],
    book: &mut Book,
) -> ImageSet {
    if samples.labels().is_some() || records.len() != samples.len() {
        return samples;
    }
    let known = |class: u64| usize::try_from(class).is_ok_and(|c| c < train.classes.len());
    for (image, record) in samples.images.iter_mut().zip(records) {
        let class = record.as_ref().and_then(|record| record.class);
        image.label = class
            .filter(|class| known(*class))
            .map(|class| class as u32);
    }
    let found = samples.images.iter().filter(|image| image.label.is_some());
    let (found, n) = (found.count(), samples.len());
    if found > 0 && found < n && book.wants(Part::Relevance) {
        book.warn(format!(
            "Only {found} of {n} samples have a class of the data in their records; the accuracy \
             of classes is not measured."
        ));
    }
    samples.classes.clone_from(&train.classes);
    samples
}

/// Verifies the files of the samples, or the pictures of a run. Records also say what was
/// requested.
pub(super) fn verify(
    book: &mut Book,
    subject: &Subject,
    samples: &ImageSet,
) -> Vec<Option<Provenance>> {
    let needed = match subject.run_dir() {
        Some(_) => book.wants(Part::Provenance),
        None => book.wants(Part::Provenance) || book.wants(Part::Relevance),
    };
    if !needed {
        return vec![];
    }
    let files: Vec<(String, PathBuf)> = match subject.run_dir() {
        Some(run) => {
            let kept = ["png", "gif"];
            let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            files.retain(|file| {
                file.extension()
                    .is_some_and(|e| kept.iter().any(|k| e == *k))
            });
            files.sort();
            let name = |file: &Path| file.file_name().unwrap_or_default().display().to_string();
            files.into_iter().map(|file| (name(&file), file)).collect()
        }
        None => samples
            .names
            .iter()
            .cloned()
            .zip(samples.files.iter().cloned())
            .collect(),
    };
    let records = provenance::verify(book, &files);
    match subject.run_dir() {
        // Pictures of a run show several samples.
        Some(_) => vec![],
        None => records,
    }
}

/// The prompt of each sample, from a file or from the records.
pub(super) fn prompts(
    options: &Options,
    records: &[Option<Provenance>],
    samples: usize,
    book: &mut Book,
) -> Result<Option<Vec<String>>> {
    if let Some(file) = &options.prompts {
        let text = read_text(file)?;
        let lines: Vec<String> = text.lines().map(String::from).collect();
        if lines.len() != samples {
            let expected = format!("{samples}, one for each sample");
            return Err(Error::argument(
                "--prompts",
                format!("{} lines", lines.len()),
                expected,
            ));
        }
        return Ok(Some(lines));
    }
    let prompt = |record: &Option<Provenance>| record.as_ref().and_then(|r| r.prompt.clone());
    let found: Vec<Option<String>> = records.iter().map(prompt).collect();
    let known = found.iter().flatten().count();
    if known == 0 {
        return Ok(None);
    }
    if known < found.len() {
        book.warn(format!(
            "Only {known} of {} samples have a prompt in their records; the CLIP score is not \
             measured.",
            found.len()
        ));
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{
        CancelToken,
        data::{Image, digits},
    };

    fn set(classes: &[&str], labels: &[Option<u32>]) -> ImageSet {
        let image = |label: &Option<u32>| Image {
            label: *label,
            ..digits::load().0[0].clone()
        };
        ImageSet {
            name: "set".into(),
            images: labels.iter().map(image).collect(),
            names: vec!["x".into(); labels.len()],
            files: vec![PathBuf::new(); labels.len()],
            classes: classes.iter().map(|name| name.to_string()).collect(),
        }
    }

    #[test]
    fn folders_are_matched_to_classes() {
        let stop = CancelToken::new();
        let options = <Options as clap::Parser>::parse_from(["evaluate", "x", "--against", "y"]);
        let mut book = Book::new(&options, &stop);
        let train = set(&["cat", "dog", "owl"], &[Some(0)]);
        let samples = set(&["dog", "owl"], &[Some(0), Some(1)]);
        let matched = with_classes_of(samples, &train, &mut book);
        assert_eq!(matched.labels(), Some(vec![1, 2]));
        let samples = set(&["dog", "cow"], &[Some(0), Some(1)]);
        assert_eq!(with_classes_of(samples, &train, &mut book).labels(), None);
        assert!(book.into_warnings()[0].contains("dog, cow"));
    }

    #[test]
    fn recorded_classes_are_requested_ones() {
        let train = set(&["a", "b"], &[Some(0)]);
        let records = [Some(Provenance::new("m").with_class(1)), None];
        let stop = CancelToken::new();
        let options = <Options as clap::Parser>::parse_from(["evaluate", "x", "--against", "y"]);
        let mut book = Book::new(&options, &stop);
        let samples = set(&[], &[None, None]);
        let samples = with_recorded_classes(samples, &train, &records, &mut book);
        assert_eq!(samples.images[0].label, Some(1));
        assert_eq!(samples.labels(), None);
        assert!(book.into_warnings()[0].contains("Only 1 of 2 samples"));
    }
}
