//! The LSTM against its equations on the host.

use super::{assert_near, dot, flex, host, random, tensor};
use aigc_core::{
    nn::{LstmCell, LstmConfig, LstmState},
    rng::InitWeights,
};

/// The parameters of a cell in double precision.
#[derive(Clone, Debug)]
struct Parameters {
    inputs: usize,
    d: usize,
    /// Weights of inputs and states, and both biases.
    values: [Vec<f64>; 4],
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Parameters {
    fn of(cell: &LstmCell) -> Self {
        let [_, inputs] = cell.weight_ih.val().dims();
        let [_, d] = cell.weight_hh.val().dims();
        let values = [
            host(cell.weight_ih.val()),
            host(cell.weight_hh.val()),
            host(cell.bias_ih.val()),
            host(cell.bias_hh.val()),
        ];
        Self { inputs, d, values }
    }

    /// Reads the steps of one sequence. Returns the outputs, and the last two states.
    fn run(&self, steps: &[Vec<f64>], state: [Vec<f64>; 2]) -> (Vec<Vec<f64>>, [Vec<f64>; 2]) {
        let (d, [weight_ih, weight_hh, bias_ih, bias_hh]) = (self.d, &self.values);
        let [mut hidden, mut cell] = state;
        let mut outputs = vec![];
        for step in steps {
            let gate = |kind: usize, unit: usize| {
                let row = kind * d + unit;
                dot(&weight_ih[row * self.inputs..][..self.inputs], step)
                    + dot(&weight_hh[row * d..][..d], &hidden)
                    + bias_ih[row]
                    + bias_hh[row]
            };
            let next: Vec<[f64; 2]> = (0..d)
                .map(|unit| {
                    let [input, forget, output] = [0, 1, 3].map(|kind| sigmoid(gate(kind, unit)));
                    let cell = forget * cell[unit] + input * gate(2, unit).tanh();
                    [output * cell.tanh(), cell]
                })
                .collect();
            hidden = next.iter().map(|[hidden, _]| *hidden).collect();
            cell = next.iter().map(|[_, cell]| *cell).collect();
            outputs.push(hidden.clone());
        }
        (outputs, [hidden, cell])
    }
}

/// The sequences of `[batch, time, features]`.
fn sequences(values: &[f64], [_, time, features]: [usize; 3]) -> Vec<Vec<Vec<f64>>> {
    values
        .chunks(time * features)
        .map(|sequence| sequence.chunks(features).map(<[f64]>::to_vec).collect())
        .collect()
}

#[test]
fn lstm_matches_its_equations() {
    let device = flex();
    let (batch, time, inputs, d) = (2, 5, 3, 4);
    for (layers, bidirectional) in [(1, false), (2, false), (1, true), (2, true)] {
        let lstm = LstmConfig::new(inputs, d)
            .with_num_layers(layers)
            .with_bidirectional(bidirectional)
            .init(&device)
            .init_weights(1);
        let directions = 1 + usize::from(bidirectional);
        let cells = layers * directions;
        let x = random([batch, time, inputs], 2, &device);
        let [hidden, cell] = [3, 4].map(|seed| random([cells, batch, d], seed, &device));
        let state = LstmState {
            hidden: hidden.clone(),
            cell: cell.clone(),
        };
        let (y, end) = lstm.forward(x.clone(), Some(state));
        assert_eq!(y.dims(), [batch, time, directions * d]);
        let mut expected = vec![];
        let mut ends = vec![vec![]; cells];
        let (hidden, cell) = (host(hidden), host(cell));
        for (item, mut steps) in sequences(&host(x.clone()), x.dims())
            .into_iter()
            .enumerate()
        {
            for (index, layer) in lstm.layers.iter().enumerate() {
                let of =
                    |all: &[f64], place: usize| all[(place * batch + item) * d..][..d].to_vec();
                let start = |place: usize| [of(&hidden, place), of(&cell, place)];
                let first = index * directions;
                let (mut outputs, end) = Parameters::of(&layer.forward).run(&steps, start(first));
                ends[first].push(end);
                if let Some(reverse) = &layer.reverse {
                    steps.reverse();
                    let parameters = Parameters::of(reverse);
                    let (others, end) = parameters.run(&steps, start(first + 1));
                    ends[first + 1].push(end);
                    for (output, other) in outputs.iter_mut().zip(others.into_iter().rev()) {
                        output.extend(other);
                    }
                }
                steps = outputs;
            }
            expected.extend(steps.concat());
        }
        assert_near(&host(y), &expected, 2e-6);
        let of = |state: usize| -> Vec<f64> {
            let all = ends.iter().flatten();
            all.flat_map(|end| end[state].clone()).collect()
        };
        assert_near(&host(end.hidden), &of(0), 2e-6);
        assert_near(&host(end.cell), &of(1), 2e-6);
    }
}

/// Reading a sequence in two parts is reading it at once.
#[test]
fn lstm_continues_from_its_state() {
    let device = flex();
    let lstm = LstmConfig::new(3, 8)
        .with_num_layers(2)
        .init(&device)
        .init_weights(1);
    let x = random([2, 9, 3], 2, &device);
    let (whole, end) = lstm.forward(x.clone(), None);
    let (first, state) = lstm.forward(x.clone().narrow(1, 0, 4), None);
    let (second, last) = lstm.forward(x.narrow(1, 4, 5), Some(state));
    assert_near(&host(whole.clone().narrow(1, 0, 4)), &host(first), 1e-6);
    assert_near(&host(whole.narrow(1, 4, 5)), &host(second), 1e-6);
    assert_near(&host(last.cell), &host(end.cell), 1e-6);
}

/// The gradients along a direction against the difference quotient of the equations.
#[test]
fn lstm_gradients_match_difference_quotients() {
    let device = flex().autodiff();
    let (time, inputs, d) = (6, 3, 4);
    let lstm = LstmConfig::new(inputs, d).init(&device).init_weights(1);
    let x = random([1, time, inputs], 2, &device).require_grad();
    let (y, _) = lstm.forward(x.clone(), None);
    let r = random(y.dims(), 3, &device);
    let gradients = (y * r.clone()).sum().backward();
    let parameters = &lstm.layers[0].forward;
    let found = [
        host(parameters.weight_ih.val().grad(&gradients).unwrap()),
        host(parameters.weight_hh.val().grad(&gradients).unwrap()),
        host(parameters.bias_ih.val().grad(&gradients).unwrap()),
        host(parameters.bias_hh.val().grad(&gradients).unwrap()),
        host(x.grad(&gradients).unwrap()),
    ];
    let (r, start) = (host(r), Parameters::of(parameters));
    let steps = host(x);
    for (index, gradient) in found.iter().enumerate() {
        let change = host(random([gradient.len()], 10 + index as u64, &flex()));
        let loss = |step: f64| {
            let (mut parameters, mut steps) = (start.clone(), steps.clone());
            let changed = match index {
                4 => &mut steps,
                _ => &mut parameters.values[index],
            };
            for (value, change) in changed.iter_mut().zip(&change) {
                *value += step * change;
            }
            let steps: Vec<Vec<f64>> = steps.chunks(inputs).map(<[f64]>::to_vec).collect();
            let zeros = || vec![0.0; d];
            let (outputs, _) = parameters.run(&steps, [zeros(), zeros()]);
            dot(&outputs.concat(), &r)
        };
        let step = 1e-5;
        let quotient = (loss(step) - loss(-step)) / (2.0 * step);
        assert_near(&[dot(gradient, &change)], &[quotient], 1e-5);
    }
}

/// With gates that are open or shut, the cell adds up its inputs: the order of the gates.
#[test]
fn open_gates_add_up_inputs() {
    let device = flex();
    let mut lstm = LstmConfig::new(1, 1).init(&device);
    let cell = &mut lstm.layers[0].forward;
    // The input, forget and output gates are open; only the candidate reads the input.
    let set = |values: &[f64; 4]| tensor(values, [4], &device);
    let matrix = |values: &[f64; 4]| tensor(values, [4, 1], &device);
    cell.weight_ih = cell
        .weight_ih
        .clone()
        .map(|_| matrix(&[0.0, 0.0, 1.0, 0.0]));
    cell.weight_hh = cell.weight_hh.clone().map(|_| matrix(&[0.0; 4]));
    cell.bias_ih = cell.bias_ih.clone().map(|_| set(&[40.0, 40.0, 0.0, 40.0]));
    cell.bias_hh = cell.bias_hh.clone().map(|_| set(&[0.0; 4]));
    let x = tensor(&[0.5, -0.25, 1.0], [1, 3, 1], &device);
    let (y, state) = lstm.forward(x, None);
    let sums = [0.5f64, -0.25, 1.0].iter().scan(0.0, |sum, x| {
        *sum += x.tanh();
        Some(*sum)
    });
    let sums: Vec<f64> = sums.collect();
    let outputs: Vec<f64> = sums.iter().map(|sum| sum.tanh()).collect();
    assert_near(&host(y), &outputs, 1e-6);
    assert_near(&host(state.cell), &sums[2..], 1e-6);
}
