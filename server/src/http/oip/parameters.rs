//! What requests carry besides tensors, in lists and objects whose size is bounded while they are read: a few bytes of JSON
//! can take many times their size in memory.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Parameters of a request or of a tensor at most.
const MOST: usize = 256;

/// Parameters by their names.
#[derive(Debug, Default)]
pub(super) struct Parameters(HashMap<String, Parameter>);

/// A parameter's value: the protocol has numbers, strings and truth values only.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Parameter {
    Flag(bool),
    Whole(u64),
    /// One that says nothing to this server.
    Other,
}

impl Parameters {
    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The value of a parameter that is there, if it is true or false.
    pub fn flag(&self, name: &str) -> Option<Option<bool>> {
        self.0.get(name).map(|parameter| match parameter {
            Parameter::Flag(flag) => Some(*flag),
            Parameter::Whole(_) | Parameter::Other => None,
        })
    }

    /// The value of a parameter that is there, if it is a whole number from 0.
    pub fn whole_number(&self, name: &str) -> Option<Option<u64>> {
        self.0.get(name).map(|parameter| match parameter {
            Parameter::Whole(number) => Some(*number),
            Parameter::Flag(_) | Parameter::Other => None,
        })
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Parameters;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parameters, A::Error> {
        let mut parameters = HashMap::new();
        while let Some((name, parameter)) = entries.next_entry()? {
            if parameters.len() == MOST {
                return Err(A::Error::custom(format!("more than {MOST} parameters")));
            }
            parameters.insert(name, parameter);
        }
        Ok(Parameters(parameters))
    }
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Single)
    }
}

struct Single;

impl Visitor<'_> for Single {
    type Value = Parameter;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a parameter's value: a number, a string, true or false")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Parameter, E> {
        Ok(Parameter::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Parameter, E> {
        Ok(Parameter::Whole(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Parameter, E> {
        Ok(Parameter::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Parameter, E> {
        Ok(Parameter::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Parameter, E> {
        Ok(Parameter::Other)
    }

    fn visit_unit<E>(self) -> Result<Parameter, E> {
        Ok(Parameter::Other)
    }
}

/// Reads a list of at most `MOST` elements.
pub(super) fn at_most<'de, const MOST: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Few::<T, MOST>(PhantomData))
}

struct Few<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Few<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() == MOST {
                return Err(A::Error::custom(format!("a list of more than {MOST} elements")));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_are_asked_for_as() {
        let json =
            r#"{"flag": true, "size": 7, "negative": -7, "text": "x", "fraction": 0.5, "nothing": null}"#;
        let parameters: Parameters = serde_json::from_str(json).unwrap();
        assert_eq!(parameters.names().count(), 6);
        assert_eq!(parameters.flag("flag"), Some(Some(true)));
        assert_eq!(parameters.whole_number("size"), Some(Some(7)));
        for name in ["negative", "text", "fraction", "nothing"] {
            assert_eq!(parameters.flag(name), Some(None));
            assert_eq!(parameters.whole_number(name), Some(None));
        }
        assert_eq!(parameters.flag("other"), None);
    }

    #[test]
    fn neither_lists_nor_many_are_read() {
        for json in [r#"{"a": [0]}"#, r#"{"a": {}}"#, "[]", "0"] {
            assert!(serde_json::from_str::<Parameters>(json).is_err(), "{json}");
        }
        let entries = |count: usize| {
            let entries: Vec<_> = (0..count).map(|index| format!(r#""{index}":0"#)).collect();
            serde_json::from_str::<Parameters>(&format!("{{{}}}", entries.join(",")))
        };
        assert!(entries(MOST).is_ok());
        let message = entries(MOST + 1).unwrap_err().to_string();
        assert!(message.contains("more than 256 parameters"), "{message}");
    }
}
