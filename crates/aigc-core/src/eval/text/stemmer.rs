//! Porter's stemmer, as rouge-score applies it.
//!
//! The rules are those of Porter 1980 (<https://doi.org/10.1108/eb046814>), with the deviations of
//! NLTK's default mode: a table of irregular words; short words in `ies` and `ied` keep their `e`;
//! `y` becomes `i` after a consonant only; `bli` for `abli`; `alli` is shortened before the other
//! suffixes of its step are tried; `fulli` and `logi`; a vowel and a consonant are a short syllable
//! of their own.

/// Suffixes and their replacements. Where several fit a word, the longest comes first.
type Rules = [(&'static str, &'static str)];

/// Words that the rules would stem wrongly.
const IRREGULAR: [(&str, &str); 16] = [
    ("canning", "canning"),
    ("cannings", "canning"),
    ("dying", "die"),
    ("exceed", "exceed"),
    ("howe", "howe"),
    ("inning", "inning"),
    ("innings", "inning"),
    ("lying", "lie"),
    ("news", "news"),
    ("outing", "outing"),
    ("outings", "outing"),
    ("proceed", "proceed"),
    ("skies", "sky"),
    ("sky", "sky"),
    ("succeed", "succeed"),
    ("tying", "tie"),
];

/// Step 1a.
const PLURALS: &Rules = &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];

/// Step 2: double suffixes become single ones.
const DOUBLE: &Rules = &[
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
    ("logi", "log"),
];

/// Step 3.
const SINGLE: &Rules = &[
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Step 4.
const LAST: &Rules = &[
    ("al", ""),
    ("ance", ""),
    ("ence", ""),
    ("er", ""),
    ("ic", ""),
    ("able", ""),
    ("ible", ""),
    ("ant", ""),
    ("ement", ""),
    ("ment", ""),
    ("ent", ""),
    ("ion", ""),
    ("ou", ""),
    ("ism", ""),
    ("ate", ""),
    ("iti", ""),
    ("ous", ""),
    ("ive", ""),
    ("ize", ""),
];

/// The steps of the algorithm, in order.
const STEPS: [fn(&str) -> String; 8] = [
    without_plural,
    without_participle,
    with_final_i,
    with_single_suffix,
    without_single_suffix,
    without_last_suffix,
    without_final_e,
    without_double_l,
];

/// The stem of an English word by Porter's algorithm (1980, <https://doi.org/10.1108/eb046814>)
/// with the extensions of NLTK, whose `PorterStemmer().stem(word)` it equals. It is in lower case,
/// and often no word: `ponies` and `pony` have `poni`. Words of one or two letters are their own
/// stems.
///
/// ```
/// use aigc_core::eval::text::porter_stem;
///
/// assert_eq!(porter_stem("Generalizations"), porter_stem("generally"));
/// ```
pub fn porter_stem(word: &str) -> String {
    let lower = word.to_lowercase();
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == lower) {
        return (*stem).to_owned();
    }
    match letters(word) {
        0..=2 => lower,
        _ => STEPS.iter().fold(lower, |word, step| step(&word)),
    }
}

/// Step 1a, and NLTK's exception: `dies` becomes `die`, but `flies` `fli`.
fn without_plural(word: &str) -> String {
    if letters(word) == 4 && word.ends_with("ies") {
        return word[..word.len() - 1].to_owned();
    }
    replaced(word, PLURALS, |_, _| true)
}

/// Step 1b, and NLTK's exception: `died` becomes `die`, but `spied` `spi`.
fn without_participle(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        let end = if letters(stem) == 1 { "ie" } else { "i" };
        return format!("{stem}{end}");
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return match measure(stem) {
            0 => word.to_owned(),
            _ => format!("{stem}ee"),
        };
    }
    let stem = word
        .strip_suffix("ed")
        .or_else(|| word.strip_suffix("ing"))
        .filter(|stem| consonants(stem).contains(&false));
    stem.map_or_else(|| word.to_owned(), restored)
}

/// The end of step 1b: what a verb had before `ed` or `ing`.
fn restored(stem: &str) -> String {
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(*end)) {
        return format!("{stem}e");
    }
    let mut from_end = stem.chars().rev();
    if let (Some(last), Some(before)) = (from_end.next(), from_end.next())
        && last == before
        && consonants(stem).ends_with(&[true])
    {
        let kept = match last {
            'l' | 's' | 'z' => stem.len(),
            _ => stem.len() - last.len_utf8(),
        };
        return stem[..kept].to_owned();
    }
    if measure(stem) == 1 && ends_short(stem) {
        return format!("{stem}e");
    }
    stem.to_owned()
}

/// Step 1c with NLTK's condition: `happy` becomes `happi`, but `enjoy` and `by` stay.
fn with_final_i(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(stem) if letters(stem) > 1 && consonants(stem).ends_with(&[true]) => {
            format!("{stem}i")
        }
        _ => word.to_owned(),
    }
}

/// Step 2.
fn with_single_suffix(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        // The shorter word ends in `al`, so that this happens once.
        return with_single_suffix(&word[..word.len() - "li".len()]);
    }
    replaced(word, DOUBLE, |stem, suffix| {
        // The `l` of `logi` counts for the stem, so that `theologi` loses its `i`.
        let kept = usize::from(suffix == "logi");
        measure(&word[..stem.len() + kept]) > 0
    })
}

/// Step 3.
fn without_single_suffix(word: &str) -> String {
    replaced(word, SINGLE, |stem, _| measure(stem) > 0)
}

/// Step 4.
fn without_last_suffix(word: &str) -> String {
    replaced(word, LAST, |stem, suffix| {
        measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't']))
    })
}

/// Step 5a.
fn without_final_e(word: &str) -> String {
    let stem = word.strip_suffix('e').filter(|stem| match measure(stem) {
        0 => false,
        1 => !ends_short(stem),
        _ => true,
    });
    stem.unwrap_or(word).to_owned()
}

/// Step 5b.
fn without_double_l(word: &str) -> String {
    let shorter = word
        .strip_suffix('l')
        .filter(|shorter| shorter.ends_with('l') && measure(shorter) > 1);
    shorter.unwrap_or(word).to_owned()
}

/// `word` with the first suffix of `rules` that it has replaced, if `applies` to the rest of the
/// word and the suffix. No other suffix is tried if it does not.
fn replaced(word: &str, rules: &Rules, applies: impl Fn(&str, &str) -> bool) -> String {
    let fitting = rules.iter().find_map(|(suffix, replacement)| {
        let stem = word.strip_suffix(*suffix)?;
        Some((stem, *suffix, *replacement))
    });
    match fitting {
        Some((stem, suffix, replacement)) if applies(stem, suffix) => {
            format!("{stem}{replacement}")
        }
        _ => word.to_owned(),
    }
}

fn letters(word: &str) -> usize {
    word.chars().count()
}

/// Which letters are consonants: all but a, e, i, o, u, and y after a consonant.
fn consonants(word: &str) -> Vec<bool> {
    let mut consonants: Vec<bool> = Vec::with_capacity(word.len());
    for letter in word.chars() {
        let consonant = match letter {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => consonants.last() != Some(&true),
            _ => true,
        };
        consonants.push(consonant);
    }
    consonants
}

/// Porter's m: how many vowels are followed by a consonant.
fn measure(word: &str) -> usize {
    let pairs = consonants(word);
    pairs.windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

/// Porter's condition *o: a consonant, a vowel, and a consonant other than w, x and y end the word;
/// with NLTK, also where a vowel and a consonant are all of it.
fn ends_short(word: &str) -> bool {
    match consonants(word)[..] {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of Porter (1980), and such in which NLTK deviates, with NLTK's stems.
    #[test]
    fn words_have_their_stems() {
        for (word, stem) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("agreed", "agre"),
            ("feed", "feed"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("Generalizations", "gener"),
            ("oscillators", "oscil"),
            ("adoption", "adopt"),
            ("rate", "rate"),
            ("controlling", "control"),
            ("skies", "sky"),
            ("ties", "tie"),
            ("died", "die"),
            ("fly", "fli"),
            ("enjoy", "enjoy"),
            ("rationally", "ration"),
            ("theology", "theolog"),
            ("owing", "owe"),
            ("as", "as"),
        ] {
            assert_eq!(porter_stem(word), stem, "{word}");
        }
    }

    /// NLTK's stems; other letters than those of English are consonants.
    #[test]
    fn any_text_has_a_stem() {
        for (word, stem) in [
            ("", ""),
            ("cafés", "café"),
            ("naïvely", "naïv"),
            ("天气很好", "天气很好"),
            ("yyyy", "yyyi"),
            ("1990s", "1990"),
        ] {
            assert_eq!(porter_stem(word), stem, "{word}");
        }
        let long = format!("{}ing", "y".repeat(100_000));
        assert_eq!(porter_stem(&long).len(), 100_000);
    }
}
