//! Trains on a folder of your own images: `cargo run --release --example my_images -- FOLDER`. README.md shows it.

use aigc_core::data::folder::{ImageFolder, ImageFolderConfig};
use aigc_core::data::{ImageShape, Loader, LoaderConfig, collate_images};
use aigc_core::output::{Grid, save_png};
use aigc_core::train::{ProgressBar, Trainer, TrainerConfig};
use aigc_core::{checkpoint::RunFolder, device::device, rng::Rng};
use aigc_vae::{Beta, ConvVaeConfig, VaeObjective, sample};

fn main() -> aigc_core::Result<()> {
    let device = device("auto")?;
    let shape = ImageShape::new(3, 32, 32);
    let folder = std::env::args().nth(1).expect("usage: my_images FOLDER");
    let images = ImageFolder::open(folder.as_ref(), ImageFolderConfig::new(shape))?;
    let batches = Loader::new(images, collate_images, LoaderConfig::default())?;
    let model = ConvVaeConfig::new(shape).init(&device)?;
    let run = RunFolder::create_next("runs/my-images")?;
    let trainer = Trainer::new(TrainerConfig::new(2000)).observe(ProgressBar::new());
    let trained = trainer.fit(VaeObjective::new(Beta::default())?, model, &batches, &run)?;
    let pictures = sample(&trained.model, 64, 1.0, &mut Rng::new(7), &device)?;
    save_png(&pictures, Grid::new(8, 32), &run.path().join("samples.png"))
}
