"""The sound effects of `aigc_core::data::effects`, and the training of `effects` on them, for
`sound_peers.py`. Recipes and ranges are those of the library; random numbers are NumPy's, so that
the sounds are others of the same distribution."""
import numpy as np, torch
from sound_peer_clips import RATE, Classifier, LogMel, share
from sound_peer_spectra import Images, draw, learn

TIME, TAU = np.arange(RATE) / RATE, 2 * np.pi
BELL = [(0.5, 0.4, 1.0), (1.0, 0.9, 0.8), (1.19, 0.6, 0.65), (1.5, 0.3, 0.5), (2.0, 0.7, 0.4),
        (2.67, 0.3, 0.25), (3.94, 0.25, 0.15)]

# Recipes are given columns of parameters, one row for each sound, and return `[sounds, RATE]`.


def linear(low, high, at):
    return low + (high - low) * at


def geometric(low, high, at):
    return low * (high / low) ** at


def strike(attack, decay, time=TIME):
    return np.minimum(time / attack, 1) * np.exp(-np.maximum(time - attack, 0) / decay)


def gate(start, end, edge):
    return (np.minimum(TIME - start, end - TIME) / edge).clip(0, 1)


def hollow(dullness):
    return [k ** -dullness * (k % 2) for k in range(1, 16)]


def buzzing(dullness):
    return [k ** -dullness for k in range(1, 16)]


def tone(partials, hertz, gain):
    """Multiples of a frequency; those that the sample rate cannot represent fade out."""
    hertz = hertz + np.zeros_like(TIME)
    phase = TAU / RATE * (np.cumsum(hertz, 1) - hertz)
    total = 0
    for multiple, partial in enumerate(partials, 1):
        fade = ((0.45 * RATE - multiple * hertz) / (0.1 * RATE)).clip(0, 1)
        total = total + partial * fade * np.sin(multiple * phase)
    return np.where(gain > 1e-5, gain, 0) * total


def noise(rng, band, quality, hertz, gain):
    """White noise through a state-variable filter: below a frequency, or near it (`band` 1)."""
    hertz = (hertz + np.zeros_like(TIME)).clip(10, 0.45 * RATE)
    g, k = np.tan(np.pi * hertz / RATE), 1 / quality
    a, white = 1 / (1 + g * (g + k)), rng.standard_normal(hertz.shape)
    middle, below = np.empty_like(g), np.empty_like(g)
    first = second = np.zeros(len(g))
    for at in range(RATE):
        middle[:, at] = a[:, at] * (first + g[:, at] * (white[:, at] - second))
        below[:, at] = second + g[:, at] * middle[:, at]
        first, second = 2 * middle[:, at] - first, 2 * below[:, at] - second
    return gain * (band * k * middle + (1 - band) * below)


def coin(pitch, length, brightness, variation, rng):
    first = geometric(700, 1200, pitch)
    semitones = np.array([5, 7, 9])[np.minimum((3 * variation).astype(int), 2)]
    change = linear(0.06, 0.1, length)
    before, ring = TIME < change, strike(0.003, linear(0.12, 0.3, length), TIME - change)
    return tone(hollow(linear(1.8, 1.0, brightness)),
                np.where(before, first, first * 2 ** (semitones / 12)),
                np.where(before, 0.8 * gate(0, change, 0.005), ring))


def laser(pitch, length, brightness, variation, rng):
    duration = linear(0.16, 0.45, length)
    done = np.minimum(TIME / duration, 1)
    bent = done ** linear(0.6, 1.4, variation)
    hertz = geometric(geometric(1400, 3200, pitch), geometric(110, 260, pitch), bent)
    return tone(buzzing(linear(1.7, 0.9, brightness)), hertz,
                gate(0, duration, 0.006) * (1 - 0.6 * done))


def jump(pitch, length, brightness, variation, rng):
    low, duration = geometric(160, 320, pitch), linear(0.14, 0.32, length)
    done = np.minimum(TIME / duration, 1)
    return tone(hollow(linear(1.8, 1.0, brightness)),
                geometric(low, low * linear(2.0, 3.5, variation), done),
                gate(0, duration, 0.02) * (1 - 0.4 * done))


def explosion(pitch, length, brightness, variation, rng):
    decay, rumble = linear(0.14, 0.32, length), geometric(38, 70, pitch)
    bright = geometric(1200, 3400, brightness) * np.exp(-TIME / (0.6 * decay))
    blast = noise(rng, 0, 0.8, geometric(60, 160, pitch) + bright, strike(0.004, decay))
    return blast + tone([1.0, 0.4, 0.2], rumble * (1 + 0.8 * np.exp(-TIME / 0.08)),
                        linear(0.3, 0.9, variation) * strike(0.01, 1.3 * decay))


def bell(pitch, length, brightness, variation, rng):
    note, decay = geometric(330, 880, pitch), linear(0.18, 0.5, length)
    total = 0
    for index, (ratio, amplitude, sustain) in enumerate(BELL):
        dull = linear(0.55, 1.0, brightness) ** index
        cast = 1 + 0.02 * (variation - 0.5) * index
        total = total + tone([1.0], note * ratio * cast,
                             amplitude * dull * strike(0.002, decay * sustain))
    return total


def drum(pitch, length, brightness, variation, rng):
    body = tone([1.0, 0.25, 0.08],
                geometric(48, 110, pitch) * (1 + 2.2 * np.exp(-TIME / 0.025)),
                strike(0.002, linear(0.07, 0.2, length)))
    snare = linear(0.15, 0.9, variation) * strike(0.001, linear(0.02, 0.09, length))
    return body + noise(rng, 1, 0.7, geometric(900, 2600, brightness), snare)


def wind(pitch, length, brightness, variation, rng):
    speed, starts = linear(0.6, 1.6, variation), rng.random((2, *pitch.shape))
    gust = 0.6 * np.sin(TAU * (speed * TIME + starts[0])) \
        + 0.4 * np.sin(TAU * (2.37 * speed * TIME + starts[1]))
    return noise(rng, 1, linear(5.0, 1.6, brightness),
                 geometric(260, 800, pitch) * 2 ** (0.7 * gust),
                 gate(0, 1, linear(0.12, 0.3, length)) * (0.65 + 0.35 * gust))


def alarm(pitch, length, brightness, variation, rng):
    low, at = geometric(420, 800, pitch), linear(2, 6, variation) * TIME % 1
    sweep = np.where(at < 0.5, 2 * at, 2 - 2 * at)
    side = np.where(brightness > 0.5, sweep, at < 0.5)
    return tone(hollow(linear(1.5, 1.0, brightness)),
                geometric(low, low * linear(1.2, 1.5, length), side), gate(0, 1, 0.02))


KINDS = [coin, laser, jump, explosion, bell, drum, wind, alarm]


def computed(count, seed, at_once=128):
    """Sounds `[count, RATE]` with random parameters, and their kinds, which take turns."""
    rng, sounds = np.random.default_rng(seed), np.empty((count, RATE), np.float32)
    edges = np.minimum(np.arange(RATE) / (0.001 * RATE), 1) \
        * np.minimum(np.arange(RATE)[::-1] / (0.02 * RATE), 1)
    for kind, recipe in enumerate(KINDS):
        for first in range(kind, count, 8 * at_once):
            part = slice(first, first + 8 * at_once, 8)
            x = recipe(*rng.random((4, len(sounds[part]), 1)), rng)
            sounds[part] = 0.8 * x / np.abs(x).max(1, keepdims=True) * edges
    return torch.from_numpy(sounds), torch.arange(count) % len(KINDS)


def effects(steps, clips, classifier, samples, seed):
    """The share of drawn effects that are read as asked; beside it that of computed effects that
    no network has learned, and of those made of their spectra."""
    images = Images(LogMel(512, 256, 32), 32, 3.0)
    sounds, kinds = computed(clips, [seed, 0])
    ms, network = learn(images.of(sounds), kinds, (32, 64, 64), len(KINDS), steps, batch=32,
                        warmup=100, decay=0.998)
    if not classifier:
        return dict(ms=ms)
    held_out, kinds = computed(samples, [seed, 1])
    read = Classifier(classifier)

    def right(waves):
        waves = waves[:, :RATE]
        loud = waves.abs().amax(1, keepdim=True) / 0.99
        return share(read(waves / loud.clamp_min(1)), kinds.tolist())

    return dict(ms=ms, right=right(images.waves(draw(network, kinds))), held_out=right(held_out),
                from_spectra=right(images.waves(images.of(held_out))))
