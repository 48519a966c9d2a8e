//! How fast sound is made.

use std::{
    fmt,
    ops::AddAssign,
    time::{Duration, Instant},
};

/// Seconds of sound, and of the work that made it.
///
/// The real-time factor is the work for a second of sound, as papers on speech have it: below 1,
/// sound is made faster than it is played. The text has its reciprocal too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Seconds of sound.
    pub sound: f64,
    /// Seconds of work.
    pub work: f64,
}

impl Speed {
    /// This many seconds of sound, made in `work`.
    pub fn new(sound: f64, work: Duration) -> Self {
        Self {
            sound,
            work: work.as_secs_f64(),
        }
    }

    /// This many seconds of sound, made since `began`.
    pub fn since(began: Instant, sound: f64) -> Self {
        Self::new(sound, began.elapsed())
    }

    /// Seconds of work for a second of sound; infinite without sound.
    pub fn real_time_factor(&self) -> f64 {
        match self.sound > 0.0 {
            true => self.work / self.sound,
            false => f64::INFINITY,
        }
    }

    /// Seconds of sound in a second of work; infinite without work.
    pub fn sound_per_second(&self) -> f64 {
        match self.work > 0.0 {
            true => self.sound / self.work,
            false => f64::INFINITY,
        }
    }
}

impl AddAssign for Speed {
    fn add_assign(&mut self, other: Self) {
        self.sound += other.sound;
        self.work += other.work;
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} s of sound in {:.2} s: real-time factor {:.3}, {:.1} s of sound per second",
            self.sound,
            self.work,
            self.real_time_factor(),
            self.sound_per_second()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factor_is_work_per_second_of_sound() {
        let mut speed = Speed::new(4.0, Duration::from_millis(500));
        assert_eq!(
            (speed.real_time_factor(), speed.sound_per_second()),
            (0.125, 8.0)
        );
        speed += Speed::new(2.0, Duration::from_millis(1000));
        assert_eq!(speed.real_time_factor(), 0.25);
        assert_eq!(
            speed.to_string(),
            "6.0 s of sound in 1.50 s: real-time factor 0.250, 4.0 s of sound per second"
        );
        assert_eq!(Speed::default().real_time_factor(), f64::INFINITY);
    }
}
