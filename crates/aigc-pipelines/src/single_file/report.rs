//! What was found in a single file.

use super::Family;
use aigc_diffusion::PredictionType;
use std::{collections::BTreeMap, fmt::Display, path::PathBuf};

/// Limit on the names in a line.
const LISTED: usize = 8;

/// A part of a pipeline that was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartReport {
    /// Name of its directory in diffusers' layout, such as `unet`.
    pub name: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of parameters.
    pub parameters: u64,
    /// Number of tensors of each type, by its name in the file, such as `F16` or `F8_E4M3`.
    pub precision: BTreeMap<String, usize>,
    /// Tensors that the file should have but does not, by their names in such files.
    pub missing: Vec<String>,
}

/// What was found in a file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SingleFileReport {
    /// The file.
    pub path: PathBuf,
    /// The model.
    pub family: Family,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// The parts in the file.
    pub parts: Vec<PartReport>,
    /// Parts of the family's pipeline that the file does not have. Some it can
    /// [do without](Family::needs).
    pub missing_parts: Vec<&'static str>,
    /// Number of tensors of averaged weights (`model_ema`).
    pub averaged: usize,
    /// Whether the averaged weights are used.
    pub uses_averaged: bool,
    /// Tensors that no part uses. Averaged weights, and what is computed (tables of the schedule,
    /// position ids), are not listed.
    pub unused: Vec<String>,
    /// What was assumed, since the file does not say it.
    pub assumptions: Vec<String>,
}

impl SingleFileReport {
    /// What needs attention, one line for each kind: missing parts and tensors, unused tensors,
    /// assumptions.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = vec![];
        let missing = |needed: bool| {
            let names = self.missing_parts.iter();
            let names = names.filter(|name| self.family.needs(name) == needed);
            names.copied().collect::<Vec<_>>().join(", ")
        };
        let (needed, optional) = (missing(true), missing(false));
        if !needed.is_empty() {
            lines.push(format!(
                "parts not in the file, which a pipeline takes from a directory: {needed}"
            ));
        }
        if !optional.is_empty() {
            lines.push(format!(
                "parts not in the file, which a pipeline can do without: {optional}"
            ));
        }
        for part in self.parts.iter().filter(|part| !part.missing.is_empty()) {
            lines.push(listed(
                &format!("tensors missing for {}", part.name),
                &part.missing,
            ));
        }
        if !self.unused.is_empty() {
            lines.push(listed("tensors not used", &self.unused));
        }
        lines.extend(self.assumptions.iter().cloned());
        lines
    }

    /// Types of the tensors that are used, such as `F16`.
    pub fn precision(&self) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, count) in self.parts.iter().flat_map(|part| &part.precision) {
            *counts.entry(name).or_default() += count;
        }
        let mut names: Vec<(&str, usize)> = counts.into_iter().collect();
        names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        names.into_iter().map(|(name, _)| name.to_owned()).collect()
    }
}

/// Names after a title, shortened.
fn listed(title: &str, names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let shown = names[..names.len().min(LISTED)].join(", ");
    match more {
        0 => format!("{title}: {shown}"),
        _ => format!("{title}: {shown} and {more} more"),
    }
}

impl Display for SingleFileReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let precision = self.precision().join(", ");
        writeln!(f, "{}: {}, {precision}", self.path.display(), self.family)?;
        for part in &self.parts {
            let millions = part.parameters as f64 / 1e6;
            writeln!(
                f,
                "  {}: {} tensors, {millions:.1} M parameters",
                part.name, part.tensors
            )?;
        }
        match (self.averaged, self.uses_averaged) {
            (0, _) => {}
            (n, true) => writeln!(f, "  averaged weights are used ({n} tensors)")?,
            (n, false) => writeln!(f, "  averaged weights are not used ({n} tensors)")?,
        }
        for line in self.warnings() {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
