//! The instructions of a pickle, of which only containers, numbers, names and tensors are kept.
//!
//! Nothing is executed: a call of anything but the functions that make tensors and dictionaries
//! gives an opaque value. Values lie in one list and refer to each other by number, so that a
//! pickle of `n` bytes takes memory proportional to `n`, however often it refers to a value.

use super::value::{Fault, Id, Unpickled, Value};
use pytorch_reader::DType;
use std::collections::{BTreeSet, HashMap};

/// Reads the instructions of one pickle.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    names: BTreeSet<String>,
    stack: Vec<Id>,
    /// Lengths of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

type Result<T> = std::result::Result<T, Fault>;

/// Limits on what values copy of others, so that a small pickle does not become large in memory.
const LONGEST_NAME: usize = 256;
const MOST_AXES: usize = 64;
/// Limits on what checkpoints have, well above those that are published. Names of tensors are made
/// of keys, so that few long keys could give many long names.
const LONGEST_KEY: usize = 1 << 10;
const MOST_NAMES: usize = 1 << 12;
const MOST_VALUES: usize = 1 << 22;

impl<'a> Machine<'a> {
    /// Reads the pickle at the beginning of `bytes`.
    ///
    /// # Errors
    /// The reason why it is no pickle, is too large, or has a tensor of an unknown kind.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Unpickled> {
        let mut machine = Self {
            bytes,
            at: 0,
            values: vec![],
            names: BTreeSet::new(),
            stack: vec![],
            marks: vec![],
            memo: HashMap::new(),
        };
        loop {
            if machine.step()? {
                let root = machine.pop()?;
                return Ok(Unpickled {
                    values: machine.values,
                    root,
                    len: machine.at,
                    names: machine.names,
                });
            }
            if machine.values.len() > MOST_VALUES {
                let reason = format!("a pickle of more than {MOST_VALUES} values");
                return Err(Fault::TooLarge(reason));
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or("a truncated pickle")?;
        self.at += len;
        Ok(taken)
    }

    /// An unsigned number of `len` bytes.
    fn number(&mut self, len: usize) -> Result<u64> {
        let bytes = self.take(len)?.iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Bytes after their number, which has `len` bytes.
    fn counted(&mut self, len: usize) -> Result<&'a [u8]> {
        let count = self.number(len)?;
        self.take(usize::try_from(count).map_err(|_| "a truncated pickle")?)
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(len.ok_or("a truncated pickle")?)?;
        self.at += 1;
        Ok(text(line))
    }

    /// Notes the name of a function or class.
    fn note(&mut self, name: &str) -> Result<()> {
        if self.names.len() == MOST_NAMES {
            let reason = format!("a pickle that names more than {MOST_NAMES} functions");
            return Err(Fault::TooLarge(reason));
        }
        self.names.insert(name.to_owned());
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id> {
        let above = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= above {
            return Err("a pickle that takes from an empty stack".into());
        }
        self.stack.pop().ok_or_else(|| "an empty stack".into())
    }

    fn top(&self) -> Result<Id> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| "an empty stack".into())
    }

    /// The values above the last mark.
    fn above_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("a pickle without a mark")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn last(&mut self, count: usize) -> Result<Vec<Id>> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    fn remember(&mut self, place: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Result<()> {
        let id = self
            .memo
            .get(&place)
            .ok_or("a pickle that recalls what it did not keep")?;
        self.stack.push(*id);
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        if let Value::Items(all) = &mut self.values[top] {
            all.extend(items);
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        for key in items.iter().step_by(2) {
            if let Value::Text(key) = &self.values[*key]
                && key.len() > LONGEST_KEY
            {
                let reason = format!("a key of {} bytes, at most {LONGEST_KEY}", key.len());
                return Err(Fault::TooLarge(reason));
            }
        }
        if let Value::Dict(all) = &mut self.values[top] {
            all.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    /// Runs one instruction; whether it was the last one.
    fn step(&mut self) -> Result<bool> {
        let code = self.take(1)?[0];
        match code {
            b'.' => return Ok(true),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.above_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::Opaque),
            0x88 | 0x89 => self.push(Value::Int((code == 0x88).into())),
            b'J' => {
                let value = self.number(4)? as u32 as i32;
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.number(1)?;
                self.push(Value::Int(value as i64));
            }
            b'M' => {
                let value = self.number(2)?;
                self.push(Value::Int(value as i64));
            }
            0x8a | 0x8b => {
                let bytes = self.counted(if code == 0x8a { 1 } else { 4 })?;
                self.push(long(bytes));
            }
            b'I' | b'L' => {
                let line = self.line()?;
                let number = line.trim_end_matches('L').parse();
                self.push(number.map_or(Value::Opaque, Value::Int));
            }
            b'F' => {
                self.line()?;
                self.push(Value::Opaque);
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Opaque);
            }
            b'S' => {
                let line = self.line()?;
                let line = line.trim_matches(['\'', '"']).to_owned();
                self.push(Value::Text(line));
            }
            b'V' => {
                let line = self.line()?;
                self.push(Value::Text(line));
            }
            b'T' | b'X' => self.push_text(4)?,
            b'U' | 0x8c => self.push_text(1)?,
            0x8d => self.push_text(8)?,
            b'B' => self.skip_bytes(4)?,
            b'C' => self.skip_bytes(1)?,
            0x8e | 0x96 => self.skip_bytes(8)?,
            b')' | b']' => self.push(Value::Items(vec![])),
            b'}' => self.push(Value::Dict(vec![])),
            0x8f => self.push(Value::Opaque),
            b't' | b'l' => {
                let items = self.above_mark()?;
                self.push(Value::Items(items));
            }
            0x85..=0x87 => {
                let items = self.last(usize::from(code - 0x84))?;
                self.push(Value::Items(items));
            }
            b'd' => {
                let items = self.above_mark()?;
                self.push(Value::Dict(vec![]));
                self.set(items)?;
            }
            0x91 => {
                self.above_mark()?;
                self.push(Value::Opaque);
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.above_mark()?;
                self.append(items)?;
            }
            b's' => {
                let pair = self.last(2)?;
                self.set(pair)?;
            }
            b'u' => {
                let items = self.above_mark()?;
                self.set(items)?;
            }
            0x90 => drop(self.above_mark()?),
            b'p' | b'g' => {
                let line = self.line()?;
                let place = line.parse().map_err(|_| "a memo without a number")?;
                match code {
                    b'p' => self.remember(place)?,
                    _ => self.recall(place)?,
                }
            }
            b'q' | b'r' => {
                let place = self.number(if code == b'q' { 1 } else { 4 })?;
                self.remember(place)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' | b'j' => {
                let place = self.number(if code == b'h' { 1 } else { 4 })?;
                self.recall(place)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let name = format!("{module}.{name}");
                self.note(&name)?;
                self.push(Value::Name(name));
            }
            0x93 => {
                let names = self.last(2)?;
                let text = |id: Id| match &self.values[id] {
                    Value::Text(text) if text.len() <= LONGEST_NAME => Ok(text.as_str()),
                    _ => Err("a name that is no text, or too long"),
                };
                let name = format!("{}.{}", text(names[0])?, text(names[1])?);
                self.note(&name)?;
                self.push(Value::Name(name));
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.above_mark()?;
                self.note(&format!("{module}.{name}"))?;
                self.push(Value::Opaque);
            }
            b'o' => {
                self.above_mark()?;
                self.push(Value::Opaque);
            }
            b'R' => {
                let call = self.last(2)?;
                let value = self.call(call[0], call[1])?;
                self.push(value);
            }
            // The state of an object, which stays what it is.
            b'b' => drop(self.pop()?),
            0x81 | 0x92 => {
                self.last(if code == 0x81 { 2 } else { 3 })?;
                self.push(Value::Opaque);
            }
            b'P' => {
                self.line()?;
                self.push(Value::Opaque);
            }
            b'Q' => {
                let id = self.pop()?;
                let value = self.storage(id)?;
                self.push(value);
            }
            0x82..=0x84 => {
                self.take(1 << (code - 0x82))?;
                self.push(Value::Opaque);
            }
            other => {
                let at = self.at - 1;
                return Err(format!("no pickle: instruction {other:#04x} at {at}").into());
            }
        }
        Ok(false)
    }

    fn push_text(&mut self, len: usize) -> Result<()> {
        let value = text(self.counted(len)?);
        self.push(Value::Text(value));
        Ok(())
    }

    fn skip_bytes(&mut self, len: usize) -> Result<()> {
        self.counted(len)?;
        self.push(Value::Opaque);
        Ok(())
    }

    fn items(&self, id: Id) -> &[Id] {
        match &self.values[id] {
            Value::Items(items) => items,
            _ => &[],
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        let items = self.items(id);
        if items.len() > MOST_AXES {
            return Err(format!("a tensor of {} axes", items.len()).into());
        }
        items.iter().map(|id| self.size(*id)).collect()
    }

    fn size(&self, id: Id) -> Result<usize> {
        match self.values[id] {
            Value::Int(value) => {
                usize::try_from(value).map_err(|_| format!("a size of {value}").into())
            }
            _ => Err("a size that is no number".into()),
        }
    }

    /// The result of a call.
    fn call(&self, function: Id, arguments: Id) -> Result<Value> {
        let Value::Name(name) = &self.values[function] else {
            return Ok(Value::Opaque);
        };
        let arguments = self.items(arguments);
        match (name.as_str(), arguments) {
            ("collections.OrderedDict", []) => Ok(Value::Dict(vec![])),
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                [storage, first, shape, steps, ..],
            ) => match &self.values[*storage] {
                Value::Storage { key, dtype } => Ok(Value::Tensor {
                    key: key.clone(),
                    dtype: *dtype,
                    first: self.size(*first)?,
                    shape: self.sizes(*shape)?,
                    steps: self.sizes(*steps)?,
                }),
                _ => Err("a tensor without a storage".into()),
            },
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                [tensor, ..],
            ) => Ok(self.values[*tensor].clone()),
            // Sparse, quantised and other tensors, which would be missing unnoticed.
            (name, _) if name.starts_with("torch._utils._rebuild_") => {
                Err(format!("a tensor of an unknown kind, {name}").into())
            }
            _ => Ok(Value::Opaque),
        }
    }

    /// The storage of `('storage', torch.HalfStorage, key, device, elements)`.
    fn storage(&self, id: Id) -> Result<Value> {
        let (kind, key) = match self.items(id) {
            [_, kind, key, ..] => (&self.values[*kind], &self.values[*key]),
            _ => return Ok(Value::Opaque),
        };
        let key = match key {
            Value::Text(key) if key.len() <= LONGEST_NAME => key.clone(),
            Value::Int(key) => key.to_string(),
            _ => return Err("a storage without a key".into()),
        };
        let Value::Name(kind) = kind else {
            return Err("a storage without a type".into());
        };
        let dtype = match kind.rsplit('.').next().unwrap_or_default() {
            "DoubleStorage" => DType::F64,
            "FloatStorage" => DType::F32,
            "HalfStorage" => DType::F16,
            "BFloat16Storage" => DType::BF16,
            "LongStorage" => DType::I64,
            "IntStorage" => DType::I32,
            "ShortStorage" => DType::I16,
            "CharStorage" => DType::I8,
            "ByteStorage" => DType::U8,
            "BoolStorage" => DType::Bool,
            // Its tensors cannot be read, but others can.
            _ => return Ok(Value::Opaque),
        };
        Ok(Value::Storage { key, dtype })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A number in two's complement, the lowest byte first.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}
