//! The classes of images under a model that has classes.

use crate::images::{
    run::{class_of_pipeline, place_of},
    set::ImageSet,
};
use aigc_core::{Error, Result};
use aigc_diffusion::Pipeline;

/// The class of a name.
type Find<'a> = Box<dyn Fn(&str) -> Option<u32> + 'a>;

/// The classes of a model.
pub(super) struct Classes<'a> {
    find: Find<'a>,
    /// The class of images without one.
    null: Option<u32>,
}

impl<'a> Classes<'a> {
    /// `count` classes without names, in the order of `known`, the classes of the training data.
    pub(super) fn numbered(count: usize, known: &'a [String]) -> Self {
        let find = move |name: &str| place_of(name, known);
        Self::found(count, find)
    }

    /// The classes of a diffusion model, by name if they have names; none for a model without.
    pub(super) fn of_pipeline(pipeline: &'a Pipeline, known: &'a [String]) -> Option<Self> {
        let count = pipeline.num_classes()?;
        let find = move |name: &str| class_of_pipeline(pipeline, name, known);
        Some(Self {
            null: pipeline.null_class(),
            ..Self::found(count, find)
        })
    }

    /// Those of `count` classes that `find` finds.
    fn found(count: usize, find: impl Fn(&str) -> Option<u32> + 'a) -> Self {
        Self {
            find: Box::new(move |name: &str| find(name).filter(|class| (*class as usize) < count)),
            null: None,
        }
    }

    /// The class of each image: that of the same name, or the null class.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an image that has neither.
    pub(super) fn of(&self, images: &ImageSet, rows: &[usize]) -> Result<Vec<u32>> {
        let class = |row: &usize| {
            let name = images.images[*row]
                .label
                .and_then(|label| images.classes.get(label as usize));
            let found = name.and_then(|name| (self.find)(name)).or(self.null);
            found.ok_or_else(|| {
                let value = match name {
                    Some(name) => format!("{} of the class {name}", images.names[*row]),
                    None => format!("{}: image {row} has no class", images.name),
                };
                let expected = "folders that are named after the classes of the model, which has \
                                a loss for images of a class alone";
                Error::argument("images", value, expected)
            })
        };
        rows.iter().map(class).collect()
    }
}
