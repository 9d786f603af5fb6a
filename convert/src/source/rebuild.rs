//! The few functions and persistent ids that torch's pickles rebuild tensors and containers with.
//!
//! Sources: torch/_utils.py (`_rebuild_*`), torch/serialization.py (`persistent_id`), torch 0.4 to
//! 2.x. A function that is not here is never looked for: what it would have given is an instance
//! of which only the name is known.

use std::collections::HashMap;
use std::sync::Arc;

use super::arena::{Arena, Id, Node, StorageView};
use super::contents::StorageSpan;
use super::problem::quoted;
use super::value::{ElementType, TensorRef, Value};

/// Most dimensions of a tensor, as in torch.
pub(super) const MAX_DIMS: usize = 64;

/// Most arguments that a function here takes.
const MAX_ARGS: usize = 8;

/// The storages that a pickle names, in the order in which it does.
#[derive(Default)]
pub(super) struct Storages {
    list: Vec<Storage>,
    by_key: HashMap<Arc<str>, u32>,
}

/// What the pickle says about a storage.
pub(super) struct Storage {
    /// Its name in the file.
    pub key: Arc<str>,
    /// Bytes of an element; `None` for a class that is not known.
    pub size: Option<u64>,
    /// Bytes that tensors may lie in.
    pub len: u64,
}

impl Storages {
    /// The storage of a key.
    pub fn get(&self, key: &str) -> Option<&Storage> {
        self.by_key.get(key).map(|&at| &self.list[at as usize])
    }

    /// Where the storages lie in the file, given where each key's bytes lie.
    ///
    /// # Errors
    /// When one is missing or shorter than the pickle says.
    pub fn place(&self, places: &HashMap<Arc<str>, StorageSpan>) -> Result<Vec<StorageSpan>, String> {
        let place = |storage: &Storage| match places.get(&storage.key) {
            None if storage.len == 0 => Ok(StorageSpan::default()),
            None => Err(format!("storage {} is not in the file", quoted(&storage.key))),
            Some(place) if place.len() < storage.len => Err(format!(
                "storage {} has {} bytes instead of {}",
                quoted(&storage.key),
                place.len(),
                storage.len
            )),
            Some(place) => Ok(place.clone()),
        };
        self.list.iter().map(place).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Storage> {
        self.list.iter()
    }

    fn add(&mut self, key: &Arc<str>, size: Option<u64>, len: u64) -> u32 {
        let at = *self.by_key.entry(key.clone()).or_insert_with(|| {
            self.list.push(Storage { key: key.clone(), size, len });
            (self.list.len() - 1) as u32
        });
        let storage = &mut self.list[at as usize];
        storage.len = storage.len.max(len);
        at
    }
}

/// The element type and the bytes of an element of a storage class, by its name without the module.
fn storage_class(name: &str) -> Option<(Option<ElementType>, u64)> {
    let dtype = match name {
        "DoubleStorage" => ElementType::F64,
        "FloatStorage" => ElementType::F32,
        "HalfStorage" => ElementType::F16,
        "BFloat16Storage" => ElementType::BF16,
        "LongStorage" => ElementType::I64,
        "IntStorage" => ElementType::I32,
        "ShortStorage" => ElementType::I16,
        "CharStorage" => ElementType::I8,
        "ByteStorage" | "UntypedStorage" | "_UntypedStorage" => ElementType::U8,
        "BoolStorage" => ElementType::Bool,
        // Not read, but a legacy file can only be walked past them when their sizes are known.
        "ComplexDoubleStorage" => return Some((None, 16)),
        "ComplexFloatStorage" => return Some((None, 8)),
        "QInt32Storage" => return Some((None, 4)),
        "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => return Some((None, 1)),
        _ => return None,
    };
    Some((Some(dtype), dtype.size() as u64))
}

/// The element type of a `torch.dtype`.
fn dtype(name: &str) -> Option<ElementType> {
    Some(match name {
        "torch.float64" | "torch.double" => ElementType::F64,
        "torch.float32" | "torch.float" => ElementType::F32,
        "torch.float16" | "torch.half" => ElementType::F16,
        "torch.bfloat16" => ElementType::BF16,
        "torch.int64" | "torch.long" => ElementType::I64,
        "torch.int32" | "torch.int" => ElementType::I32,
        "torch.int16" | "torch.short" => ElementType::I16,
        "torch.int8" => ElementType::I8,
        "torch.uint8" => ElementType::U8,
        "torch.bool" => ElementType::Bool,
        _ => return None,
    })
}

/// What a persistent id stands for: `('storage', class, key, location, numel)`, in legacy files
/// followed by a `view_metadata` of `None` or `(key of the view, offset, numel)`.
pub(super) fn persistent(arena: &Arena, storages: &mut Storages, id: Id) -> Result<Node, String> {
    let items = arena.list(id).unwrap_or_default();
    let kind = items.first().and_then(|&kind| arena.name(kind)).map(|kind| &**kind);
    match items {
        [_, class, ..] if kind == Some("module") => {
            let global = arena.global(*class).cloned().ok_or("a module has no class")?;
            Ok(Node::Global(global))
        }
        [_, class, key, _location, numel, view @ ..] if kind == Some("storage") => {
            let class = arena.global(*class).or(arena.name(*class)).ok_or("a storage has no class")?;
            let key = arena.name(*key).ok_or("a storage's key is no text, or a long one")?;
            let numel = arena.count(*numel).ok_or("a storage's length is not a number")? as u64;
            let known = storage_class(class.rsplit('.').next().unwrap_or(class));
            let size = known.map(|(_, size)| size);
            let bytes =
                |count: u64| count.checked_mul(size.unwrap_or(0)).ok_or("a storage's length overflows");
            let len = bytes(numel)?;
            let storage = storages.add(key, size, len);
            let Some((Some(dtype), _)) = known else {
                return Ok(Node::Instance { global: class.clone(), state: None });
            };
            let view = view.first().and_then(|&view| arena.list(view));
            let (start, len) = match view {
                None => (0, len),
                Some([_key, offset, count]) => {
                    let number = |id| arena.count(id).ok_or("a view of a storage has no bounds");
                    let (start, view) = (bytes(number(*offset)? as u64)?, bytes(number(*count)? as u64)?);
                    if start.checked_add(view).is_none_or(|end| end > len) {
                        return Err(format!("a view lies outside its storage {}", quoted(key)));
                    }
                    (start, view)
                }
                Some(_) => return Err("a view of a storage has no bounds".into()),
            };
            Ok(Node::Storage(StorageView { storage, dtype, start, len }))
        }
        _ => Ok(Node::Instance { global: "(persistent id)".into(), state: None }),
    }
}

/// The persistent id that a pickle of protocol 0 spells out, `('storage', <class 'torch.FloatStorage'>, '0',
/// 'cpu', 24)`, in legacy files with `, None` behind the number.
pub(super) fn spelt_out(
    arena: &mut Arena,
    storages: &mut Storages,
    text: &str,
) -> Result<Option<Node>, String> {
    let parts = || {
        let rest = text.strip_prefix("('storage', <class '")?.strip_suffix(')')?;
        let (class, rest) = rest.split_once("'>, '")?;
        let (key, rest) = rest.split_once("', '")?;
        let (_location, numel) = rest.split_once("', ")?;
        let numel = numel.strip_suffix(", None").unwrap_or(numel).parse().ok()?;
        Some((class, key, numel))
    };
    let Some((class, key, numel)) = parts() else { return Ok(None) };
    let mut items = Vec::new();
    for leaf in [Value::Str("storage".into()), Value::Str(class.into()), Value::Str(key.into())] {
        items.push(arena.add(Node::Leaf(leaf))?);
    }
    items.push(arena.add(Node::Leaf(Value::None))?);
    items.push(arena.add(Node::Leaf(Value::Int(numel)))?);
    let id = arena.add(Node::List(items))?;
    persistent(arena, storages, id).map(Some)
}

/// What calling a global gives: with `reduce` the call of a function, else an instance of a class.
///
/// # Errors
/// When it is a tensor that its arguments don't describe, or when there is no name to call.
pub(super) fn call(arena: &mut Arena, callable: Id, args: Id, reduce: bool) -> Result<Id, String> {
    let global = arena.global(callable).ok_or("what is called has no name")?.clone();
    let args = arena.list(args).ok_or("arguments are not a tuple")?;
    let args = args[..args.len().min(MAX_ARGS)].to_vec();
    let first = args.first().copied();
    let node = match &*global {
        // Not a loop: what it wraps is never itself.
        "torch._tensor._rebuild_from_type_v2" if reduce && args.len() == 4 => {
            let inner = arena.global(args[0]).filter(|inner| **inner != global);
            return match inner {
                Some(_) => call(arena, args[0], args[2], true),
                None => Err("_rebuild_from_type_v2 names no function".into()),
            };
        }
        "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" if reduce => {
            match first {
                Some(data) => return Ok(data),
                None => return Err(format!("{global} has no tensor")),
            }
        }
        "torch._utils._rebuild_tensor"
        | "torch._utils._rebuild_tensor_v2"
        | "torch._utils._rebuild_tensor_v3"
            if reduce =>
        {
            tensor(arena, &global, &args)?
        }
        "collections.OrderedDict" => Node::Dict(pairs(arena, first)?),
        "collections.defaultdict" => Node::Dict(pairs(arena, args.get(1).copied())?),
        "torch.Size"
        | "builtins.set"
        | "builtins.frozenset"
        | "__builtin__.set"
        | "__builtin__.frozenset" => {
            Node::List(first.and_then(|items| arena.list(items)).unwrap_or_default().to_vec())
        }
        // How protocols 0 and 1 make an instance of a class: of it, of a base, and of what the base is made of.
        "copy_reg._reconstructor" | "copyreg._reconstructor" => {
            let class = first.and_then(|class| arena.global(class)).cloned();
            let state = args.get(2).copied().filter(|&state| !matches!(arena.get(state), Node::Leaf(_)));
            Node::Instance { global: class.unwrap_or(global), state }
        }
        // A tensor of somebody's class around others, as parts of a distributed one are: the class says more.
        "torch._utils._rebuild_wrapper_subclass" => {
            let class = first.and_then(|class| arena.global(class)).cloned();
            Node::Instance { global: class.unwrap_or(global), state: None }
        }
        _ => Node::Instance { global, state: None },
    };
    arena.add(node)
}

/// The items that an `OrderedDict` is made of: a list of pairs, or a dictionary.
fn pairs(arena: &Arena, items: Option<Id>) -> Result<Vec<(Id, Id)>, String> {
    match items.map(|items| arena.get(items)) {
        None | Some(Node::Leaf(Value::None)) => Ok(Vec::new()),
        Some(Node::Dict(pairs)) => Ok(pairs.clone()),
        Some(Node::List(items)) => {
            let pair = |&item: &Id| match arena.list(item) {
                Some(&[key, value]) => Ok((key, value)),
                _ => Err("a dictionary is made of what are no pairs".to_owned()),
            };
            items.iter().map(pair).collect()
        }
        Some(_) => Err("a dictionary is made of what is no list".into()),
    }
}

/// A tensor of `(storage, offset, size, stride[, requires_grad, hooks[, dtype (v3)][, metadata]])`.
fn tensor(arena: &Arena, global: &Arc<str>, args: &[Id]) -> Result<Node, String> {
    let &[storage, offset, shape, strides, ref rest @ ..] = args else {
        return Err(format!("{global} has {} arguments", args.len()));
    };
    let instance = |global: &Arc<str>| Ok(Node::Instance { global: global.clone(), state: None });
    let view = match arena.get(storage) {
        Node::Storage(view) => *view,
        Node::Instance { global, .. } => return instance(global),
        _ => return Err(format!("{global} has no storage")),
    };
    let (mut element, mut metadata) = (view.dtype, rest.get(2));
    if &**global == "torch._utils._rebuild_tensor_v3" {
        let name = rest.get(2).and_then(|&id| arena.global(id));
        let name = name.ok_or_else(|| format!("{global} has no dtype"))?;
        let Some(known) = dtype(name) else { return instance(name) };
        (element, metadata) = (known, rest.get(3));
    }
    // Conjugate and negative bits: the elements are not what lies in the storage.
    if let Some(Node::Dict(bits)) = metadata.map(|&id| arena.get(id))
        && !bits.is_empty()
    {
        return instance(&"torch.Tensor (negated or conjugated lazily)".into());
    }
    let numbers = |id: Id, what: &str| {
        let numbers: Option<Vec<usize>> =
            arena.list(id).and_then(|list| list.iter().map(|&id| arena.count(id)).collect());
        numbers.ok_or_else(|| format!("a tensor's {what} is not a tuple of numbers"))
    };
    let (shape, strides) = (numbers(shape, "shape")?, numbers(strides, "stride")?);
    if shape.len() != strides.len() || shape.len() > MAX_DIMS {
        return Err(format!("a tensor has {} dimensions and {} strides", shape.len(), strides.len()));
    }
    let offset = arena.count(offset).ok_or("a tensor's offset is not a number")?;
    let mut tensor = TensorRef { dtype: element, shape, strides, offset, storage: view.storage as usize };
    tensor.locate(view.len)?;
    let size = element.size() as u64;
    if !view.start.is_multiple_of(size) {
        return Err(format!("a view of a storage starts at byte {}, inside an element", view.start));
    }
    tensor.offset = usize::try_from(view.start / size)
        .ok()
        .and_then(|start| tensor.offset.checked_add(start))
        .ok_or("a tensor's offset overflows")?;
    Ok(Node::Leaf(Value::Tensor(Arc::new(tensor))))
}
