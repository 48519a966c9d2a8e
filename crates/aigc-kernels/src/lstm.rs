//! One step of long short-term memory after its matrix products, and its gradients.

use super::{
    math::{sigmoid, tanh},
    memory::{check_len, filled, row_count, volume},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Approximate cost of an element of the state in floating-point operations.
const COST: usize = 100;

/// Elements of the state that one part takes.
const PART: usize = 1024;

/// A step of the cells: `c′ = σ(f)·c + σ(i)·tanh(g)` and `h = σ(o)·tanh(c′)`.
///
/// `gates` is `[batch, 4·d]`, in every row `i`, `f`, `g` and `o` in this order; `cell` is
/// `[batch, d]`. The result is `[2, batch, d]`: `h`, then `c′`.
///
/// # Panics
/// If `cell` is not whole rows of `d`, or `gates` is not four times as long as `cell`.
pub fn lstm_cell(gates: &[f32], cell: &[f32], d: usize) -> Vec<f32> {
    row_count("lstm_cell: cell", cell.len(), d);
    let len = cell.len();
    check_len("lstm_cell: gates", gates.len(), volume(&[4, len]));
    let write = |states: &mut [f32]| {
        let states = Shared::new(states);
        for_each(len.div_ceil(PART), len * COST, |part| {
            for (at, count) in pieces(part, len, d) {
                // SAFETY: every piece has its own elements of both states.
                let [hidden, next] =
                    unsafe { [states.range(at, count), states.range(len + at, count)] };
                arch().dispatch(Forward {
                    gates: gates_of(gates, at, count, d),
                    cell: &cell[at..at + count],
                    hidden,
                    next,
                });
            }
        });
    };
    // SAFETY: the pieces cover all elements. `Forward` gets as many elements of the inputs as of
    // the outputs, and writes whole vectors and the rest.
    unsafe { filled(2 * len, write) }
}

/// Gradients of [`lstm_cell`] with respect to `gates` and `cell`, from its inputs and the gradient
/// of its output, `[2, batch, d]`.
///
/// # Panics
/// If `cell` is not whole rows of `d`, or `gates` or `grad` does not fit it.
pub fn lstm_cell_grads(
    gates: &[f32],
    cell: &[f32],
    grad: &[f32],
    d: usize,
) -> (Vec<f32>, Vec<f32>) {
    row_count("lstm_cell_grads: cell", cell.len(), d);
    let len = cell.len();
    check_len("lstm_cell_grads: gates", gates.len(), volume(&[4, len]));
    check_len("lstm_cell_grads: grad", grad.len(), volume(&[2, len]));
    let mut dcell = vec![0.0; len];
    let write = |dgates: &mut [f32]| {
        let (dgates, dcell) = (Shared::new(dgates), Shared::new(&mut dcell));
        for_each(len.div_ceil(PART), 2 * COST * len, |part| {
            for (at, count) in pieces(part, len, d) {
                let places = places(at, d);
                // SAFETY: every piece has its own elements of all five gradients.
                let outputs = unsafe {
                    [
                        dgates.range(places[0], count),
                        dgates.range(places[1], count),
                        dgates.range(places[2], count),
                        dgates.range(places[3], count),
                        dcell.range(at, count),
                    ]
                };
                arch().dispatch(Backward {
                    gates: gates_of(gates, at, count, d),
                    cell: &cell[at..at + count],
                    dhidden: &grad[at..at + count],
                    dnext: &grad[len + at..][..count],
                    outputs,
                });
            }
        });
    };
    // SAFETY: the pieces cover all elements. `Backward` gets as many elements of the inputs as of
    // the outputs, and writes whole vectors and the rest.
    let dgates = unsafe { filled(4 * len, write) };
    (dgates, dcell)
}

/// The pieces of rows of `d` elements that a part has: where each starts, and its length.
fn pieces(part: usize, len: usize, d: usize) -> impl Iterator<Item = (usize, usize)> {
    let (mut at, end) = (part * PART, len.min((part + 1) * PART));
    std::iter::from_fn(move || {
        let piece = (at, (d - at % d).min(end - at));
        at += piece.1;
        (piece.1 > 0).then_some(piece)
    })
}

/// Where the four gates of element `at` of the state are.
fn places(at: usize, d: usize) -> [usize; 4] {
    [0, 1, 2, 3].map(|gate| (4 * (at / d) + gate) * d + at % d)
}

/// The four gates of `count` elements from `at` on, which are of one row.
fn gates_of(gates: &[f32], at: usize, count: usize, d: usize) -> [&[f32]; 4] {
    places(at, d).map(|place| &gates[place..place + count])
}

struct Forward<'a> {
    gates: [&'a [f32]; 4],
    cell: &'a [f32],
    hidden: &'a mut [f32],
    next: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let [input, forget, candidate, output] = self.gates;
        let (input, input_rest) = S::as_simd_f32s(input);
        let (forget, forget_rest) = S::as_simd_f32s(forget);
        let (candidate, candidate_rest) = S::as_simd_f32s(candidate);
        let (output, output_rest) = S::as_simd_f32s(output);
        let (cell, cell_rest) = S::as_simd_f32s(self.cell);
        let (hidden, hidden_rest) = S::as_mut_simd_f32s(self.hidden);
        let (next, next_rest) = S::as_mut_simd_f32s(self.next);
        for (at, (hidden, next)) in hidden.iter_mut().zip(next).enumerate() {
            let open = Open::new(s, [input[at], forget[at], candidate[at], output[at]]);
            *next = open.cell(s, cell[at]);
            *hidden = s.mul_f32s(open.output, tanh(s, *next));
        }
        let gates = [
            s.partial_load_f32s(input_rest),
            s.partial_load_f32s(forget_rest),
            s.partial_load_f32s(candidate_rest),
            s.partial_load_f32s(output_rest),
        ];
        let open = Open::new(s, gates);
        let next = open.cell(s, s.partial_load_f32s(cell_rest));
        s.partial_store_f32s(next_rest, next);
        s.partial_store_f32s(hidden_rest, s.mul_f32s(open.output, tanh(s, next)));
    }
}

/// The gates after their activations.
struct Open<S: Simd> {
    input: S::f32s,
    forget: S::f32s,
    candidate: S::f32s,
    output: S::f32s,
}

impl<S: Simd> Open<S> {
    #[inline(always)]
    fn new(s: S, [input, forget, candidate, output]: [S::f32s; 4]) -> Self {
        Self {
            input: sigmoid(s, input),
            forget: sigmoid(s, forget),
            candidate: tanh(s, candidate),
            output: sigmoid(s, output),
        }
    }

    /// The next state of a cell.
    #[inline(always)]
    fn cell(&self, s: S, cell: S::f32s) -> S::f32s {
        s.mul_add_e_f32s(self.forget, cell, s.mul_f32s(self.input, self.candidate))
    }

    /// Gradients of the four gates and of the cell.
    #[inline(always)]
    fn grads(&self, s: S, cell: S::f32s, dhidden: S::f32s, dnext: S::f32s) -> [S::f32s; 5] {
        let size = tanh(s, self.cell(s, cell));
        let through = s.mul_f32s(s.mul_f32s(dhidden, self.output), tanh_slope(s, size));
        let dnext = s.add_f32s(dnext, through);
        [
            s.mul_f32s(
                s.mul_f32s(dnext, self.candidate),
                sigmoid_slope(s, self.input),
            ),
            s.mul_f32s(s.mul_f32s(dnext, cell), sigmoid_slope(s, self.forget)),
            s.mul_f32s(s.mul_f32s(dnext, self.input), tanh_slope(s, self.candidate)),
            s.mul_f32s(s.mul_f32s(dhidden, size), sigmoid_slope(s, self.output)),
            s.mul_f32s(dnext, self.forget),
        ]
    }
}

/// `σ(1 − σ)`
#[inline(always)]
fn sigmoid_slope<S: Simd>(s: S, value: S::f32s) -> S::f32s {
    s.mul_f32s(value, s.sub_f32s(s.splat_f32s(1.0), value))
}

/// `1 − tanh²`
#[inline(always)]
fn tanh_slope<S: Simd>(s: S, value: S::f32s) -> S::f32s {
    s.sub_f32s(s.splat_f32s(1.0), s.mul_f32s(value, value))
}

struct Backward<'a> {
    gates: [&'a [f32]; 4],
    cell: &'a [f32],
    dhidden: &'a [f32],
    dnext: &'a [f32],
    /// Gradients of the four gates and of the cell.
    outputs: [&'a mut [f32]; 5],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let [input, forget, candidate, output] = self.gates;
        let (input, input_rest) = S::as_simd_f32s(input);
        let (forget, forget_rest) = S::as_simd_f32s(forget);
        let (candidate, candidate_rest) = S::as_simd_f32s(candidate);
        let (output, output_rest) = S::as_simd_f32s(output);
        let (cell, cell_rest) = S::as_simd_f32s(self.cell);
        let (dhidden, dhidden_rest) = S::as_simd_f32s(self.dhidden);
        let (dnext, dnext_rest) = S::as_simd_f32s(self.dnext);
        let [d_input, d_forget, d_candidate, d_output, d_cell] = self.outputs;
        let (d_input, d_input_rest) = S::as_mut_simd_f32s(d_input);
        let (d_forget, d_forget_rest) = S::as_mut_simd_f32s(d_forget);
        let (d_candidate, d_candidate_rest) = S::as_mut_simd_f32s(d_candidate);
        let (d_output, d_output_rest) = S::as_mut_simd_f32s(d_output);
        let (d_cell, d_cell_rest) = S::as_mut_simd_f32s(d_cell);
        for (at, d_cell) in d_cell.iter_mut().enumerate() {
            let open = Open::new(s, [input[at], forget[at], candidate[at], output[at]]);
            let grads = open.grads(s, cell[at], dhidden[at], dnext[at]);
            [
                d_input[at],
                d_forget[at],
                d_candidate[at],
                d_output[at],
                *d_cell,
            ] = grads;
        }
        let gates = [
            s.partial_load_f32s(input_rest),
            s.partial_load_f32s(forget_rest),
            s.partial_load_f32s(candidate_rest),
            s.partial_load_f32s(output_rest),
        ];
        let [input, forget, candidate, output, cell] = Open::new(s, gates).grads(
            s,
            s.partial_load_f32s(cell_rest),
            s.partial_load_f32s(dhidden_rest),
            s.partial_load_f32s(dnext_rest),
        );
        s.partial_store_f32s(d_input_rest, input);
        s.partial_store_f32s(d_forget_rest, forget);
        s.partial_store_f32s(d_candidate_rest, candidate);
        s.partial_store_f32s(d_output_rest, output);
        s.partial_store_f32s(d_cell_rest, cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, assert_panics};

    /// States after a step, in `f64`.
    fn step(gates: [f64; 4], cell: f64) -> [f64; 2] {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let [input, forget, candidate, output] = gates;
        let next = sigmoid(forget) * cell + sigmoid(input) * candidate.tanh();
        [sigmoid(output) * next.tanh(), next]
    }

    /// States, and gradients against differences, for rows that end inside a vector or a part.
    #[test]
    fn lstm_cell_matches_its_formula() {
        let mut rng = Rng::new(1);
        for [batch, d] in [[1, 1], [3, 5], [2, 16], [2, 37], [1, PART + 3], [5, 700]] {
            let len = batch * d;
            let (gates, cell, grad) =
                (rng.normals(4 * len), rng.normals(len), rng.normals(2 * len));
            let states = lstm_cell(&gates, &cell, d);
            let (dgates, dcell) = lstm_cell_grads(&gates, &cell, &grad, d);
            for at in 0..len {
                let places = places(at, d);
                let (open, old) = (places.map(|i| f64::from(gates[i])), f64::from(cell[at]));
                let slopes = [grad[at], grad[len + at]].map(f64::from);
                let loss = |gates: [f64; 4], cell: f64| {
                    let [hidden, next] = step(gates, cell);
                    slopes[0] * hidden + slopes[1] * next
                };
                let ([hidden, next], near) = (step(open, old), 1e-5);
                let mut pairs = vec![(states[at], hidden), (states[len + at], next)];
                for (gate, place) in places.into_iter().enumerate() {
                    let moved = |by: f64| {
                        let mut gates = open;
                        gates[gate] += by;
                        loss(gates, old)
                    };
                    let slope = (moved(near) - moved(-near)) / (2.0 * near);
                    pairs.push((dgates[place], slope));
                }
                let slope = (loss(open, old + near) - loss(open, old - near)) / (2.0 * near);
                pairs.push((dcell[at], slope));
                for (found, expected) in pairs {
                    assert!(
                        (f64::from(found) - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                        "{batch}×{d} at {at}: {found}, expected {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn cells_keep_their_state_or_take_the_candidate() {
        let keep = lstm_cell(&[-200.0, 200.0, 3.0, 200.0], &[0.5], 1);
        assert_eq!(keep[1], 0.5);
        assert!((keep[0] - 0.5f32.tanh()).abs() < 1e-7, "{keep:?}");
        let take = lstm_cell(&[200.0, -200.0, 50.0, -200.0], &[0.5], 1);
        assert_eq!(take, [0.0, 1.0]);
    }

    #[test]
    fn operands_of_other_lengths_are_rejected() {
        let values = [0.5; 24];
        let v = |len: usize| &values[..len];
        assert_panics(
            "lstm_cell: cell has 5 elements, expected whole rows",
            || lstm_cell(v(20), v(5), 3),
        );
        assert_panics("lstm_cell: gates has 20 elements, expected 24", || {
            lstm_cell(v(20), v(6), 3)
        });
        assert_panics("lstm_cell_grads: grad has 11 elements, expected 12", || {
            lstm_cell_grads(v(24), v(6), v(11), 3)
        });
        assert!(lstm_cell(&[], &[], 3).is_empty() && lstm_cell(&[], &[], 0).is_empty());
    }
}
