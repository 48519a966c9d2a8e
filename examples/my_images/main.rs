//! Trains on a folder of your own images: `cargo run --release --example my_images -- FOLDER`.
//! README.md shows it.

use aigc_core::data::folder::{ImageFolder, ImageFolderConfig};
use aigc_core::data::{DataLoader, DataLoaderConfig, ImageShape, collate_images};
use aigc_core::output::{ImageGrid, save_image};
use aigc_core::train::{ProgressBar, Trainer, TrainerConfig};
use aigc_core::{checkpoint::RunDir, device::device};
use aigc_vae::{ConvVaeConfig, KlWeight, VaeObjective, VaeSampler};

fn main() -> aigc_core::Result<()> {
    let device = device("auto")?;
    let shape = ImageShape::new(3, 32, 32);
    let folder = std::env::args().nth(1).expect("usage: my_images FOLDER");
    let images = ImageFolder::open(folder.as_ref(), ImageFolderConfig::new(shape))?;
    let batches = DataLoader::new(images, collate_images, DataLoaderConfig::default())?;
    let model = ConvVaeConfig::new(shape).init(&device)?;
    let run = RunDir::create_next("runs/my-images")?;
    let trainer = Trainer::new(TrainerConfig::new(2000)).with_callback(ProgressBar::new());
    let trained = trainer.fit(
        VaeObjective::new(KlWeight::default())?,
        model,
        &batches,
        &run,
    )?;
    let pictures = VaeSampler::new(&trained.model, &device)
        .sample(64, 7)?
        .values;
    save_image(
        &pictures,
        ImageGrid::new(8, 32),
        &run.path().join("samples.png"),
    )
}
