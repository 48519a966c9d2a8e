//! The loss, and what is learned.

use super::*;
use aigc_core::{
    data::{DataLoader, DataLoaderConfig, InMemory},
    testing::temp_run,
    train::{Event, Objective, StepContext, Trainer, TrainerConfig},
};

/// Melodies of which the class is the first code; every codebook repeats the one before it.
fn items() -> Vec<CodesItem> {
    let item = |index: usize| {
        let (class, frames) = (index as u32 % 4, 4 + index % 3);
        let stream: Vec<u32> = (0..frames as u32).map(|at| (class + at) % 9).collect();
        CodesItem::new(vec![stream; 3]).with_classes(vec![class, 0])
    };
    (0..24).map(item).collect()
}

#[test]
fn classes_are_learned() {
    let config = MusicgenDecoderConfig {
        text_hidden_size: None,
        initializer_factor: 0.1,
        ..config()
    };
    let loader = DataLoaderConfig {
        batch_size: 12,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(InMemory(items()), CodesBatch::collate, loader).unwrap();
    let trainer = TrainerConfig {
        learning_rate: 5e-3,
        ..TrainerConfig::new(200)
    };
    let mut losses = vec![];
    let trained = Trainer::new(trainer)
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                losses.push(report.losses[0].1);
            }
        })
        .fit(
            MultiStreamObjective::new(0.1).unwrap(),
            model(config),
            &loader,
            &temp_run().unwrap(),
        )
        .unwrap();
    let [first, last] = [losses[0], losses[losses.len() - 1]];
    assert!(last < 0.3 * first, "{first} to {last}");
    let model = trained.model;
    let classes: Vec<Vec<u32>> = (0..4).map(|class| vec![class, 0]).collect();
    let condition = model.encode_condition(&ConditionInputs::classes(classes));
    let generator = MultiStreamGenerator::new(&model, generation::greedy(4, &model)).unwrap();
    let generator = generator.with_guidance_scale(1.5).unwrap();
    let found = generator.generate(4, condition.unwrap().as_ref()).unwrap();
    for (class, streams) in found.codes.iter().enumerate() {
        let expected: Vec<u32> = (0..4).map(|at| class as u32 + at).collect();
        assert!(
            streams.iter().all(|codes| *codes == expected),
            "{streams:?}"
        );
    }
}

/// The loss of a batch of items of different lengths is that of the items alone.
#[test]
fn empty_places_do_not_count() {
    let device = Device::flex();
    let model = model(config());
    let loss = |items: Vec<CodesItem>| {
        let batch = CodesBatch::collate(items);
        values(multi_stream_loss(&model, &batch, None, &device).unwrap())
    };
    let items = items();
    let [short, long] = [items[0].clone(), items[2].clone()];
    assert_eq!([short.frames(), long.frames()], [4, 6]);
    let both = loss(vec![short.clone(), long.clone()]);
    let (short, long) = (loss(vec![short]), loss(vec![long]));
    let mean = short.iter().zip(&long).map(|(a, b)| 0.4 * a + 0.6 * b);
    assert_close(&both, &mean.collect::<Vec<f32>>(), 1e-4);
    // Items with texts of different lengths.
    let told =
        |count: usize| CodesItem::new(vec![vec![1, 2]; 3]).with_text(vec![vec![0.5; WIDTH]; count]);
    let both = loss(vec![told(1), told(3)]);
    let (one, three) = (loss(vec![told(1)]), loss(vec![told(3)]));
    let mean = one.iter().zip(&three).map(|(a, b)| 0.5 * (a + b));
    assert_close(&both, &mean.collect::<Vec<f32>>(), 1e-4);
}

/// Dropping all conditions is training without them.
#[test]
fn dropped_conditions_are_not_told() {
    let device = Device::flex();
    let model = model(config());
    let loss = |share: f64, told: bool| {
        let items = items().into_iter().take(4);
        let items = items.map(|item| match told {
            true => item,
            false => item.with_classes(vec![]),
        });
        let batch = CodesBatch::collate(items.collect());
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(1));
        let mut objective = MultiStreamObjective::<MusicgenDecoder>::new(share).unwrap();
        let output = objective.losses(&model, &batch, &mut context).unwrap();
        values(output.loss)
    };
    assert_close(&loss(1.0, true), &loss(0.0, false), 1e-5);
    assert_ne!(loss(0.0, true), loss(0.0, false));
}

#[test]
fn batches_that_do_not_fit_are_errors() {
    let device = Device::flex();
    let model = model(config());
    let loss = |items: Vec<CodesItem>| {
        let batch = CodesBatch::collate(items);
        multi_stream_loss(&model, &batch, None, &device)
    };
    let item = |frames: usize| CodesItem::new(vec![vec![1; frames]; 3]);
    contains(loss(vec![]), "`batch` is empty");
    contains(loss(vec![item(0)]), "at least one frame");
    contains(loss(vec![item(23)]), "`frames` is 23, expected at most 22");
    contains(
        loss(vec![item(2), item(2).with_classes(vec![0, 0])]),
        "given for 1 items",
    );
    contains(loss(vec![CodesItem::new(vec![vec![9]; 3])]), "below 9");
    assert!(MultiStreamObjective::<MusicgenDecoder>::new(1.5).is_err());
}
