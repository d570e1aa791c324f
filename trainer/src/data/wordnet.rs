//! The names of ImageNet's classes, whose folders are called by WordNet ids (see `data/imagenet/README.md`).

use std::collections::BTreeMap;

const TABLE: &str = include_str!("../../../data/imagenet/classes.tsv");

/// Whether a name has the form of a noun's id in WordNet: `n` and eight digits.
pub(super) fn is_id(name: &str) -> bool {
    name.strip_prefix('n')
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// The names of ImageNet's 1,000 classes by their ids.
pub(super) fn imagenet() -> BTreeMap<&'static str, &'static str> {
    parse(TABLE)
}

/// The names of ImageNet's 1,000 classes in the order of their ids, which is that of the logits of networks trained on it.
pub(crate) fn imagenet_class_names() -> Vec<String> {
    imagenet().into_values().map(str::to_owned).collect()
}

/// Ids and names of a table, an id, a tab and a name a line; TinyImageNet's `words.txt` is one.
pub(super) fn parse(table: &str) -> BTreeMap<&str, &str> {
    table
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(id, name)| (id.trim(), name.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenet_has_a_thousand_classes() {
        let table = imagenet();
        assert_eq!(table.len(), 1_000);
        assert!(table.keys().all(|id| is_id(id)));
        assert_eq!(table["n01440764"], "tench, Tinca tinca");
        assert_eq!(
            table.values().next_back(),
            Some(&"toilet tissue, toilet paper, bathroom tissue")
        );
    }

    #[test]
    fn ids_are_told_from_names() {
        for name in [
            "n0144076",
            "n014407644",
            "m01440764",
            "n0144076x",
            "tench",
            "",
            "n\u{0661}1440764",
        ] {
            assert!(!is_id(name), "{name}");
        }
    }
}
