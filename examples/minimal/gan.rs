//! A generative adversarial network learns handwritten digits and generates new ones.
use aigc_core::data::{DataLoader, DataLoaderConfig, collate_images, digits};
use aigc_core::output::{ImageGrid, provenance::Provenance, save_image_with_provenance};
use aigc_core::train::{OptimizerConfig, ProgressBar, Trainer, TrainerConfig};
use aigc_core::{checkpoint::RunDir, device::device};
use aigc_gan::{GanConfig, GanObjective, GanObjectiveConfig, GanSampler, MlpGanConfig};

fn main() -> aigc_core::Result<()> {
    let device = device("auto")?;
    let (train, _test) = digits::train_test_split();
    let batches = DataLoader::new(train, collate_images, DataLoaderConfig::default())?;
    let gan = GanConfig::Mlp(MlpGanConfig::new(digits::SHAPE)).init(&device)?;
    let objective = GanObjective::new(GanObjectiveConfig::r3gan(0.1), &gan)?;
    let config = TrainerConfig {
        optimizer: OptimizerConfig::adam(0.0, 0.99),
        learning_rate: 3e-4,
        ..TrainerConfig::new(2000)
    };
    let run = RunDir::create_next("runs/minimal-gan")?;
    let trainer = Trainer::new(config).with_callback(ProgressBar::new());
    let trained = trainer.fit(objective, gan, &batches, &run)?;
    let samples = GanSampler::new(&trained.model.generator, &device).sample(64, 0)?;
    save_image_with_provenance(
        &samples.values,
        ImageGrid::new(8, 8),
        &Provenance::new("minimal-gan").with_seed(samples.seed),
        &run.path().join("samples.png"),
    )
}
