//! Sizes that are refused, and gradients.

use super::*;
use crate::{
    memory::volume,
    testing::{Rng, assert_panics},
};

const SIZES: AttentionSizes = AttentionSizes {
    batch: 2,
    heads: 4,
    kv_heads: 2,
    queries: 5,
    keys: 6,
    d: 3,
    causal: false,
};

/// `[batch, heads, tokens, d]` in order.
fn in_order(values: &[f32], [_, heads, tokens, d]: [usize; 4]) -> Heads<'_> {
    Heads {
        values,
        start: 0,
        steps: [heads * tokens * d, tokens * d, d, 1],
    }
}

/// Shapes of queries and keys.
fn shapes(sizes: AttentionSizes) -> [[usize; 4]; 2] {
    let AttentionSizes {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        d,
        ..
    } = sizes;
    [[batch, heads, queries, d], [batch, kv_heads, keys, d]]
}

#[test]
fn attention_rejects_operands_outside_their_slices() {
    let ([of_q, of_k], values) = (shapes(SIZES), [0.5; 120]);
    let (q, k) = (
        in_order(&values[..120], of_q),
        in_order(&values[..72], of_k),
    );
    let log_sums = [1.0; 41];
    assert_eq!(attention(q, k, k, SIZES).0.len(), 120);
    let grads = |operands: [Heads; 5], log_sums: &[f32], sizes: AttentionSizes| {
        let [q, k, v, output, dy] = operands;
        attention_grads(q, k, v, output, log_sums, dy, sizes)
    };
    let operands = [q, k, k, q, q];
    assert_eq!(
        grads(operands, &log_sums[..40], SIZES).map(|grad| grad.len()),
        [120, 72, 72]
    );
    let names = ["q", "k", "v", "output", "dy"];
    for (index, name) in names.into_iter().enumerate() {
        let fitting = operands[index];
        let mut others = vec![
            Heads {
                values: &fitting.values[1..],
                ..fitting
            },
            Heads {
                start: 1,
                ..fitting
            },
            Heads {
                start: usize::MAX,
                ..fitting
            },
        ];
        for axis in 0..4 {
            // Longer steps, also so long that the offset of the last element overflows.
            for step in [fitting.steps[axis] + 1, usize::MAX, usize::MAX / 2 + 2] {
                let mut steps = fitting.steps;
                steps[axis] = step;
                others.push(Heads { steps, ..fitting });
            }
        }
        for other in others {
            let mut operands = operands;
            operands[index] = other;
            let expected = format!("attention: {name} of shape");
            assert_panics(&expected, || grads(operands, &log_sums[..40], SIZES));
            if index < 3 {
                let [q, k, v, ..] = operands;
                assert_panics(&expected, || attention(q, k, v, SIZES));
            }
        }
    }
    for len in [0, 39, 41] {
        let expected = format!("attention_grads: log_sums has {len} elements, expected 40");
        assert_panics(&expected, || grads(operands, &log_sums[..len], SIZES));
    }
}

#[test]
fn attention_rejects_other_sizes() {
    // One element, whatever the sizes are.
    let q = Heads {
        values: &[0.5],
        start: 0,
        steps: [0; 4],
    };
    let half = usize::MAX / 2;
    let rejected = [
        (
            AttentionSizes {
                kv_heads: 0,
                ..SIZES
            },
            "kv_heads is 0",
        ),
        (
            AttentionSizes {
                kv_heads: 3,
                ..SIZES
            },
            "kv_heads is 3",
        ),
        (
            AttentionSizes {
                kv_heads: 8,
                ..SIZES
            },
            "kv_heads is 8",
        ),
        (
            AttentionSizes {
                queries: half,
                ..SIZES
            },
            "overflow",
        ),
        (AttentionSizes { d: half, ..SIZES }, "overflow"),
        (
            AttentionSizes {
                batch: 0,
                keys: usize::MAX,
                ..SIZES
            },
            "overflow",
        ),
        (
            AttentionSizes {
                heads: 0,
                kv_heads: usize::MAX,
                ..SIZES
            },
            "overflow",
        ),
    ];
    for (sizes, expected) in rejected {
        assert_panics(expected, || attention(q, q, q, sizes));
        assert_panics(expected, || attention_grads(q, q, q, q, &[], q, sizes));
        assert_panics(expected, || side_by_side(&[], sizes));
    }
}

#[test]
fn self_attention_rejects_other_lengths() {
    let sizes = AttentionSizes {
        kv_heads: 4,
        keys: 5,
        ..SIZES
    };
    let values = [0.5; 400];
    let lens = [360, 120, 40, 120];
    let grad = |lens: [usize; 4], sizes: AttentionSizes| {
        let [qkv, output, log_sums, dy] = lens.map(|len| &values[..len]);
        self_attention_grad(qkv, output, log_sums, dy, sizes)
    };
    assert_eq!(grad(lens, sizes).len(), 360);
    let names = ["qkv", "output", "log_sums", "dy"];
    for (index, name) in names.into_iter().enumerate() {
        for len in [0, lens[index] - 1, lens[index] + 1] {
            let mut lens = lens;
            lens[index] = len;
            let expected = format!("{name} has {len} elements");
            assert_panics(&expected, || grad(lens, sizes));
        }
    }
    for other in [
        AttentionSizes {
            kv_heads: 2,
            ..sizes
        },
        AttentionSizes { keys: 4, ..sizes },
    ] {
        assert_panics("self-attention: kv_heads and keys", || grad(lens, other));
        assert_panics("self-attention: kv_heads and keys", || {
            side_by_side(&values[..360], other)
        });
    }
    assert_panics("self-attention: qkv has 359 elements", || {
        side_by_side(&values[..359], sizes)
    });
}

/// One query of one head in 64 bits: the output, and the logarithm of its sum of exponentials.
fn definition(q: &[f32], k: &[f32], v: &[f32], seen: usize) -> (Vec<f64>, f64) {
    let d = q.len();
    let scores: Vec<f64> = (0..seen)
        .map(|key| {
            let products = q.iter().zip(&k[key * d..]);
            let dot: f64 = products.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            dot / (d as f64).sqrt()
        })
        .collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut output = vec![0.0; d];
    for (key, weight) in weights.iter().enumerate() {
        for (output, value) in output.iter_mut().zip(&v[key * d..]) {
            *output += weight / sum * f64::from(*value);
        }
    }
    (output, top + sum.ln())
}

/// Heads of any width, blocks of queries and steps of keys that end anywhere, few queries, and
/// scores so far apart that weights vanish.
#[test]
fn attention_matches_its_definition() {
    for ([queries, keys, d], [heads, kv_heads], causal, spread) in [
        ([1, 9, 8], [2, 1], true, 1.0),
        ([8, 77, 40], [2, 2], false, 1.0),
        ([9, 77, 40], [2, 2], false, 1.0),
        ([77, 77, 64], [2, 1], true, 1.0),
        ([33, 1, 1], [1, 1], false, 1.0),
        ([50, 130, 3], [4, 2], true, 1.0),
        ([200, 300, 17], [1, 1], true, 1.0),
        ([193, 129, 40], [1, 1], false, 1.0),
        ([130, 70, 512], [1, 1], false, 1.0),
        ([40, 300, 5], [1, 1], true, 40.0),
    ] {
        let sizes = AttentionSizes {
            batch: 2,
            heads,
            kv_heads,
            queries,
            keys,
            d,
            causal,
        };
        let [of_q, of_k] = shapes(sizes);
        let mut rng = Rng::new(queries as u64);
        let [mut q, k, v] = [of_q, of_k, of_k].map(|shape| rng.normals(volume(&shape)));
        q.iter_mut().for_each(|q| *q *= spread);
        let (output, log_sums) = attention(
            in_order(&q, of_q),
            in_order(&k, of_k),
            in_order(&v, of_k),
            sizes,
        );
        assert_eq!(output.len(), q.len());
        for (row, log_sum) in log_sums.into_iter().enumerate() {
            let (query, head) = (row % queries, row / queries);
            let (image, head_of_image) = (head / heads, head % heads);
            let from = (image * kv_heads + head_of_image / (heads / kv_heads)) * keys * d;
            let seen = if causal {
                query + 1 + keys - queries
            } else {
                keys
            };
            let (expected, expected_log) =
                definition(&q[row * d..][..d], &k[from..], &v[from..], seen);
            let at = ((image * queries + query) * heads + head_of_image) * d;
            let limit = 2e-6 * f64::from(spread);
            for (found, expected) in output[at..].iter().zip(&expected) {
                let apart = (f64::from(*found) - expected).abs();
                assert!(
                    apart < limit,
                    "{sizes:?}, query {row}: {found}, expected {expected}"
                );
            }
            let apart = (f64::from(log_sum) - expected_log).abs();
            assert!(
                apart < 1e-5 * expected_log.abs().max(1.0),
                "{sizes:?}, query {row}: {log_sum}, expected {expected_log}"
            );
        }
    }
}

/// What is not a number in a query or a key stays visible, and only where it is seen.
#[test]
fn attention_keeps_what_is_not_a_number() {
    let sizes = AttentionSizes {
        batch: 1,
        heads: 1,
        kv_heads: 1,
        queries: 20,
        keys: 20,
        d: 4,
        causal: true,
    };
    let [of_q, of_k] = shapes(sizes);
    for broken in 0..2 {
        let mut rng = Rng::new(3);
        let mut all = [of_q, of_k, of_k].map(|shape| rng.normals(volume(&shape)));
        all[broken][10 * 4] = f32::NAN;
        let [q, k, v] = all.each_ref();
        let (output, _) = attention(
            in_order(q, of_q),
            in_order(k, of_k),
            in_order(v, of_k),
            sizes,
        );
        for (row, output) in output.chunks(4).enumerate() {
            let seen = if broken == 0 { row == 10 } else { row >= 10 };
            assert_eq!(output[0].is_nan(), seen, "{broken}, query {row}");
        }
    }
}

/// Gradients of one head in 64 bits: of queries, keys and values.
fn grads_of_head(
    [q, k, v, dy]: [&[f32]; 4],
    d: usize,
    seen: impl Fn(usize) -> usize,
) -> [Vec<f64>; 3] {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let scale = 1.0 / (d as f64).sqrt();
    let mut grads = [q, k, v].map(|values| vec![0.0; values.len()]);
    let rows = |values, row: usize| -> &[f32] { &(values as &[f32])[row * d..][..d] };
    for query in 0..q.len() / d {
        let seen = 0..seen(query);
        let (of_q, of_dy) = (rows(q, query), rows(dy, query));
        let scores = seen.clone().map(|key| scale * dot(of_q, rows(k, key)));
        let weights: Vec<f64> = scores.map(f64::exp).collect();
        let sum: f64 = weights.iter().sum();
        let weights: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let changes: Vec<f64> = seen.map(|key| dot(of_dy, rows(v, key))).collect();
        let pairs = weights.iter().zip(&changes);
        let mean: f64 = pairs.map(|(weight, change)| weight * change).sum();
        for (key, (weight, change)) in weights.iter().zip(&changes).enumerate() {
            let change = weight * scale * (change - mean);
            for channel in 0..d {
                let (at, of_key) = (query * d + channel, key * d + channel);
                grads[0][at] += change * f64::from(k[of_key]);
                grads[1][of_key] += change * f64::from(q[at]);
                grads[2][of_key] += weight * f64::from(dy[at]);
            }
        }
    }
    grads
}

/// Few heads and many, few tokens and many, and as many heads as vectors have lanes or a few more.
#[test]
fn gradients_match_their_definition() {
    for ([batch, heads], [queries, keys, d], causal) in [
        ([8, 4], [16, 16, 4], false),
        ([5, 7], [16, 16, 8], true),
        ([3, 6], [5, 9, 3], true),
        ([9, 2], [32, 1, 40], false),
        ([1, 16], [9, 5, 64], true),
        ([1, 40], [1, 32, 1], false),
        ([1, 2], [16, 16, 8], true),
        ([2, 9], [33, 33, 8], false),
        ([2, 9], [7, 7, 65], false),
    ] {
        let sizes = AttentionSizes {
            batch,
            heads,
            kv_heads: heads,
            queries,
            keys,
            d,
            causal,
        };
        let [of_q, of_k] = shapes(sizes);
        let mut rng = Rng::new(d as u64);
        let [q, k, v, dy] = [of_q, of_k, of_k, of_q].map(|shape| rng.normals(volume(&shape)));
        let of_heads = [
            in_order(&q, of_q),
            in_order(&k, of_k),
            in_order(&v, of_k),
            in_order(&dy, of_q),
        ];
        let (output, log_sums) = attention(of_heads[0], of_heads[1], of_heads[2], sizes);
        let of_output = Heads {
            values: &output,
            start: 0,
            steps: [queries * heads * d, d, heads * d, 1],
        };
        let [of_q, of_k, of_v, of_dy] = of_heads;
        let found = attention_grads(of_q, of_k, of_v, of_output, &log_sums, of_dy, sizes);
        for unit in 0..batch * heads {
            let part = |values, tokens: usize| -> &[f32] {
                &(values as &[f32])[unit * tokens * d..][..tokens * d]
            };
            let inputs = [
                part(&q, queries),
                part(&k, keys),
                part(&v, keys),
                part(&dy, queries),
            ];
            let expected = grads_of_head(inputs, d, |query| sizes.seen(query));
            for ((found, expected), tokens) in found.iter().zip(expected).zip([queries, keys, keys])
            {
                for (at, expected) in expected.into_iter().enumerate() {
                    let (image, head) = (unit / heads, unit % heads);
                    let token = (image * tokens + at / d) * heads + head;
                    let found = f64::from(found[token * d + at % d]);
                    assert!(
                        (found - expected).abs() < 1e-5 * expected.abs().max(1.0),
                        "{sizes:?}, head {unit}: {found}, expected {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn self_attention_grad_matches_attention_grads() {
    let mut rng = Rng::new(2);
    for (tokens, causal) in [(70, false), (70, true), (9, false), (9, true)] {
        let sizes = AttentionSizes {
            batch: 5,
            kv_heads: 4,
            queries: tokens,
            keys: tokens,
            causal,
            ..SIZES
        };
        let len = sizes.batch * tokens * sizes.heads * sizes.d;
        let (qkv, dy) = (rng.normals(3 * len), rng.normals(len));
        let [q, k, v] = side_by_side(&qkv, sizes);
        let (output, log_sums) = attention(q, k, v, sizes);
        let in_order = |values| Heads {
            values,
            start: 0,
            steps: [
                tokens * sizes.heads * sizes.d,
                sizes.d,
                sizes.heads * sizes.d,
                1,
            ],
        };
        let (of_output, of_dy) = (in_order(&output[..]), in_order(&dy[..]));
        let grads = attention_grads(q, k, v, of_output, &log_sums, of_dy, sizes);
        let together = self_attention_grad(&qkv, &output, &log_sums, &dy, sizes);
        let width = sizes.heads * sizes.d;
        for (at, found) in together.into_iter().enumerate() {
            let (token, part, channel) = (at / (3 * width), at / width % 3, at % width);
            let expected = grads[part][token * width + channel];
            assert!(
                (found - expected).abs() < 1e-5,
                "{found}, expected {expected} at {at}"
            );
        }
    }
}

#[test]
fn attention_supports_queries_that_see_no_key() {
    for (queries, keys, causal) in [(70, 3, true), (70, 0, false), (0, 3, false)] {
        let sizes = AttentionSizes {
            queries,
            keys,
            causal,
            ..SIZES
        };
        let [of_q, of_k] = shapes(sizes);
        let mut rng = Rng::new(4);
        let [q, k, v, dy] = [of_q, of_k, of_k, of_q].map(|shape| rng.normals(volume(&shape)));
        let (q, k, v) = (in_order(&q, of_q), in_order(&k, of_k), in_order(&v, of_k));
        let (output, log_sums) = attention(q, k, v, sizes);
        let unseen = queries - keys.min(queries);
        let width = sizes.heads * sizes.d;
        let is_zero = |values: &[f32]| {
            values
                .chunks(width)
                .enumerate()
                .filter(|(row, _)| row % queries.max(1) < unseen)
                .all(|(_, row)| row.iter().all(|value| *value == 0.0))
        };
        assert!(output.iter().all(|value| value.is_finite()) && is_zero(&output));
        let heads_of_output = Heads {
            values: &output,
            start: 0,
            steps: [queries * width, sizes.d, width, 1],
        };
        let grads = attention_grads(
            q,
            k,
            v,
            heads_of_output,
            &log_sums,
            in_order(&dy, of_q),
            sizes,
        );
        let lens = grads.each_ref().map(Vec::len);
        assert_eq!(lens, [volume(&of_q), volume(&of_k), volume(&of_k)]);
        assert!(grads.iter().flatten().all(|value| value.is_finite()));
        assert!(is_zero(&grads[0]));
    }
}
