//! Weather reports that follow a grammar, so that generated reports can be checked.
//!
//! ```text
//! report  = city ", " day " " month ": " sky " in the morning, " sky " in the afternoon. High " t
//!           ", low " t ". " wind " from the " point ", " speed " km/h."
//! ```
//!
//! In addition to the grammar: the day exists in its month, the low is below the high by at most
//! fifteen, it snows only if the low is below 3 and rains only if the high is above 0, and the name
//! of the wind fits its speed.

use aigc_core::rng::Rng;

const CITIES: [&str; 24] = [
    "Amsterdam",
    "Bergen",
    "Bilbao",
    "Cairo",
    "Cork",
    "Dakar",
    "Dublin",
    "Genoa",
    "Graz",
    "Helsinki",
    "Kyoto",
    "Lima",
    "Lisbon",
    "Lyon",
    "Malmo",
    "Nairobi",
    "Oslo",
    "Porto",
    "Quito",
    "Riga",
    "Sapporo",
    "Tallinn",
    "Turin",
    "Vienna",
];
const MONTHS: [(&str, u32); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];
const SKIES: [&str; 8] = [
    "sunny",
    "cloudy",
    "foggy",
    "overcast",
    "light rain",
    "heavy rain",
    "light snow",
    "heavy snow",
];
const WINDS: [(&str, std::ops::RangeInclusive<i32>); 4] = [
    ("Light air", 1..=9),
    ("A breeze", 10..=29),
    ("A strong wind", 30..=59),
    ("A gale", 60..=99),
];
const POINTS: [&str; 8] = [
    "north",
    "north-east",
    "east",
    "south-east",
    "south",
    "south-west",
    "west",
    "north-west",
];

fn of<T: Copy>(all: &[T], rng: &mut Rng) -> T {
    all[rng.random_index(all.len())]
}

/// Whether the sky is possible at these temperatures.
fn fits(sky: &str, high: i32, low: i32) -> bool {
    (!sky.ends_with("snow") || low < 3) && (!sky.ends_with("rain") || high > 0)
}

/// A random report.
pub(crate) fn report(rng: &mut Rng) -> String {
    let (month, days) = of(&MONTHS, rng);
    let day = 1 + rng.random_index(days as usize);
    let high = rng.random_index(41) as i32 - 5;
    // About eight degrees below on average, a typical difference between day and night.
    let low = high - 2 - (0..3).map(|_| rng.random_index(5) as i32).sum::<i32>();
    let mut sky = || loop {
        let sky = of(&SKIES, rng);
        if fits(sky, high, low) {
            return sky;
        }
    };
    let (morning, afternoon) = (sky(), sky());
    let (wind, speeds) = WINDS[rng.random_index(WINDS.len())].clone();
    let speed =
        speeds.start() + rng.random_index((speeds.end() - speeds.start() + 1) as usize) as i32;
    let (city, point) = (of(&CITIES, rng), of(&POINTS, rng));
    format!(
        "{city}, {day} {month}: {morning} in the morning, {afternoon} in the afternoon. High {high}, low {low}. \
         {wind} from the {point}, {speed} km/h."
    )
}

/// Random reports for a seed.
pub(crate) fn corpus(reports: usize, seed: u64) -> Vec<String> {
    let mut rng = Rng::stream(seed, "weather", 0);
    (0..reports).map(|_| report(&mut rng)).collect()
}

/// What is wrong with a report; `None` if it is valid.
pub(crate) fn fault(text: &str) -> Option<String> {
    check(text).err()
}

/// Splits a text at the first `mark`.
fn until<'a>(text: &'a str, mark: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once(mark)
        .ok_or_else(|| format!("{mark:?} does not follow in {text:?}"))
}

/// Parses a number without leading zeros.
fn number(text: &str) -> Result<i32, String> {
    let number: i32 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if number.to_string() == text {
        Ok(number)
    } else {
        Err(format!("{text:?} is not written as {number}"))
    }
}

fn known(what: &str, text: &str, all: &[&str]) -> Result<(), String> {
    if all.contains(&text) {
        Ok(())
    } else {
        Err(format!("{text:?} is no {what}"))
    }
}

fn check(text: &str) -> Result<(), String> {
    let (city, rest) = until(text, ", ")?;
    known("city", city, &CITIES)?;
    let (day, rest) = until(rest, " ")?;
    let (month, rest) = until(rest, ": ")?;
    let days = MONTHS
        .iter()
        .find(|(name, _)| *name == month)
        .ok_or_else(|| format!("{month:?} is no month"))?
        .1;
    let day = number(day)?;
    if !(1..=days as i32).contains(&day) {
        return Err(format!("{month} has no day {day}"));
    }
    let (morning, rest) = until(rest, " in the morning, ")?;
    let (afternoon, rest) = until(rest, " in the afternoon. High ")?;
    let (high, rest) = until(rest, ", low ")?;
    let (low, rest) = until(rest, ". ")?;
    let (high, low) = (number(high)?, number(low)?);
    if low >= high || high - low > 15 {
        return Err(format!("a low of {low} does not fit a high of {high}"));
    }
    for sky in [morning, afternoon] {
        known("sky", sky, &SKIES)?;
        if !fits(sky, high, low) {
            return Err(format!("{sky} between {low} and {high} degrees"));
        }
    }
    let (wind, rest) = until(rest, " from the ")?;
    let (point, rest) = until(rest, ", ")?;
    known("point", point, &POINTS)?;
    let (speed, rest) = until(rest, " km/h.")?;
    if !rest.is_empty() {
        return Err(format!("{rest:?} at the end"));
    }
    let speed = number(speed)?;
    let speeds = &WINDS
        .iter()
        .find(|(name, _)| *name == wind)
        .ok_or_else(|| format!("{wind:?} is no wind"))?
        .1;
    if speeds.contains(&speed) {
        Ok(())
    } else {
        Err(format!("{wind} of {speed} km/h"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_detects_changed_reports() {
        let all = corpus(2000, 1);
        assert_eq!(all.iter().find_map(|report| fault(report)), None);
        let distinct: std::collections::HashSet<&String> = all.iter().collect();
        assert!(distinct.len() > 1990, "{} of 2000", distinct.len());
        let good = "Oslo, 3 March: light snow in the morning, cloudy in the afternoon. High 4, low -2. A breeze from the north, 12 km/h.";
        assert_eq!(fault(good), None);
        for (from, to) in [
            ("Oslo", "Osla"),
            ("3 March", "32 March"),
            ("3 March", "03 March"),
            ("March", "Marsh"),
            ("low -2", "low 5"),
            ("low -2", "low -12"),
            ("low -2", "low 3"),
            ("cloudy", "clowdy"),
            ("12 km/h", "30 km/h"),
            ("A breeze", "A storm"),
            ("north", "nord"),
            ("km/h.", "km/h. And"),
            (" in the morning, ", " in the evening, "),
        ] {
            assert!(fault(&good.replace(from, to)).is_some(), "{from} → {to}");
        }
    }
}
