//! Reads the pickles of `torch.save` as data, without running them.
//!
//! A pickle is a program for a stack machine that may call any Python function. Here the machine builds values only:
//! calls are recognised by name, and only those that PyTorch checkpoints need are known. Anything else is refused.
//! Values live in a heap and refer to each other by index, so that shared and cyclic values need no special care.

use std::collections::HashMap;

use thiserror::Error;

/// Index of a value in a [`Pickle`].
pub type Reference = usize;

/// Why a pickle was refused. Offsets are in bytes from its start.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PickleError {
    /// An instruction that PyTorch's checkpoints don't use.
    #[error("unknown instruction {opcode:#04x} at byte {offset} of the pickle")]
    UnknownOpcode {
        /// The instruction.
        opcode: u8,
        /// Where it is.
        offset: usize,
    },
    /// A Python object that a checkpoint doesn't need, and that could do anything when loaded.
    #[error(
        "the pickle asks for `{name}` at byte {offset}, which a checkpoint doesn't need; it is refused, as loading it \
         could run any code"
    )]
    Global {
        /// Module and name.
        name: String,
        /// Where it is asked for.
        offset: usize,
    },
    /// The pickle ends within an instruction.
    #[error("the pickle ends too early, at byte {offset}")]
    Truncated {
        /// Its length.
        offset: usize,
    },
    /// An instruction that doesn't fit the stack.
    #[error("malformed pickle at byte {offset}: {reason}")]
    Malformed {
        /// The instruction's place.
        offset: usize,
        /// What doesn't fit.
        reason: &'static str,
    },
}

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Integer(i64),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// A tuple or a list.
    Sequence(Vec<Reference>),
    /// A dictionary or an `OrderedDict`, in its order.
    Dictionary(Vec<(Reference, Reference)>),
    /// Something callable that a checkpoint may name.
    Callable(Callable),
    /// Elements in the archive, which tensors refer to.
    Storage(Storage),
    /// A tensor: some elements of a storage.
    Tensor(TensorReference),
}

/// What a checkpoint's pickle may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callable {
    /// `collections.OrderedDict` and `Counter`.
    Dictionary,
    /// `torch._utils._rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
    /// `torch.FloatStorage` and so on: never called, only named.
    StorageType(ElementType),
}

/// Element types of storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// float32.
    Float,
    /// float64.
    Double,
    /// float16.
    Half,
    /// bfloat16.
    BFloat16,
    /// int64.
    Long,
    /// A type that networks have no use for.
    Other,
}

/// Elements in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Of the elements.
    pub element: ElementType,
    /// Name of the archive's entry under `data/`.
    pub key: String,
    /// How many.
    pub elements: i64,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorReference {
    /// What it is a view of.
    pub storage: Storage,
    /// Index of its first element.
    pub offset: i64,
    /// Outermost dimension first.
    pub shape: Vec<i64>,
    /// In elements.
    pub strides: Vec<i64>,
}

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle {
    heap: Vec<Value>,
    root: Reference,
}

impl Pickle {
    /// Reads a whole pickle.
    ///
    /// # Errors
    /// [`PickleError`] at the first instruction that isn't what a checkpoint needs.
    pub fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        let mut machine = Machine {
            bytes,
            offset: 0,
            start: 0,
            heap: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            if let Some(root) = machine.instruction()? {
                return Ok(Self {
                    heap: machine.heap,
                    root,
                });
            }
        }
    }

    /// The value that the pickle is of.
    pub fn root(&self) -> &Value {
        self.value(self.root)
    }

    /// A value by its index.
    pub fn value(&self, reference: Reference) -> &Value {
        // References are made with the value that they refer to, and values are never removed.
        &self.heap[reference]
    }

    /// The entry of a dictionary with a string key.
    pub fn entry(&self, dictionary: &Value, key: &str) -> Option<&Value> {
        let Value::Dictionary(entries) = dictionary else {
            return None;
        };
        let found = entries
            .iter()
            .rev()
            .find(|(name, _)| *self.value(*name) == Value::Text(key.into()));
        found.map(|(_, value)| self.value(*value))
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// Of the current instruction.
    start: usize,
    heap: Vec<Value>,
    stack: Vec<Reference>,
    marks: Vec<usize>,
    memo: HashMap<usize, Reference>,
}

impl Machine<'_> {
    /// Runs one instruction; `STOP` gives the pickle's value.
    fn instruction(&mut self) -> Result<Option<Reference>, PickleError> {
        self.start = self.offset;
        let [opcode] = self.array()?;
        match opcode {
            // PROTO, FRAME: say nothing that is needed.
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'.' => return self.pop().map(Some),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => self.signed_integer(4)?,
            b'K' => self.unsigned_integer(1)?,
            b'M' => self.unsigned_integer(2)?,
            0x8a => self.long()?,
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            // SHORT_BINSTRING and BINSTRING, which Python 2 wrote.
            b'U' => self.text(1)?,
            b'T' => self.text(4)?,
            b')' | b']' => self.push(Value::Sequence(Vec::new())),
            b'}' => self.push(Value::Dictionary(Vec::new())),
            b'(' => self.marks.push(self.stack.len()),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Sequence(items));
            }
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => self.memoise(1)?,
            b'r' => self.memoise(4)?,
            0x94 => {
                let top = self.top()?;
                self.memo.insert(self.memo.len(), top);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.global(&module, &name)?;
            }
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            // BUILD sets attributes of an object, here of dictionaries only (`_metadata`): they aren't needed.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            opcode => {
                return Err(PickleError::UnknownOpcode {
                    opcode,
                    offset: self.start,
                });
            }
        }
        Ok(None)
    }

    fn signed_integer(&mut self, bytes: usize) -> Result<(), PickleError> {
        let value = self.little_endian(bytes)?;
        // Sign extension of a value of so many bytes.
        let shift = 64 - 8 * bytes;
        self.push(Value::Integer(((value << shift) as i64) >> shift));
        Ok(())
    }

    fn unsigned_integer(&mut self, bytes: usize) -> Result<(), PickleError> {
        let value = self.little_endian(bytes)?;
        self.push(Value::Integer(value as i64));
        Ok(())
    }

    /// LONG1: a length, then so many bytes.
    fn long(&mut self) -> Result<(), PickleError> {
        let [length] = self.array()?;
        match length {
            0 => self.push(Value::Integer(0)),
            1..=8 => self.signed_integer(usize::from(length))?,
            _ => return Err(self.malformed("an integer of more than 64 bits")),
        }
        Ok(())
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), PickleError> {
        let length = self.length(length_bytes)?;
        let bytes = self.take(length)?.to_vec();
        let text = String::from_utf8(bytes).map_err(|_| self.malformed("a string that isn't UTF-8"))?;
        self.push(Value::Text(text));
        Ok(())
    }

    fn tuple(&mut self, length: usize) -> Result<(), PickleError> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Sequence(items));
        Ok(())
    }

    fn append(&mut self, items: Vec<Reference>) -> Result<(), PickleError> {
        let list = self.top()?;
        match &mut self.heap[list] {
            Value::Sequence(sequence) => {
                sequence.extend(items);
                Ok(())
            }
            _ => Err(self.malformed("an item for something that is no list")),
        }
    }

    fn set_items(&mut self, items: &[Reference]) -> Result<(), PickleError> {
        let dictionary = self.top()?;
        if items.len() % 2 == 1 {
            return Err(self.malformed("a key without a value"));
        }
        match &mut self.heap[dictionary] {
            Value::Dictionary(entries) => {
                entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err(self.malformed("an entry for something that is no dictionary")),
        }
    }

    fn memoise(&mut self, index_bytes: usize) -> Result<(), PickleError> {
        let index = self.length(index_bytes)?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index_bytes: usize) -> Result<(), PickleError> {
        let index = self.length(index_bytes)?;
        let reference = *self
            .memo
            .get(&index)
            .ok_or_else(|| self.malformed("a reference to something never stored"))?;
        self.stack.push(reference);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let callable = match (module, name) {
            ("collections", "OrderedDict" | "Counter") => Callable::Dictionary,
            ("torch._utils", "_rebuild_tensor_v2") => Callable::Tensor,
            ("torch._utils", "_rebuild_parameter") => Callable::Parameter,
            ("torch", "FloatStorage") => Callable::StorageType(ElementType::Float),
            ("torch", "DoubleStorage") => Callable::StorageType(ElementType::Double),
            ("torch", "LongStorage") => Callable::StorageType(ElementType::Long),
            ("torch", "HalfStorage") => Callable::StorageType(ElementType::Half),
            ("torch", "BFloat16Storage") => Callable::StorageType(ElementType::BFloat16),
            ("torch", "IntStorage" | "ShortStorage" | "CharStorage" | "ByteStorage" | "BoolStorage") => {
                Callable::StorageType(ElementType::Other)
            }
            _ => {
                return Err(PickleError::Global {
                    name: format!("{module}.{name}"),
                    offset: self.start,
                });
            }
        };
        self.push(Value::Callable(callable));
        Ok(())
    }

    /// BINPERSID: `('storage', type, key, device, elements)`.
    fn storage(&mut self) -> Result<(), PickleError> {
        let identifier = self.pop()?;
        let Value::Sequence(parts) = &self.heap[identifier] else {
            return Err(self.malformed("a persistent identifier that is no tuple"));
        };
        let parts: Vec<&Value> = parts.iter().map(|&part| &self.heap[part]).collect();
        let storage = match parts.as_slice() {
            [
                Value::Text(kind),
                Value::Callable(Callable::StorageType(element)),
                Value::Text(key),
                Value::Text(_),
                Value::Integer(elements),
            ] if kind == "storage" && *elements >= 0 => Storage {
                element: *element,
                key: key.clone(),
                elements: *elements,
            },
            _ => return Err(self.malformed("a persistent identifier that is no storage")),
        };
        self.push(Value::Storage(storage));
        Ok(())
    }

    fn call(&mut self) -> Result<(), PickleError> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Value::Sequence(arguments) = self.heap[arguments].clone() else {
            return Err(self.malformed("arguments that are no tuple"));
        };
        let value = match self.heap[callable] {
            Value::Callable(Callable::Dictionary) => self.dictionary(&arguments)?,
            Value::Callable(Callable::Tensor) => self.tensor(&arguments)?,
            Value::Callable(Callable::Parameter) => match arguments.first() {
                Some(&tensor) if matches!(self.heap[tensor], Value::Tensor(_)) => self.heap[tensor].clone(),
                _ => return Err(self.malformed("a parameter that is no tensor")),
            },
            _ => return Err(self.malformed("a call of something that can't be called")),
        };
        self.push(value);
        Ok(())
    }

    /// `OrderedDict()`, or of a dictionary (`Counter` is pickled so).
    fn dictionary(&self, arguments: &[Reference]) -> Result<Value, PickleError> {
        match arguments {
            [] => Ok(Value::Dictionary(Vec::new())),
            &[only] => match &self.heap[only] {
                dictionary @ Value::Dictionary(_) => Ok(dictionary.clone()),
                Value::Sequence(items) if items.is_empty() => Ok(Value::Dictionary(Vec::new())),
                _ => Err(self.malformed("a dictionary made of something that is none")),
            },
            _ => Err(self.malformed("a dictionary made of several things")),
        }
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`.
    fn tensor(&self, arguments: &[Reference]) -> Result<Value, PickleError> {
        let values: Vec<&Value> = arguments
            .iter()
            .take(4)
            .map(|&argument| &self.heap[argument])
            .collect();
        let [Value::Storage(storage), Value::Integer(offset), shape, strides] = values.as_slice() else {
            return Err(self.malformed("a tensor without storage, offset, shape and strides"));
        };
        let (shape, strides) = (self.integers(shape)?, self.integers(strides)?);
        if shape.len() != strides.len() || *offset < 0 || shape.iter().chain(&strides).any(|&n| n < 0) {
            return Err(self.malformed("a tensor whose shape and strides contradict each other"));
        }
        Ok(Value::Tensor(TensorReference {
            storage: storage.clone(),
            offset: *offset,
            shape,
            strides,
        }))
    }

    fn integers(&self, value: &Value) -> Result<Vec<i64>, PickleError> {
        let Value::Sequence(items) = value else {
            return Err(self.malformed("a shape that is no tuple"));
        };
        let integer = |&item: &Reference| match self.heap[item] {
            Value::Integer(integer) => Ok(integer),
            _ => Err(self.malformed("a shape that isn't made of integers")),
        };
        items.iter().map(integer).collect()
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.heap.len());
        self.heap.push(value);
    }

    fn top(&self) -> Result<Reference, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&top) if self.stack.len() > floor => Ok(top),
            _ => Err(self.malformed("the stack is empty")),
        }
    }

    fn pop(&mut self) -> Result<Reference, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_text(&mut self) -> Result<String, PickleError> {
        let top = self.pop()?;
        match &self.heap[top] {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(self.malformed("a name that is no string")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Reference>, PickleError> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| self.malformed("there is no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, length: usize) -> Result<&[u8], PickleError> {
        let end = self
            .offset
            .checked_add(length)
            .filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(PickleError::Truncated {
            offset: self.bytes.len(),
        })?;
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn little_endian(&mut self, bytes: usize) -> Result<u64, PickleError> {
        let taken = self.take(bytes)?;
        Ok(taken
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, PickleError> {
        let length = self.little_endian(bytes)?;
        usize::try_from(length).map_err(|_| self.malformed("a length past all memory"))
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.offset..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or(PickleError::Truncated {
            offset: self.bytes.len(),
        })?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.offset += end + 1;
        Ok(line)
    }

    fn malformed(&self, reason: &'static str) -> PickleError {
        PickleError::Malformed {
            offset: self.start,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read() {
        // pickle.dumps({'a': (1, -2, 2.5), 'b': [True, None]}, protocol=2)
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xffG@\x04\x00\x00\x00\x00\x00\x00\x87q\x02\
            X\x01\x00\x00\x00bq\x03]q\x04(\x88Neu.";
        let pickle = Pickle::read(bytes).unwrap();
        let Some(Value::Sequence(items)) = pickle.entry(pickle.root(), "a") else {
            panic!()
        };
        let items: Vec<_> = items.iter().map(|&item| pickle.value(item).clone()).collect();
        assert_eq!(items, [Value::Integer(1), Value::Integer(-2), Value::Float(2.5)]);
        assert!(matches!(pickle.entry(pickle.root(), "b"), Some(Value::Sequence(items)) if items.len() == 2));
        assert!(pickle.entry(pickle.root(), "c").is_none());
    }

    #[test]
    fn an_unknown_instruction_is_refused_with_its_place() {
        let error = Pickle::read(b"\x80\x02N\xff.").unwrap_err();
        assert_eq!(
            error,
            PickleError::UnknownOpcode {
                opcode: 0xff,
                offset: 3
            }
        );
    }

    #[test]
    fn a_hostile_global_is_refused_by_name() {
        // os.system('true') as pickle.dumps would write it.
        let error = Pickle::read(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap_err();
        assert_eq!(
            error,
            PickleError::Global {
                name: "posix.system".into(),
                offset: 2
            }
        );
        // The same through STACK_GLOBAL.
        let error = Pickle::read(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").unwrap_err();
        assert!(matches!(error, PickleError::Global { ref name, .. } if name == "builtins.eval"));
    }

    #[test]
    fn a_pickle_that_ends_early_is_refused() {
        assert!(matches!(
            Pickle::read(b"\x80\x02X\xff\xff\xff\x7f"),
            Err(PickleError::Truncated { .. })
        ));
        assert!(matches!(
            Pickle::read(b""),
            Err(PickleError::Truncated { offset: 0 })
        ));
        assert!(matches!(Pickle::read(b"."), Err(PickleError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pickle::read(&bytes);
        }

        #[test]
        fn any_known_instructions_are_read_or_refused(
            bytes in proptest::collection::vec(
                proptest::sample::select(b"N\x88\x89K\x01)]}(t\x85\x86\x87aesuq\x00h\x00RQb.\x94".to_vec()), 0..200,
            ),
        ) {
            let _ = Pickle::read(&bytes);
        }
    }
}
