//! "Did you mean".

/// The candidate that is most likely meant, if any is near enough: at most a
/// third of its letters wrong, swapped or missing, or one the beginning of the
/// other.
pub fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = strsim::damerau_levenshtein(&word, &lower);
            let shorter = word.len().min(lower.len());
            let begins = shorter >= 4 && (word.starts_with(&lower) || lower.starts_with(&word));
            let bound = (candidate.chars().count().max(word.chars().count()) / 3).max(1);
            (distance <= bound || begins).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Words for a list: `"a", "b" or "c"`, each in the given quotes.
pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>, quote: char) -> String {
    let quoted: Vec<String> = words
        .into_iter()
        .map(|word| format!("{quote}{word}{quote}"))
        .collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["listen", "workers", "drain_timeout"];
        assert_eq!(closest("lisen", words.into_iter()), Some("listen"));
        assert_eq!(closest("WORKER", words.into_iter()), Some("workers"));
        assert_eq!(closest("port", words.into_iter()), None);
        assert_eq!(one_of(["a", "b", "c"], '"'), "\"a\", \"b\" or \"c\"");
    }
}
