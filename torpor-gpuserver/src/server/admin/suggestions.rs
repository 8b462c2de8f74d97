//! What somebody may have meant who wrote a name that is not known.

/// The known names that are near `written`, nearest first, three at most.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // A third of the letters wrong is a slip; more is another word.
    let far = written.chars().count().max(3) / 3 + 1;
    let distance = |name: &str| strsim::osa_distance(&written.to_lowercase(), &name.to_lowercase());
    let mut near: Vec<_> = known
        .into_iter()
        .map(|name| (distance(name), name))
        .filter(|(distance, name)| *distance < far || (written.len() >= 3 && name.contains(written)))
        .collect();
    near.sort_unstable();
    near.into_iter().map(|(_, name)| name).take(3).collect()
}

/// `; did you mean a or b?`, or nothing.
#[must_use]
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(written, known)[..] {
        [] => String::new(),
        ref near => format!("; did you mean {}?", near.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_near_and_other_words_are_not() {
        let known = ["memory_limit", "slo_ms", "writeback", "pinned"];
        for (written, meant) in [
            ("memory_limt", "memory_limit"),
            ("memory-limit", "memory_limit"),
            ("SLO_MS", "slo_ms"),
            ("write", "writeback"),
            ("pin", "pinned"),
            ("pinend", "pinned"),
        ] {
            assert_eq!(nearest(written, known), [meant], "{written}");
        }
        assert!(nearest("gpu", known).is_empty());
        assert!(nearest("", known).is_empty());
        assert_eq!(did_you_mean("resnt", ["resnet", "resnet-2", "bert"]), "; did you mean resnet?");
        assert_eq!(did_you_mean("x", ["resnet"]), "");
    }
}
