//! Ticks and seconds.

/// Microseconds of a beat until a file sets another tempo: 120 beats per minute.
const DEFAULT_MICROSECONDS: u32 = 500_000;

/// From `tick`, at `seconds`, on, a tick lasts `tick_seconds`.
#[derive(Clone, Copy, Debug)]
struct Change {
    tick: u64,
    seconds: f64,
    tick_seconds: f64,
}

/// Converts between ticks and seconds under changing tempi.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    ticks_per_beat: f64,
    /// In the order of time; the first one is at tick 0.
    changes: Vec<Change>,
}

impl Clock {
    /// A clock of the default tempo.
    pub(super) fn new(ticks_per_beat: u16) -> Self {
        let mut clock = Self {
            ticks_per_beat: f64::from(ticks_per_beat),
            changes: vec![],
        };
        clock.push(0, 0.0, DEFAULT_MICROSECONDS);
        clock
    }

    /// A clock whose ticks last `tick_seconds`, whatever the tempo.
    pub(super) fn constant(tick_seconds: f64) -> Self {
        Self {
            ticks_per_beat: 1.0,
            changes: vec![Change {
                tick: 0,
                seconds: 0.0,
                tick_seconds,
            }],
        }
    }

    fn push(&mut self, tick: u64, seconds: f64, microseconds: u32) {
        let tick_seconds = f64::from(microseconds) * 1e-6 / self.ticks_per_beat;
        self.changes.push(Change {
            tick,
            seconds,
            tick_seconds,
        });
    }

    /// Sets the tempo from a tick on, which is not before those set earlier.
    pub(super) fn set_tempo(&mut self, tick: u64, microseconds: u32) {
        let seconds = self.seconds(tick);
        self.push(tick, seconds, microseconds);
    }

    /// The time of a tick.
    pub(super) fn seconds(&self, tick: u64) -> f64 {
        let after = self.changes.partition_point(|change| change.tick <= tick);
        let change = self.changes[after.saturating_sub(1)];
        change.seconds + (tick - change.tick) as f64 * change.tick_seconds
    }

    /// The tick nearest to a time that is not negative.
    pub(super) fn tick(&self, seconds: f64) -> u64 {
        let after = self.changes.partition_point(|c| c.seconds <= seconds);
        let change = self.changes[after.saturating_sub(1)];
        // The cast saturates.
        change.tick + ((seconds - change.seconds) / change.tick_seconds).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tempi_apply_from_their_tick_on() {
        let mut clock = Clock::new(100);
        assert_eq!(clock.seconds(200), 1.0);
        clock.set_tempo(200, 1_000_000);
        clock.set_tempo(300, 250_000);
        for (tick, seconds) in [(0, 0.0), (100, 0.5), (200, 1.0), (250, 1.5), (340, 2.1)] {
            assert!((clock.seconds(tick) - seconds).abs() < 1e-12);
            assert_eq!(clock.tick(seconds), tick);
        }
        assert_eq!(clock.tick(1.0049), 200);
        assert_eq!(Clock::constant(0.01).tick(1.0), 100);
    }
}
