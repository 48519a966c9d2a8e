//! A diffusion model learns handwritten digits and generates new ones.
use aigc_core::data::{DataLoader, DataLoaderConfig, collate_images, digits};
use aigc_core::output::{ImageGrid, provenance::Provenance, save_image_with_provenance};
use aigc_core::train::{EmaConfig, ProgressBar, Trainer, TrainerConfig};
use aigc_core::{checkpoint::RunDir, device::device};
use aigc_diffusion::{DdimScheduler, DiffusionObjective, DiffusionObjectiveConfig};
use aigc_diffusion::{DiffusionSampler, UNet2dConfig};

fn main() -> aigc_core::Result<()> {
    let device = device("auto")?;
    let (train, _test) = digits::train_test_split();
    let batches = DataLoader::new(train, collate_images, DataLoaderConfig::default())?;
    let network = UNet2dConfig::small(digits::SHAPE, None).init(&device)?;
    let objective = DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network)?;
    let mut config = TrainerConfig::new(600);
    config.ema = Some(EmaConfig::new(0.999));
    let run = RunDir::create_next("runs/minimal-diffusion")?;
    let trainer = Trainer::new(config).with_callback(ProgressBar::new());
    let trained = trainer.fit(objective, network, &batches, &run)?;
    let (scheduler, steps) = (DdimScheduler::default(), 50);
    let sampler = DiffusionSampler::new(&trained.model, &scheduler, steps, digits::SHAPE, &device)?;
    let samples = sampler.sample(64, 0)?;
    save_image_with_provenance(
        &samples.values,
        ImageGrid::new(8, 8),
        &Provenance::new("minimal-diffusion").with_seed(samples.seed),
        &run.path().join("samples.png"),
    )
}
