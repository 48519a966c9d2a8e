//! Short trainings of models of sound, on computed data alone. What is measured was not trained on.
//!
//! | file | what is trained | what has to hold |
//! |---|---|---|
//! | `codec` | a codec of sound effects | decoded sounds are near; all codebooks are in use |
//! | `codes` | streams of tokens, told a class | the entropy is reached, and the rules are kept |
//! | `vocoder` | a vocoder of a synthetic voice | a smaller distance than that of Griffin-Lim |
//! | `magnitude` | a vocoder of magnitudes | a smaller distance than that of Griffin-Lim |
//! | `pitch` | a vocoder with a harmonic source | voices keep their pitch |
//! | `speech` | a speaker whose letters are tones | new words are spoken letter by letter |

mod codec;
mod codes;
mod magnitude;
mod pitch;
mod speech;
mod vocoder;

use aigc_core::{
    data::{DataLoader, DataLoaderConfig, Dataset},
    testing::temp_run,
    train::{LrSchedule, Objective, OptimizerConfig, Trainer, TrainerConfig},
};

/// Shuffled batches of a data set.
fn loader<D, B, C>(data: D, collate: C, batch_size: usize) -> DataLoader<B>
where
    D: Dataset + 'static,
    B: Send + 'static,
    C: Fn(Vec<D::Item>) -> B + Send + Sync + 'static,
{
    let config = DataLoaderConfig {
        batch_size,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(data, collate, config).unwrap()
}

/// Settings of a training whose learning rate rises over a twentieth of the steps and then falls to
/// zero.
fn settings(steps: usize, learning_rate: f64, optimizer: OptimizerConfig) -> TrainerConfig {
    TrainerConfig {
        learning_rate,
        optimizer,
        lr_schedule: LrSchedule::cosine(steps / 20),
        save_steps: 0,
        ..TrainerConfig::new(steps)
    }
}

/// The trained model.
fn train<O: Objective>(
    config: TrainerConfig,
    objective: O,
    model: O::Model,
    loader: &DataLoader<O::Batch>,
) -> O::Model {
    let run = temp_run().unwrap();
    let trainer = Trainer::new(config);
    trainer.fit(objective, model, loader, &run).unwrap().model
}
