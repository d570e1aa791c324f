//! Writes pickles as `torch.save` does: protocol 2, with nothing that `torch.load(weights_only=True)` refuses.

/// A Python value of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dictionary(Vec<(Value, Value)>),
    /// `collections.OrderedDict`.
    Ordered(Vec<(Value, Value)>),
    /// `collections.Counter`.
    Counter(Vec<(Value, Value)>),
    Tensor(Tensor),
}

/// A tensor that has a storage of its own, whose elements lie in the order of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) element: Element,
    /// Name of the storage's entry in the archive.
    pub(super) key: String,
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
}

/// Types of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// float32.
    Float,
    /// int64.
    Long,
}

impl Element {
    fn storage(self) -> &'static str {
        match self {
            Self::Float => "FloatStorage",
            Self::Long => "LongStorage",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl Value {
    /// A whole number that Python counts with.
    pub(super) fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

/// The pickle of a value.
pub(super) fn pickle(value: &Value) -> Vec<u8> {
    let mut bytes = vec![0x80, 2];
    write(value, &mut bytes);
    bytes.push(b'.');
    bytes
}

fn write(value: &Value, output: &mut Vec<u8>) {
    match value {
        Value::None => output.push(b'N'),
        Value::Bool(true) => output.push(0x88),
        Value::Bool(false) => output.push(0x89),
        Value::Integer(value) => integer(*value, output),
        Value::Float(value) => {
            output.push(b'G');
            output.extend(value.to_be_bytes());
        }
        Value::Text(text) => {
            output.push(b'X');
            // No name of a layer has 4 GB.
            output.extend((text.len() as u32).to_le_bytes());
            output.extend(text.as_bytes());
        }
        Value::Tuple(items) => tuple(items, output),
        Value::List(items) => {
            output.push(b']');
            if !items.is_empty() {
                output.push(b'(');
                items.iter().for_each(|item| write(item, output));
                output.push(b'e');
            }
        }
        Value::Dictionary(entries) => {
            output.push(b'}');
            set_items(entries, output);
        }
        Value::Ordered(entries) => {
            global("collections", "OrderedDict", output);
            output.extend(b")R");
            set_items(entries, output);
        }
        Value::Counter(entries) => {
            global("collections", "Counter", output);
            output.push(b'}');
            set_items(entries, output);
            // TUPLE1, REDUCE.
            output.extend(b"\x85R");
        }
        Value::Tensor(tensor) => rebuild_tensor(tensor, output),
    }
}

fn integer(value: i64, output: &mut Vec<u8>) {
    if let Ok(value) = u8::try_from(value) {
        output.extend([b'K', value]);
    } else if let Ok(value) = u16::try_from(value) {
        output.push(b'M');
        output.extend(value.to_le_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        output.push(b'J');
        output.extend(value.to_le_bytes());
    } else {
        // LONG1, with the number of bytes that follow.
        output.extend([0x8a, 8]);
        output.extend(value.to_le_bytes());
    }
}

fn tuple(items: &[Value], output: &mut Vec<u8>) {
    let opcode = match items.len() {
        0 => b')',
        1 => 0x85,
        2 => 0x86,
        3 => 0x87,
        _ => {
            output.push(b'(');
            b't'
        }
    };
    items.iter().for_each(|item| write(item, output));
    output.push(opcode);
}

fn set_items(entries: &[(Value, Value)], output: &mut Vec<u8>) {
    if entries.is_empty() {
        return;
    }
    output.push(b'(');
    for (key, value) in entries {
        write(key, output);
        write(value, output);
    }
    output.push(b'u');
}

/// `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`.
fn rebuild_tensor(tensor: &Tensor, output: &mut Vec<u8>) {
    let lengths = |lengths: &[usize]| Value::Tuple(lengths.iter().copied().map(Value::count).collect());
    global("torch._utils", "_rebuild_tensor_v2", output);
    output.push(b'(');
    // The persistent identifier: ('storage', type, key, device, elements).
    output.push(b'(');
    write(&"storage".into(), output);
    global("torch", tensor.element.storage(), output);
    write(&tensor.key.as_str().into(), output);
    write(&"cpu".into(), output);
    write(&Value::count(tensor.shape.iter().product()), output);
    output.extend(b"tQ");
    write(&Value::Integer(0), output);
    write(&lengths(&tensor.shape), output);
    write(&lengths(&tensor.strides), output);
    write(&Value::Bool(false), output);
    write(&Value::Ordered(Vec::new()), output);
    output.extend(b"tR");
}

fn global(module: &str, name: &str, output: &mut Vec<u8>) {
    output.extend(format!("c{module}\n{name}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::pickle as reader;
    use proptest::prelude::*;

    /// A value as the reader gives it.
    fn read(pickle: &reader::Pickle, value: &reader::Value) -> Value {
        let entries = |entries: &[(usize, usize)]| {
            let entry = |&(key, value): &(usize, usize)| {
                (read(pickle, pickle.value(key)), read(pickle, pickle.value(value)))
            };
            entries.iter().map(entry).collect()
        };
        let length = |length: &i64| usize::try_from(*length).unwrap();
        match value {
            reader::Value::None => Value::None,
            reader::Value::Bool(value) => Value::Bool(*value),
            reader::Value::Integer(value) => Value::Integer(*value),
            reader::Value::Float(value) => Value::Float(*value),
            reader::Value::Text(text) => Value::Text(text.clone()),
            reader::Value::Sequence(items) => Value::List(
                items
                    .iter()
                    .map(|&item| read(pickle, pickle.value(item)))
                    .collect(),
            ),
            reader::Value::Dictionary(found) => Value::Dictionary(entries(found)),
            reader::Value::Tensor(tensor) => Value::Tensor(Tensor {
                element: match tensor.storage.element {
                    reader::ElementType::Float => Element::Float,
                    reader::ElementType::Long => Element::Long,
                    other => panic!("{other:?}"),
                },
                key: tensor.storage.key.clone(),
                shape: tensor.shape.iter().map(length).collect(),
                strides: tensor.strides.iter().map(length).collect(),
            }),
            other => panic!("{other:?}"),
        }
    }

    /// The reader tells neither tuples from lists nor kinds of dictionaries apart.
    fn without_kinds(value: &Value) -> Value {
        let entries = |entries: &[(Value, Value)]| {
            Value::Dictionary(
                entries
                    .iter()
                    .map(|(key, value)| (without_kinds(key), without_kinds(value)))
                    .collect(),
            )
        };
        match value {
            Value::Tuple(items) | Value::List(items) => {
                Value::List(items.iter().map(without_kinds).collect())
            }
            Value::Dictionary(found) | Value::Ordered(found) | Value::Counter(found) => entries(found),
            other => other.clone(),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let tensor = (
            any::<bool>(),
            "[0-9]{1,3}",
            proptest::collection::vec(0_usize..5000, 0..6),
        )
            .prop_map(|(float, key, shape)| {
                let strides = crate::import::row_major_strides(&shape);
                let element = if float { Element::Float } else { Element::Long };
                Value::Tensor(Tensor {
                    element,
                    key,
                    shape: shape.iter().map(|length| length % 7).collect(),
                    strides: strides.iter().map(|stride| stride % 100_000).collect(),
                })
            });
        let leaf = prop_oneof![
            Just(Value::None),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            (-70_000_i64..70_000).prop_map(Value::Integer),
            (-1e300..1e300).prop_map(Value::Float),
            ".{0,12}".prop_map(Value::Text),
            tensor,
        ];
        leaf.prop_recursive(3, 40, 6, |inner| {
            let entries = proptest::collection::vec((inner.clone(), inner.clone()), 0..5);
            let items = proptest::collection::vec(inner, 0..6);
            prop_oneof![
                items.clone().prop_map(Value::Tuple),
                items.prop_map(Value::List),
                entries.clone().prop_map(Value::Dictionary),
                entries.clone().prop_map(Value::Ordered),
                entries.prop_map(Value::Counter),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in values()) {
            let bytes = pickle(&value);
            let read_back = reader::Pickle::read(&bytes).unwrap();
            prop_assert_eq!(read(&read_back, read_back.root()), without_kinds(&value));
        }
    }
}
