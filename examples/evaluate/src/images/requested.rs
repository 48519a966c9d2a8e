//! What was requested of samples: classes and prompts.

use super::{
    run::{ImageModel, place_of},
    set::ImageSet,
};
use crate::{
    Options, Part,
    book::{Book, some_of},
    provenance,
    subject::Subject,
};
use aigc_core::{Error, Result, fs::read_text, output::provenance::Provenance};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Samples whose folders are named after the classes of the data were requested of these classes.
pub(super) fn with_classes_of(samples: ImageSet, train: &ImageSet, book: &mut Book) -> ImageSet {
    if samples.classes.is_empty() || samples.files.is_empty() {
        return samples;
    }
    let names = samples.classes.clone();
    let place = |label: u32| place_of(names.get(label as usize)?, &train.classes);
    matched(samples, train, "folders of the samples", place, book)
}

/// Held-out images have the classes of the data of the same names.
pub(super) fn with_held_out_classes(
    held_out: ImageSet,
    train: &ImageSet,
    book: &mut Book,
) -> ImageSet {
    if train.classes.is_empty() || held_out.classes == train.classes {
        return held_out;
    }
    let names = held_out.classes.clone();
    let place = |label: u32| place_of(names.get(label as usize)?, &train.classes);
    matched(
        held_out,
        train,
        "folders of the held-out images",
        place,
        book,
    )
}

/// Samples of a model have the classes of the data that its own are, by their names if they have
/// some.
pub(super) fn with_drawn_classes(
    samples: ImageSet,
    model: &ImageModel,
    train: &ImageSet,
    book: &mut Book,
) -> ImageSet {
    if train.classes.is_empty() {
        return samples;
    }
    let known = (0..).zip(&train.classes);
    let own = known.map(|(place, name)| Some((model.class_of(name, &train.classes)?, place)));
    let own: HashMap<u32, u32> = own.flatten().collect();
    let place = |label: u32| own.get(&label).copied();
    matched(samples, train, "classes of the model", place, book)
}

/// Samples with the classes of the data that `place` gives for theirs; without classes if one has
/// none.
fn matched(
    mut samples: ImageSet,
    train: &ImageSet,
    whose: &str,
    place: impl Fn(u32) -> Option<u32>,
    book: &mut Book,
) -> ImageSet {
    let mut labels = samples.images.iter().filter_map(|image| image.label);
    let known = labels.all(|label| place(label).is_some());
    for image in &mut samples.images {
        image.label = image.label.filter(|_| known).and_then(&place);
    }
    if !known && !train.classes.is_empty() {
        book.warn(format!(
            "The {whose} ({}) are not named after the classes of the data ({}): their classes \
             are not compared.",
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

/// The lines of `--prompts`, one for each of `samples` samples.
pub(super) fn given_prompts(options: &Options, samples: usize) -> Result<Option<Vec<String>>> {
    let Some(file) = &options.prompts else {
        return Ok(None);
    };
    let lines: Vec<String> = read_text(file)?.lines().map(String::from).collect();
    if lines.len() != samples {
        return Err(Error::argument(
            "--prompts",
            format!("{} lines", lines.len()),
            format!("{samples}, one for each sample: of a folder, for each image that can be read"),
        ));
    }
    Ok(Some(lines))
}

/// The prompt of each sample by its record, if all have one.
pub(super) fn recorded_prompts(
    records: &[Option<Provenance>],
    book: &mut Book,
) -> Option<Vec<String>> {
    let prompt = |record: &Option<Provenance>| record.as_ref().and_then(|r| r.prompt.clone());
    let found: Vec<Option<String>> = records.iter().map(prompt).collect();
    let known = found.iter().flatten().count();
    if known == 0 {
        return None;
    }
    if known < found.len() {
        book.warn(format!(
            "Only {known} of {} samples have a prompt in their records; the CLIP score is not \
             measured.",
            found.len()
        ));
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{
        CancelToken,
        data::{Image, digits},
        device::device,
    };
    use aigc_diffusion::{DdimScheduler, Pipeline, UNet2dConfig};

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

    /// A pipeline's classes have names, in another order than the data's.
    #[test]
    fn classes_of_a_model_are_matched_by_name() {
        let stop = CancelToken::new();
        let options = <Options as clap::Parser>::parse_from(["evaluate", "x", "--against", "y"]);
        let mut book = Book::new(&options, &stop);
        let network = UNet2dConfig::small(digits::SHAPE, Some(3));
        let network = network.init(&device("flex").unwrap()).unwrap();
        let pipeline = Pipeline::new(network, DdimScheduler::default(), digits::SHAPE).unwrap();
        let named = |names: [&str; 3]| pipeline.clone().with_labels(names.map(String::from).into());
        let labels = [0, 1, 2].map(Some);
        let samples = set(&["cat", "dog", "owl"], &labels);
        let train = set(&["dog", "owl", "cat"], &[Some(0)]);
        let model = ImageModel::Diffusion(Box::new(named(["cat", "dog", "owl"]).unwrap()));
        let matched = with_drawn_classes(samples.clone(), &model, &train, &mut book);
        assert_eq!(matched.labels(), Some(vec![2, 0, 1]));
        // Without names, classes are in the order of the data.
        let unnamed = ImageModel::Diffusion(Box::new(pipeline.clone()));
        let matched = with_drawn_classes(samples.clone(), &unnamed, &train, &mut book);
        assert_eq!(matched.labels(), Some(vec![0, 1, 2]));
        let fewer = set(&["dog", "owl"], &[Some(0)]);
        let matched = with_drawn_classes(samples, &model, &fewer, &mut book);
        assert_eq!(matched.labels(), None);
        let warnings = book.into_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("classes of the model (cat, dog, owl)"));
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
