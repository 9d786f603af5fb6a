//! The objects of a pickle while it is being read, and how they become [`Value`]s.
//!
//! Pickles build containers first and fill them later, and name one object many times; so objects
//! are nodes that name each other by number until everything is read. [`Arena::freeze`] then makes
//! the immutable tree, each node once.

use std::collections::HashMap;
use std::sync::Arc;

use super::value::{ElementType, Value};

/// Most objects that a pickle may make. A checkpoint with its optimizer has some ten thousand.
pub(super) const MAX_NODES: usize = 1 << 21;

/// Most members of all lists and dictionaries together: copies of a long list are cheap to ask for.
pub(super) const MAX_LINKS: usize = 1 << 22;

/// Longest name of a global, of a storage, and of a key that is kept from standing twice in a
/// dictionary: longer ones would be hashed or joined again and again at the price of a few bytes.
pub(super) const MAX_NAME: usize = 512;

/// Deepest nesting of the values. Python's own pickler gives up at about 300.
pub(super) const MAX_DEPTH: u32 = 512;

/// Most values with shared ones counted each time they are met, so that whoever walks the tree
/// comes to an end.
pub(super) const MAX_EXPANDED: u64 = 1 << 24;

/// Number of a node in its arena.
pub(super) type Id = u32;

/// An object under construction.
#[derive(Debug)]
pub(super) enum Node {
    /// What refers to nothing else.
    Leaf(Value),
    /// Lists, tuples and sets.
    List(Vec<Id>),
    /// Dictionaries.
    Dict(Vec<(Id, Id)>),
    /// A class or function, `module.name`.
    Global(Arc<str>),
    /// What calling a global that is not known would have given.
    Instance { global: Arc<str>, state: Option<Id> },
    /// A storage, or a view of one.
    Storage(StorageView),
}

/// A stretch of a storage that tensors are laid over.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorageView {
    /// Number of the storage in the order in which the pickle names them.
    pub storage: u32,
    /// What its class says that the elements are.
    pub dtype: ElementType,
    /// First byte in the storage.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// All objects of one pickle.
#[derive(Default)]
pub(super) struct Arena {
    nodes: Vec<Node>,
    links: usize,
}

impl Arena {
    /// Adds a node and counts its members.
    pub fn add(&mut self, node: Node) -> Result<Id, String> {
        self.charge(match &node {
            Node::List(items) => items.len(),
            Node::Dict(pairs) => pairs.len(),
            _ => 0,
        })?;
        if self.nodes.len() == MAX_NODES {
            return Err(format!("the pickle makes more than {MAX_NODES} objects"));
        }
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as Id)
    }

    /// Counts members that are added to a list or dictionary.
    pub fn charge(&mut self, links: usize) -> Result<(), String> {
        self.links += links;
        match self.links {
            0..=MAX_LINKS => Ok(()),
            _ => Err(format!("the pickle's lists and dictionaries have more than {MAX_LINKS} members")),
        }
    }

    pub fn get(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub fn get_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// The name that a node is, if it is text and short enough for one.
    pub fn name(&self, id: Id) -> Option<&Arc<str>> {
        match self.get(id) {
            Node::Leaf(Value::Str(text)) if text.len() <= MAX_NAME => Some(text),
            _ => None,
        }
    }

    /// The members of a list or tuple, if it is one.
    pub fn list(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The number that a node is, if it is one that counts something.
    pub fn count(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Node::Leaf(Value::Int(number)) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The name of a global or of an instance's global.
    pub fn global(&self, id: Id) -> Option<&Arc<str>> {
        match self.get(id) {
            Node::Global(name) | Node::Instance { global: name, .. } => Some(name),
            _ => None,
        }
    }

    /// Makes a value of a node and everything below it. What refers back to an object that
    /// contains it is [`Value::Opaque`] there.
    ///
    /// # Errors
    /// When the values are nested too deeply or are too many.
    pub fn freeze(&self, root: Id) -> Result<Value, String> {
        let mut frozen: Vec<Option<Frozen>> = Vec::new();
        frozen.resize_with(self.nodes.len(), || None);
        // Nodes on the way from the root to the one at hand; meeting one of them again is a cycle.
        let mut open = vec![false; self.nodes.len()];
        let mut path = vec![root];
        while let Some(&id) = path.last() {
            let at = id as usize;
            if frozen[at].is_some() {
                path.pop();
            } else if !open[at] {
                open[at] = true;
                let pending = |&child: &Id| frozen[child as usize].is_none() && !open[child as usize];
                match &self.nodes[at] {
                    Node::List(items) => path.extend(items.iter().copied().filter(pending)),
                    Node::Dict(pairs) => path.extend(pairs.iter().flat_map(|&(k, v)| [k, v]).filter(pending)),
                    Node::Instance { state, .. } => path.extend(state.iter().copied().filter(pending)),
                    Node::Leaf(_) | Node::Global(_) | Node::Storage(_) => {}
                }
            } else {
                frozen[at] = Some(self.build(id, &frozen)?);
                open[at] = false;
                path.pop();
            }
        }
        Ok(frozen[root as usize].take().map_or(Value::None, |done| done.value))
    }

    /// Makes the value of one node whose children are made, those that contain it excepted.
    fn build(&self, id: Id, frozen: &[Option<Frozen>]) -> Result<Frozen, String> {
        let (mut below, mut size) = (0, 1u64);
        let mut take = |id: Id| match &frozen[id as usize] {
            Some(child) => {
                below = below.max(child.depth);
                size = size.saturating_add(child.size);
                child.value.clone()
            }
            None => opaque("(an object that contains this one)"),
        };
        let value = match &self.nodes[id as usize] {
            Node::Leaf(value) => value.clone(),
            Node::Global(name) => Value::Opaque { global: name.clone(), state: None },
            Node::Storage(_) => opaque("torch.storage"),
            Node::List(items) => Value::List(Arc::new(items.iter().map(|&id| take(id)).collect())),
            Node::Dict(pairs) => Value::Dict(Arc::new(dict(pairs.iter().map(|&(k, v)| (take(k), take(v)))))),
            Node::Instance { global, state } => {
                Value::Opaque { global: global.clone(), state: state.map(|id| Arc::new(take(id))) }
            }
        };
        let depth = below + 1;
        if depth > MAX_DEPTH {
            return Err(format!("the values are nested more than {MAX_DEPTH} deep"));
        }
        if size > MAX_EXPANDED {
            return Err(format!(
                "the values are more than {MAX_EXPANDED} with shared ones counted each time"
            ));
        }
        Ok(Frozen { value, depth, size })
    }
}

/// A finished value, with what walking it costs.
struct Frozen {
    value: Value,
    depth: u32,
    size: u64,
}

/// Pairs in order. As in Python, setting a key again changes the value where the key stands.
fn dict(pairs: impl Iterator<Item = (Value, Value)>) -> Vec<(Value, Value)> {
    let mut places = HashMap::new();
    let mut result: Vec<(Value, Value)> = Vec::new();
    for (key, value) in pairs {
        if let Value::Str(text) = &key
            && text.len() <= MAX_NAME
        {
            if let Some(&place) = places.get(text) {
                result[place] = (key, value);
                continue;
            }
            places.insert(text.clone(), result.len());
        }
        result.push((key, value));
    }
    result
}

/// An opaque value of which only a name is known.
pub(super) fn opaque(name: &str) -> Value {
    Value::Opaque { global: name.into(), state: None }
}
