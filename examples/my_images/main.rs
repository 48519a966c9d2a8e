//! Trains on a directory of images: `cargo run --release --example my_images -- DIR`. README.md
//! shows this program.

use aigc_core::data::folder::{ImageFolder, ImageFolderConfig};
use aigc_core::data::{DataLoader, DataLoaderConfig, ImageShape, collate_images};
use aigc_core::output::{ImageGrid, provenance::Provenance, save_image_with_provenance};
use aigc_core::train::{ProgressBar, Trainer, TrainerConfig};
use aigc_core::{checkpoint::RunDir, device::device};
use aigc_vae::{ConvVaeConfig, KlWeight, VaeConfig, VaeObjective, VaeSampler};

fn train(dir: &std::path::Path) -> aigc_core::Result<()> {
    let device = device("auto")?;
    let shape = ImageShape::new(3, 32, 32);
    let images = ImageFolder::open(dir, ImageFolderConfig::new(shape))?;
    let batches = DataLoader::new(images, collate_images, DataLoaderConfig::default())?;
    let config = VaeConfig::Conv(ConvVaeConfig::new(shape));
    let run = RunDir::create_next("runs/my-images")?;
    let trainer = Trainer::new(TrainerConfig::new(2000))
        .with_model_config(&config)?
        .with_callback(ProgressBar::new());
    let objective = VaeObjective::new(KlWeight::default())?;
    let trained = trainer.fit(objective, config.init(&device)?, &batches, &run)?;
    let samples = VaeSampler::new(&trained.model, &device).sample(64, 7)?;
    let path = run.path().join("samples.png");
    let origin = Provenance::new("my-images").with_seed(7);
    save_image_with_provenance(&samples.values, ImageGrid::new(8, 32), &origin, &path)?;
    println!("64 generated images: {}", path.display());
    Ok(())
}

fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let usage = "usage: my_images DIR, a directory of images to train on";
    let result = match &arguments[..] {
        [help] if help == "--help" || help == "-h" => return println!("{usage}"),
        [dir] if !dir.to_string_lossy().starts_with('-') => train(dir.as_ref()),
        _ => {
            eprintln!("{usage}");
            std::process::exit(2);
        }
    };
    if let Err(error) = result {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
