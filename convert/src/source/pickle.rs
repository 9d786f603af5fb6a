//! The pickle machine: opcodes of protocols 0 to 5, with a stack, a memo and no Python.
//!
//! What a pickle asks to call is looked up in [`rebuild`](super::rebuild)'s short list; everything
//! else becomes an instance of which only the name is known. Opcodes as in CPython's `pickletools`.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{BufRead, Read};
use std::sync::Arc;

use super::arena::{Arena, Id, MAX_NAME, MAX_NODES, Node, opaque};
use super::problem::Flaw;
use super::rebuild::{self, Storages};
use super::value::Value;

/// Largest pickle in bytes: of a checkpoint with its optimizer it has less than one MiB, as the
/// tensors' elements lie outside.
pub(super) const MAX_PICKLE: u64 = 64 << 20;

/// Longest text, byte string or line.
pub(super) const MAX_STRING: u64 = 16 << 20;

/// Most objects on the stack, and most marks.
pub(super) const MAX_STACK: usize = 1 << 20;

/// The bytes that a pickle is read from, counted.
pub(super) struct PickleInput<R> {
    reader: R,
    /// Name of the part of the file, for messages.
    place: String,
    /// Bytes read, and bytes that there are.
    position: u64,
    end: u64,
    /// Whether numpy was named: its arrays lie in the pickle itself.
    numpy: bool,
}

impl<R: BufRead> PickleInput<R> {
    /// Reads from `reader`, which has `end` bytes.
    pub fn new(reader: R, place: impl Into<String>, end: u64) -> Self {
        Self { reader, place: place.into(), position: 0, end, numpy: false }
    }

    /// How many bytes were read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The problem of the byte at hand.
    pub fn fail(&self, what: impl Display) -> Flaw {
        let place = format!("{}, byte {}", self.place, self.position);
        Flaw::Damaged { place, what: what.to_string() }
    }

    /// Why a pickle is so long, where that is known.
    fn arrays(&self) -> &'static str {
        if self.numpy {
            ": it holds numpy arrays; save tensors instead, as model.state_dict() gives them"
        } else {
            ""
        }
    }

    /// Fails unless so many bytes follow.
    fn claim(&self, len: u64) -> Result<(), Flaw> {
        match self.end - self.position {
            0 => Err(self.fail("the file ends in the middle of a pickle: download or copy it again")),
            rest if len > rest => Err(self.fail(format!("{len} bytes are announced and {rest} are left"))),
            _ => Ok(()),
        }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Flaw> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// An unsigned number of 1, 2, 4 or 8 bytes, as lengths and indices are written.
    fn uint(&mut self, width: usize) -> Result<u64, Flaw> {
        Ok(match width {
            1 => self.byte()?.into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            4 => u32::from_le_bytes(self.array()?).into(),
            _ => u64::from_le_bytes(self.array()?),
        })
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, Flaw> {
        if len == 0 {
            return Ok(Vec::new());
        }
        self.claim(len)?;
        if len > MAX_STRING {
            let longer = format!("a string of {len} bytes is longer than {MAX_STRING}");
            return Err(self.fail(format!("{longer}{}", self.arrays())));
        }
        let mut bytes = vec![0; len as usize];
        self.reader.read_exact(&mut bytes)?;
        self.position += len;
        Ok(bytes)
    }

    /// The text up to the next line feed, without it.
    fn line(&mut self) -> Result<String, Flaw> {
        String::from_utf8(self.raw_line()?).map_err(|_| self.fail("a line is not UTF-8"))
    }

    /// The bytes up to the next line feed, without it.
    fn raw_line(&mut self) -> Result<Vec<u8>, Flaw> {
        let mut bytes = Vec::new();
        self.reader.by_ref().take(MAX_STRING).read_until(b'\n', &mut bytes)?;
        if bytes.pop() != Some(b'\n') {
            return Err(self.fail("a line has no end"));
        }
        self.position += bytes.len() as u64 + 1;
        Ok(bytes)
    }
}

/// Reads the pickle that `input` stands at, to its STOP, and no byte more.
///
/// # Errors
/// When it is damaged, exceeds a limit, or rebuilds a tensor that does not fit its storage.
pub(super) fn load<R: BufRead>(input: &mut PickleInput<R>, storages: &mut Storages) -> Result<Value, Flaw> {
    let start = input.position;
    let (arena, stack, marks, memo) = (Arena::default(), Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { input, storages, arena, stack, marks, memo };
    loop {
        let opcode = machine.input.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            let frozen = machine.arena.freeze(root);
            return frozen.map_err(|what| machine.input.fail(what));
        }
        machine.step(opcode)?;
        if machine.input.position - start > MAX_PICKLE {
            let longer = format!("the pickle is longer than {MAX_PICKLE} bytes");
            return Err(machine.input.fail(format!("{longer}{}", machine.input.arrays())));
        }
    }
}

struct Machine<'a, R> {
    input: &'a mut PickleInput<R>,
    storages: &'a mut Storages,
    arena: Arena,
    stack: Vec<Id>,
    /// Heights of the stack at each MARK that is still open.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<R: BufRead> Machine<'_, R> {
    fn step(&mut self, opcode: u8) -> Result<(), Flaw> {
        match opcode {
            // PROTO and FRAME say how the rest is written, which makes no difference here.
            0x80 => match self.input.byte()? {
                0..=5 => Ok(()),
                protocol => Err(self.input.fail(format!("pickle protocol {protocol} is unknown"))),
            },
            0x95 => self.input.array::<8>().map(drop),

            b'N' => self.leaf(Value::None),
            0x88 => self.leaf(Value::Bool(true)),
            0x89 => self.leaf(Value::Bool(false)),
            b'K' | b'M' => {
                let number = self.input.uint(if opcode == b'K' { 1 } else { 2 })?;
                self.leaf(Value::Int(number as i64))
            }
            b'J' => {
                let number = i32::from_le_bytes(self.input.array()?);
                self.leaf(Value::Int(number.into()))
            }
            0x8a | 0x8b => {
                let len = self.input.uint(if opcode == 0x8a { 1 } else { 4 })?;
                let bytes = self.input.bytes(len)?;
                self.leaf(long(&bytes))
            }
            b'G' => {
                let bytes = self.input.array()?;
                self.leaf(Value::Float(f64::from_be_bytes(bytes)))
            }
            b'I' | b'L' => {
                let line = self.input.line()?;
                let value = match line.trim() {
                    "01" if opcode == b'I' => Value::Bool(true),
                    "00" if opcode == b'I' => Value::Bool(false),
                    number => number.trim_end_matches('L').parse().map_or_else(|_| opaque("int"), Value::Int),
                };
                self.leaf(value)
            }
            b'F' => {
                let line = self.input.line()?;
                let number = line.trim().parse();
                self.leaf(Value::Float(number.map_err(|_| self.input.fail("a number is not one"))?))
            }

            b'X' | 0x8c | 0x8d => {
                let width = match opcode {
                    b'X' => 4,
                    0x8c => 1,
                    _ => 8,
                };
                let len = self.input.uint(width)?;
                let bytes = self.input.bytes(len)?;
                // Python writes lone surrogates, which UTF-8 proper does not have.
                self.leaf(Value::Str(String::from_utf8_lossy(&bytes).into()))
            }
            b'V' => {
                // Python's raw-unicode-escape: what is not escaped is Latin-1.
                let line: String = self.input.raw_line()?.into_iter().map(char::from).collect();
                self.leaf(Value::Str(unescape(&line, &['u', 'U']).into()))
            }
            b'S' => {
                let line = self.input.line()?;
                let line = line.trim();
                let inner = ['\'', '"'].iter().find_map(|&q| line.strip_prefix(q)?.strip_suffix(q));
                let inner = inner.ok_or_else(|| self.input.fail("a string has no quotes"))?;
                self.leaf(Value::Str(unescape(inner, &['x', 'n', 't', 'r', '\\', '\'', '"']).into()))
            }
            // Python 2's strings are text where they can be, as torch.load takes them.
            b'T' | b'U' => {
                let len = self.input.uint(if opcode == b'U' { 1 } else { 4 })?;
                let bytes = self.input.bytes(len)?;
                self.leaf(match String::from_utf8(bytes) {
                    Ok(text) => Value::Str(text.into()),
                    Err(error) => Value::Bytes(error.into_bytes().into()),
                })
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let width = match opcode {
                    b'B' => 4,
                    b'C' => 1,
                    _ => 8,
                };
                let len = self.input.uint(width)?;
                let bytes = self.input.bytes(len)?;
                self.leaf(Value::Bytes(bytes.into()))
            }

            b'(' => match self.marks.len() {
                MAX_STACK => Err(self.input.fail(format!("more than {MAX_STACK} marks are open"))),
                _ => {
                    self.marks.push(self.stack.len());
                    Ok(())
                }
            },
            b'0' => {
                // POP takes a mark away when there is nothing above it.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(drop)
            }
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }

            b']' | b')' | 0x8f => self.node(Node::List(Vec::new())),
            b'}' => self.node(Node::Dict(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.node(Node::List(items))
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.node(Node::List(items))
            }
            b'd' => {
                let items = self.pop_mark()?;
                let pairs = self.pairs(&items)?;
                self.node(Node::Dict(pairs))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)
            }

            b'p' | b'q' | b'r' | 0x94 => {
                let index = match opcode {
                    b'p' => self.line_index()?,
                    b'q' => self.input.uint(1)?,
                    b'r' => self.input.uint(4)?,
                    _ => self.memo.len() as u64,
                };
                let top = self.top()?;
                self.memo.insert(index, top);
                match self.memo.len() {
                    0..=MAX_NODES => Ok(()),
                    _ => Err(self.input.fail(format!("the memo has more than {MAX_NODES} entries"))),
                }
            }
            b'g' | b'h' | b'j' => {
                let index = match opcode {
                    b'g' => self.line_index()?,
                    b'h' => self.input.uint(1)?,
                    _ => self.input.uint(4)?,
                };
                match self.memo.get(&index) {
                    Some(&id) => self.push(id),
                    None => Err(self.input.fail(format!("the memo has no entry {index}"))),
                }
            }

            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let global = self.global(&module, &name)?;
                self.node(Node::Global(global))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.arena.name(module), self.arena.name(name)) else {
                    return Err(self.input.fail("the name of a global is no text, or a long one"));
                };
                let (module, name) = (module.clone(), name.clone());
                let global = self.global(&module, &name)?;
                self.node(Node::Global(global))
            }
            0x82..=0x84 => {
                let width = 1 << (opcode - 0x82);
                self.input.bytes(width)?;
                self.node(Node::Global("copyreg.extension".into()))
            }
            b'R' | 0x81 => {
                let (args, callable) = (self.pop()?, self.pop()?);
                self.call(callable, args, opcode == b'R')
            }
            0x92 => {
                let (_, args, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callable, args, false)
            }
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                let global = self.global(&module, &name)?;
                self.pop_mark()?;
                self.node(Node::Instance { global, state: None })
            }
            b'o' => {
                let items = self.pop_mark()?;
                let class = items.first().and_then(|&class| self.arena.global(class));
                let global = class.ok_or_else(|| self.input.fail("an object has no class"))?.clone();
                self.node(Node::Instance { global, state: None })
            }
            b'b' => {
                let (state, target) = (self.pop()?, self.top()?);
                // Attributes of anything but an instance (an OrderedDict's `_metadata`) are nobody's.
                if let Node::Instance { state: slot @ None, .. } = self.arena.get_mut(target) {
                    *slot = Some(state);
                }
                Ok(())
            }
            b'P' => {
                let line = self.input.line()?;
                let node = rebuild::spelt_out(&mut self.arena, self.storages, &line);
                match node.map_err(|what| self.input.fail(what))? {
                    Some(node) => self.node(node),
                    None => self.leaf(opaque("(persistent id)")),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let node = rebuild::persistent(&self.arena, self.storages, id);
                let node = node.map_err(|what| self.input.fail(what))?;
                self.node(node)
            }
            0x97 | 0x98 => {
                Err(self.input.fail("parts of the pickle are out of band: save it without buffer_callback"))
            }
            _ => Err(self.input.fail(format!("{opcode:#04x} is no opcode of a pickle"))),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<Arc<str>, Flaw> {
        self.input.numpy |= module.split('.').next() == Some("numpy");
        if module.len() + name.len() >= MAX_NAME {
            return Err(self.input.fail(format!("the name of a global is longer than {MAX_NAME} bytes")));
        }
        Ok(format!("{module}.{name}").into())
    }

    fn line_index(&mut self) -> Result<u64, Flaw> {
        let line = self.input.line()?;
        line.trim().parse().map_err(|_| self.input.fail("an index of the memo is no number"))
    }

    fn push(&mut self, id: Id) -> Result<(), Flaw> {
        if self.stack.len() == MAX_STACK {
            return Err(self.input.fail(format!("the stack is higher than {MAX_STACK}")));
        }
        self.stack.push(id);
        Ok(())
    }

    fn node(&mut self, node: Node) -> Result<(), Flaw> {
        let id = self.arena.add(node).map_err(|what| self.input.fail(what))?;
        self.push(id)
    }

    fn leaf(&mut self, value: Value) -> Result<(), Flaw> {
        self.node(Node::Leaf(value))
    }

    fn top(&self) -> Result<Id, Flaw> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err(self.input.fail("the stack is empty")),
        }
    }

    fn pop(&mut self) -> Result<Id, Flaw> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Flaw> {
        let mark = self.marks.pop().ok_or_else(|| self.input.fail("there is no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, Flaw> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.input.fail("a dictionary has a key without a value"));
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    /// The object on the stack that items are added to: for an instance of an unknown subclass of
    /// `list` or `dict` that is its state.
    fn container(&mut self, empty: Node) -> Result<&mut Node, Flaw> {
        let mut target = self.top()?;
        if let Node::Instance { state, .. } = self.arena.get(target) {
            let items = match *state {
                Some(items) => items,
                None => self.arena.add(empty).map_err(|what| self.input.fail(what))?,
            };
            if let Node::Instance { state, .. } = self.arena.get_mut(target) {
                *state = Some(items);
            }
            target = items;
        }
        Ok(self.arena.get_mut(target))
    }

    fn extend(&mut self, new: Vec<Id>) -> Result<(), Flaw> {
        self.arena.charge(new.len()).map_err(|what| self.input.fail(what))?;
        match self.container(Node::List(Vec::new()))? {
            Node::List(items) => items.extend(new),
            _ => return Err(self.input.fail("items are added to what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), Flaw> {
        let new = self.pairs(items)?;
        self.arena.charge(new.len()).map_err(|what| self.input.fail(what))?;
        match self.container(Node::Dict(Vec::new()))? {
            Node::Dict(pairs) => pairs.extend(new),
            _ => return Err(self.input.fail("keys are set in what is no dictionary")),
        }
        Ok(())
    }

    fn call(&mut self, callable: Id, args: Id, reduce: bool) -> Result<(), Flaw> {
        let id = rebuild::call(&mut self.arena, callable, args, reduce);
        let id = id.map_err(|what| self.input.fail(what))?;
        self.push(id)
    }
}

/// A two's complement number of any width, least significant byte first.
fn long(bytes: &[u8]) -> Value {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    match wide.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => return opaque("int"),
    }
    Value::Int(i64::from_le_bytes(wide))
}

/// Text with the escapes that protocol 0 uses; a backslash before anything else stands for itself.
fn unescape(text: &str, escapes: &[char]) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let kind = after.chars().next().filter(|c| escapes.contains(c));
        let digits = match kind {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        let code = after.get(1..1 + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let char = match kind {
            Some('n') => Some('\n'),
            Some('t') => Some('\t'),
            Some('r') => Some('\r'),
            Some('x' | 'u' | 'U') => code.and_then(char::from_u32),
            other => other,
        };
        out.push(char.unwrap_or('\\'));
        rest = if char.is_some() { &after[1 + digits..] } else { after };
    }
    out + rest
}
