//! The classes of a data set and those of a network, matched by their names.

use thiserror::Error;

/// How the classes of a data set are found among those of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassMap {
    /// Both have the same names in the same order.
    Same,
    /// One of them has no names, or numbers for names, which say nothing.
    Unknown,
    /// Of every class of the data set, the network's class of that name.
    Other(Vec<usize>),
}

/// A data set with classes that a network doesn't know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OtherClasses {
    /// A name isn't among the network's.
    #[error(
        "the data set has other classes than the network, such as `{name}`; the first difference is class {index}: `{data}` in \
         the data set, `{network}` in the network"
    )]
    Missing {
        /// The name.
        name: String,
        /// Where the lists begin to differ, counted from 0.
        index: usize,
        /// The data set's class there.
        data: String,
        /// The network's.
        network: String,
    },
    /// Several of the network's classes have a name.
    #[error(
        "the data set has other classes than the network, and several of the network's are called `{0}`, so that they can't be \
         matched by their names"
    )]
    Ambiguous(String),
}

impl ClassMap {
    /// Finds classes by their names.
    ///
    /// # Errors
    /// [`OtherClasses`] where both sides have names, and one of the data set's isn't the network's.
    pub fn new(data: &[String], network: &[String]) -> Result<Self, OtherClasses> {
        if data == network {
            return Ok(Self::Same);
        }
        if !are_names(data) || !are_names(network) {
            return Ok(Self::Unknown);
        }
        let class = |name: &String| {
            let mut found = (0..).zip(network).filter(|(_, other)| *other == name);
            match (found.next(), found.next()) {
                (Some((class, _)), None) => Ok(class),
                (Some(_), Some(_)) => Err(OtherClasses::Ambiguous(name.clone())),
                (None, _) => Err(missing(name, data, network)),
            }
        };
        data.iter().map(class).collect::<Result<_, _>>().map(Self::Other)
    }
}

/// Whether classes are called by more than numbers.
fn are_names(classes: &[String]) -> bool {
    classes.iter().any(|name| name.parse::<u64>().is_err())
}

fn missing(name: &str, data: &[String], network: &[String]) -> OtherClasses {
    let differs = |index: &usize| data.get(*index) != network.get(*index);
    let index = (0..data.len().max(network.len())).find(differs).unwrap_or(0);
    let at = |names: &[String]| names.get(index).cloned().unwrap_or_default();
    OtherClasses::Missing {
        name: name.into(),
        index,
        data: at(data),
        network: at(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: &str, network: &str) -> Result<ClassMap, OtherClasses> {
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        ClassMap::new(&names(data), &names(network))
    }

    #[test]
    fn classes_are_found_by_their_names() {
        assert_eq!(map("a b", "a b"), Ok(ClassMap::Same));
        assert_eq!(map("c a", "a b c"), Ok(ClassMap::Other(vec![2, 0])));
        assert_eq!(map("a b", "a b c"), Ok(ClassMap::Other(vec![0, 1])));
    }

    #[test]
    fn numbers_are_no_names() {
        assert_eq!(map("0 1", "0 1"), Ok(ClassMap::Same));
        for (data, network) in [("0 1", "a b"), ("a b", "0 1"), ("0 1", "0 1 2"), ("a b", "")] {
            assert_eq!(map(data, network), Ok(ClassMap::Unknown), "{data}; {network}");
        }
        // A class that is called 7 beside others with names is one.
        assert_eq!(map("7 a", "a 7"), Ok(ClassMap::Other(vec![1, 0])));
    }

    #[test]
    fn other_classes_are_refused_with_the_first_difference() {
        let said = map("a c d", "a b c").unwrap_err().to_string();
        assert!(
            said.contains("such as `d`") && said.contains("class 1: `c` in the data set, `b` in the network"),
            "{said}"
        );
        assert!(
            map("a b", "b a a")
                .unwrap_err()
                .to_string()
                .contains("called `a`")
        );
    }
}
