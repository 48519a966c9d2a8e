//! What a run starts from: nothing, or a checkpoint.

use super::PhaseState;
use crate::{
    Error, Result,
    checkpoint::{
        Checkpoint, OTHER_CONFIG, RunDir, assign_path_ids_with, load_optimizer, read_json,
    },
    data::DataLoader,
    rng::init_weights_with,
    train::{
        Ema, Phase, StartFrom, Trainer, TrainerConfig,
        optimizer::Group,
        state::{
            ConfigRecords, EMA, LoaderRecord, MODEL, RunConfig, STATE, State, check_continues,
            saved_optimizer_file,
        },
        survey::trainable,
    },
    weights::{RenamedField, load_weights_with_mapping},
};
use burn::module::Module;

/// The checkpoint to start from; `None` to start from the beginning.
pub(super) fn open_checkpoint(run: &RunDir, start: StartFrom) -> Result<Option<Checkpoint>> {
    match start {
        StartFrom::Fresh if !run.checkpoint_steps()?.is_empty() => Err(Error::run(
            run.path(),
            "it already has checkpoints, which a fresh start would overwrite; resume the run, or \
             choose another directory",
        )),
        StartFrom::Fresh if !run.has_run_config() => Err(Error::run(run.path(), OTHER_CONFIG)),
        StartFrom::Fresh => Ok(None),
        // Killed before its first checkpoint: training starts from the beginning.
        StartFrom::Resume if run.checkpoint_steps()?.is_empty() => Ok(None),
        StartFrom::Resume => run.latest_checkpoint().map(Some),
        StartFrom::ResumeAt(step) => run.checkpoint(step).map(Some),
    }
}

/// The configuration to write. For a resumed run, checks that it is compatible with the saved one.
pub(super) fn run_config<M, B: Send + 'static>(
    trainer: &Trainer<'_, M>,
    loader: &DataLoader<B>,
    run: &RunDir,
) -> Result<RunConfig> {
    let records = ConfigRecords {
        model: &trainer.model_config,
        objective: &trainer.objective_config,
        data: &trainer.data_config,
    };
    let loader = LoaderRecord::new(loader.num_items(), loader.config());
    if trainer.start != StartFrom::Fresh && run.config_path().exists() {
        let saved = read_json(&run.config_path())?;
        check_continues(&trainer.config, &records, &loader, &saved)?;
    }
    Ok(RunConfig {
        model: records.model.json.clone(),
        trainer: trainer.config.clone(),
        objective: records.objective.json.clone(),
        data: records.data.json.clone(),
        loader,
    })
}

/// The model without autodiff, and its training state: initial, or from the checkpoint.
pub(super) fn restore_model<M: Module + 'static>(
    model: M,
    config: &TrainerConfig,
    renamed: &[RenamedField],
    checkpoint: Option<&Checkpoint>,
    run: &RunDir,
) -> Result<(M, State)> {
    let model = init_weights_with(model, config.seed, renamed);
    let model = assign_path_ids_with(model.valid(), renamed);
    let Some(checkpoint) = checkpoint else {
        return Ok((model, State::default()));
    };
    let offer = |error| run.with_fallback(checkpoint.step(), error);
    let state: State = checkpoint.read_json(STATE).map_err(offer)?;
    if state.step != checkpoint.step() {
        let reason = format!(
            "it is of step {}, expected {}",
            state.step,
            checkpoint.step()
        );
        return Err(offer(Error::checkpoint(checkpoint.path(STATE), reason)));
    }
    let model =
        load_weights_with_mapping(model, &checkpoint.path(MODEL), renamed).map_err(offer)?;
    Ok((assign_path_ids_with(model, renamed), state))
}

/// The phases with their parameters and optimizers.
pub(super) fn build_phases<M: Module + 'static>(
    trainer: &mut Trainer<'_, M>,
    phases: &[Phase],
    model: &M,
    groups: &[Group],
    checkpoint: Option<&Checkpoint>,
    run: &RunDir,
) -> Result<Vec<PhaseState>> {
    let mut states = Vec::with_capacity(phases.len());
    for phase in phases {
        let (params, _) = trainable(model, phase.field);
        if params.is_empty() {
            let part = phase.field.unwrap_or("the model");
            return Err(Error::argument(
                "phase",
                phase.name,
                format!("a phase with something to train; {part} has no trainable parameter"),
            ));
        }
        let optimizer = match trainer.optimizers.remove(phase.name) {
            Some(optimizer) => optimizer,
            None => trainer.config.optimizer.init(groups),
        };
        let optimizer = match checkpoint {
            Some(checkpoint) => {
                load_optimizer(optimizer, model, &saved_optimizer_file(phase, checkpoint))
                    .map_err(|error| run.with_fallback(checkpoint.step(), error))?
            }
            None => optimizer,
        };
        states.push(PhaseState {
            phase: *phase,
            params,
            optimizer,
        });
    }
    if let Some(unknown) = trainer.optimizers.keys().next() {
        let known: Vec<_> = phases.iter().map(|phase| phase.name).collect();
        return Err(Error::argument(
            "optimizer",
            unknown,
            format!("the name of a phase: {}", known.join(", ")),
        ));
    }
    Ok(states)
}

/// The average of the weights, if it is configured.
pub(super) fn restore_ema<M: Module + 'static>(
    config: &TrainerConfig,
    model: &M,
    plain: M,
    renamed: &[RenamedField],
    state: &State,
    checkpoint: Option<&Checkpoint>,
    run: &RunDir,
) -> Result<Option<Ema<M>>> {
    Ok(match (config.ema, checkpoint) {
        (None, _) => None,
        (Some(ema), None) => Some(Ema::new(model, ema)),
        (Some(ema), Some(checkpoint)) => {
            // Loaded into separate tensors: `valid` copies running statistics.
            let average = load_weights_with_mapping(plain.valid(), &checkpoint.path(EMA), renamed)
                .map_err(|error| run.with_fallback(checkpoint.step(), error))?;
            Some(Ema::resume(model, average, ema, state.ema_updates))
        }
    })
}

/// Removes the checkpoints after `step`, newest first: if this is interrupted, the newest remaining
/// one is still valid.
pub(super) fn remove_newer(run: &RunDir, step: usize) -> Result<()> {
    let steps = run.checkpoint_steps()?;
    let newer = steps.into_iter().rev().filter(|other| *other > step);
    newer.into_iter().try_for_each(|newer| run.remove(newer))
}
