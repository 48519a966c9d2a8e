//! Bars of classes.

use super::{
    super::{html::escape, number::integer, number::percent},
    Axis, INNER_WIDTH, open_svg, x_at, x_tick, x_title, y_at, y_axis,
};
use crate::{Error, Result, eval::ClassHistogram};
use serde::Serialize;

/// Labels that have space under the bars.
const MAX_LABELS: usize = 12;

/// Shares of classes as bars, with the share expected of each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram {
    title: String,
    labels: Vec<String>,
    counts: Vec<u64>,
    expected: Option<Vec<f64>>,
}

impl Histogram {
    /// Bars of the counts of classes, labelled by their numbers.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no classes, or nothing was counted.
    pub fn new(title: impl Into<String>, counts: Vec<u64>) -> Result<Self> {
        if counts.iter().all(|count| *count == 0) {
            return Err(Error::argument("counts", "empty", "at least one sample"));
        }
        Ok(Self {
            title: title.into(),
            labels: (0..counts.len()).map(|i| i.to_string()).collect(),
            counts,
            expected: None,
        })
    }

    /// Bars of a [`ClassHistogram`].
    ///
    /// # Errors
    /// See [`Histogram::new`].
    pub fn from_classes(title: impl Into<String>, classes: &ClassHistogram) -> Result<Self> {
        Self::new(title, classes.counts().to_vec())
    }

    /// Sets the names of the classes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless there is one name for each class.
    pub fn with_labels<S: Into<String>>(
        mut self,
        labels: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        self.labels = labels.into_iter().map(Into::into).collect();
        self.check_length("labels", self.labels.len())?;
        Ok(self)
    }

    /// Sets the share expected of each class, such as that of the training data.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless there is one share in `[0, 1]` for each class.
    pub fn with_expected_shares(mut self, shares: Vec<f64>) -> Result<Self> {
        self.check_length("shares", shares.len())?;
        if let Some(wrong) = shares.iter().find(|share| !(0.0..=1.0).contains(*share)) {
            return Err(Error::argument("shares", wrong, "0 to 1"));
        }
        self.expected = Some(shares);
        Ok(self)
    }

    /// Expects the same share of each class.
    pub fn with_uniform_expected(mut self) -> Self {
        let n = self.counts.len();
        self.expected = Some(vec![1.0 / n as f64; n]);
        self
    }

    fn check_length(&self, argument: &str, found: usize) -> Result<()> {
        let classes = self.counts.len();
        if found == classes {
            return Ok(());
        }
        Err(Error::argument(
            argument,
            found,
            format!("{classes}, one for each class"),
        ))
    }

    pub(in super::super) fn render(&self, out: &mut String, id: usize) {
        let total: u64 = self.counts.iter().sum();
        let shares: Vec<f64> = self
            .counts
            .iter()
            .map(|count| *count as f64 / total as f64)
            .collect();
        let expected = self.expected.iter().flatten();
        let most = shares.iter().chain(expected).copied().fold(0.0, f64::max);
        let y = Axis::new(0.0, 108.0 * most, false);
        out.push_str(&format!(
            "<figure class=\"chart\"><p class=\"title\">{}</p>",
            escape(&self.title)
        ));
        open_svg(out, id, &self.title, &self.description(&shares));
        y_axis(out, &y, "share of samples, %");
        x_title(out, "class");
        let n = shares.len();
        let slot = INNER_WIDTH / n as f64;
        let width = slot * if n > 60 { 1.0 } else { 0.72 };
        for (i, share) in shares.iter().enumerate() {
            let center = x_at((i as f64 + 0.5) / n as f64);
            let top = y_at(y.share(100.0 * share));
            out.push_str(&format!(
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                 height=\"{:.1}\"><title>{}: {} ({})</title></rect>",
                center - width / 2.0,
                y_at(0.0) - top,
                escape(&self.labels[i]),
                integer(self.counts[i]),
                percent(*share)
            ));
            if i % n.div_ceil(MAX_LABELS) == 0 {
                let fits = (slot * n.div_ceil(MAX_LABELS) as f64 / 8.4).max(3.0) as usize;
                x_tick(out, center, &shortened(&self.labels[i], fits));
            }
        }
        for (i, share) in self.expected.iter().flatten().enumerate() {
            let at = y_at(y.share(100.0 * share));
            out.push_str(&format!(
                "<line class=\"expected\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" \
                 y2=\"{at:.1}\"/>",
                x_at(i as f64 / n as f64),
                x_at((i + 1) as f64 / n as f64)
            ));
        }
        out.push_str("</svg>");
        if self.expected.is_some() {
            out.push_str(
                "<ul class=\"legend\"><li><svg class=\"key\" viewBox=\"0 0 26 8\" \
                 aria-hidden=\"true\"><line class=\"expected\" x1=\"1\" x2=\"25\" y1=\"4\" \
                 y2=\"4\"/></svg>expected share</li></ul>",
            );
        }
        out.push_str("</figure>");
    }

    fn description(&self, shares: &[f64]) -> String {
        let by_share = |a: &usize, b: &usize| shares[*a].total_cmp(&shares[*b]);
        let rarest = (0..shares.len()).min_by(by_share).unwrap_or(0);
        let commonest = (0..shares.len()).max_by(by_share).unwrap_or(0);
        format!(
            "{} samples of {} classes. Rarest: {} with {}; commonest: {} with {}.",
            integer(self.counts.iter().sum()),
            shares.len(),
            self.labels[rarest],
            percent(shares[rarest]),
            self.labels[commonest],
            percent(shares[commonest])
        )
    }
}

fn shortened(label: &str, characters: usize) -> String {
    if label.chars().count() <= characters {
        return label.to_string();
    }
    label.chars().take(characters - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_their_counts() {
        let chart = Histogram::new("Classes", vec![10, 30, 0])
            .unwrap()
            .with_labels(["cat", "dog", "<b>"])
            .unwrap()
            .with_uniform_expected();
        let mut out = String::new();
        chart.render(&mut out, 3);
        assert_eq!(out.matches("<rect").count(), 3);
        assert!(out.contains("dog: 30 (75\u{a0}%)") && out.contains("&lt;b&gt;"));
        assert!(out.contains("commonest: dog with 75\u{a0}%"));
        assert!(!out.contains("<b>"));
        let mut out = String::new();
        Histogram::new("Many", vec![1; 1000])
            .unwrap()
            .render(&mut out, 4);
        assert!(out.matches("class=\"tick\"").count() < 24);
    }

    #[test]
    fn wrong_lengths_and_shares_are_errors() {
        assert!(Histogram::new("", vec![]).is_err());
        assert!(Histogram::new("", vec![0, 0]).is_err());
        let chart = || Histogram::new("", vec![1, 2]).unwrap();
        assert!(chart().with_labels(["a"]).is_err());
        assert!(chart().with_expected_shares(vec![0.5]).is_err());
        assert!(chart().with_expected_shares(vec![0.5, f64::NAN]).is_err());
    }
}
