//! A variational autoencoder learns handwritten digits and generates new ones.
use aigc_core::data::{DataLoader, DataLoaderConfig, collate_images, digits};
use aigc_core::output::{ImageGrid, provenance::Provenance, save_image_with_provenance};
use aigc_core::train::{ProgressBar, Trainer, TrainerConfig};
use aigc_core::{checkpoint::RunDir, device::device};
use aigc_vae::{KlWeight, MlpVaeConfig, VaeObjective, VaeSampler};

fn main() -> aigc_core::Result<()> {
    let device = device("auto")?;
    let (train, _test) = digits::train_test_split();
    let batches = DataLoader::new(train, collate_images, DataLoaderConfig::default())?;
    let model = MlpVaeConfig::new(digits::SHAPE).init(&device)?;
    let run = RunDir::create_next("runs/minimal-vae")?;
    let trainer = Trainer::new(TrainerConfig::new(1000)).with_callback(ProgressBar::new());
    let trained = trainer.fit(
        VaeObjective::new(KlWeight::default())?,
        model,
        &batches,
        &run,
    )?;
    let samples = VaeSampler::new(&trained.model, &device).sample(64, 0)?;
    save_image_with_provenance(
        &samples.values,
        ImageGrid::new(8, 8),
        &Provenance::new("minimal-vae").with_seed(samples.seed),
        &run.path().join("samples.png"),
    )
}
