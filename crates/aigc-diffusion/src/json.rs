//! What configuration files of diffusers have in common.

pub(crate) use aigc_core::json::{
    check_ranges, from_map_with_defaults, parse_object, read_file, to_map,
};

use aigc_core::{Error, Result, json, weights::Loaded};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// A network's configuration from the fields of its file; the report lists unknown fields.
/// `unsupported`: fields of options that are not implemented, and the value that they have to have.
pub(crate) fn network<S: Serialize + DeserializeOwned + Default>(
    mut given: Map<String, Value>,
    class: &str,
    unsupported: &[(&str, &str)],
) -> Result<Loaded<S>> {
    if let Some(other) = given.get("_class_name").filter(|name| *name != class) {
        return Err(Error::config("_class_name", other, class));
    }
    json::reject_unsupported(&mut given, unsupported)?;
    from_map_with_defaults(&given)
}

/// The text of a network's configuration as diffusers writes it.
pub(crate) fn to_text(config: &impl Serialize, class: &str) -> String {
    let mut fields = to_map(config);
    fields.insert("_class_name".into(), class.into());
    serde_json::to_string_pretty(&fields).expect("plain values")
}

/// Lists that have an entry for each level.
///
/// The first level also holds sines and cosines of the time, whose frequencies are `freq_shift` of
/// their number apart.
pub(crate) fn levels(channels: &[usize], lists: &[(&str, usize)], freq_shift: f64) -> Result<()> {
    let levels = channels.len();
    check_ranges(&[("block_out_channels", channels[0], 1 << 14)])?;
    if !channels[0].is_multiple_of(2) {
        return Err(Error::config(
            "block_out_channels",
            channels[0],
            "an even first number, for sines and cosines",
        ));
    }
    let most = channels[0] / 2;
    if freq_shift.is_nan() || freq_shift >= most as f64 {
        return Err(Error::config(
            "freq_shift",
            freq_shift,
            format!("less than {most}, half the first block's channels"),
        ));
    }
    match lists.iter().find(|(_, n)| *n != levels) {
        Some((field, n)) => Err(Error::config(
            *field,
            format!("{n} blocks"),
            format!("{levels}, as block_out_channels"),
        )),
        None => Ok(()),
    }
}

/// Fields that divide a number of channels.
pub(crate) fn divides(channels: usize, fields: &[(&str, usize)]) -> Result<()> {
    match fields
        .iter()
        .find(|(_, n)| *n == 0 || !channels.is_multiple_of(*n))
    {
        Some((field, n)) => Err(Error::config(
            *field,
            n,
            format!("a divisor of {channels} channels"),
        )),
        None => Ok(()),
    }
}
