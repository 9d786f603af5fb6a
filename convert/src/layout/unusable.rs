//! Tensors that are there and can't be read: what they are, and what their owner can do.

use crate::error::quoted;
use crate::source::{ElementType, Value};

/// What stands in the way of some tensors, as it follows their number, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub what: String,
    pub advice: &'static str,
}

impl Obstacle {
    /// What nothing but its owner can tell more of.
    pub(super) fn new(what: &str) -> Self {
        Self { what: what.into(), advice: ITSELF }
    }
}

/// Beginnings of the names of what pickles make in place of a tensor, what that is, and what to do.
const MADE: [(&str, &str, &str); 14] = [
    ("numpy.", "numpy arrays instead of tensors", ITSELF),
    ("torch._utils._rebuild_qtensor", "quantised tensors", QUANTISED),
    ("torch.QInt", "quantised tensors", QUANTISED),
    ("torch.QUInt", "quantised tensors", QUANTISED),
    ("torch._utils._rebuild_sparse", "sparse tensors", "save them after to_dense()"),
    (
        "torch._utils._rebuild_meta",
        "tensors without data (of the device meta)",
        "save the network that was trained",
    ),
    ("torch._utils._rebuild_nested", "nested tensors", "save plain ones"),
    ("torch.distributed.", "parts of distributed tensors", "save the full state dict"),
    ("torch.Complex", "complex tensors", "save real ones"),
    ("torch.complex", "complex tensors", "save real ones"),
    ("torch.Tensor (negated", "tensors negated or conjugated lazily", "save them after resolve_neg()"),
    ("torch.float8", "8-bit floats", FLOATS),
    (
        "torch._utils._rebuild_device_tensor_from_numpy",
        "tensors of another device, kept by numpy",
        "save them after cpu()",
    ),
    ("torchao.", "tensors quantised by torchao", QUANTISED),
];

const ITSELF: &str = "save model.state_dict() itself";
const QUANTISED: &str = "save the network as it was before it was quantised";
const FLOATS: &str = "save them as f32, f16 or bf16";

/// Parts of names that only the tensors of a changed network have, by what that is, and what to do.
const MARKS: [(&str, &str, &str); 12] = [
    (".SCB", "tensors quantised by bitsandbytes", QUANTISED),
    (".weight_format", "tensors quantised by bitsandbytes", QUANTISED),
    (".quant_state", "tensors quantised by bitsandbytes", QUANTISED),
    (".absmax", "tensors quantised by bitsandbytes", QUANTISED),
    (".qweight", "tensors quantised by GPTQ or AWQ", QUANTISED),
    (".qzeros", "tensors quantised by GPTQ or AWQ", QUANTISED),
    ("._packed_params", "quantised tensors", QUANTISED),
    (".lora_", "LoRA adapters beside the weights", "save the network after merge_and_unload()"),
    (".parametrizations.", "parametrized tensors", "save them after remove_parametrizations()"),
    (".weight_orig", "tensors pruned by a mask", "save them after torch.nn.utils.prune.remove()"),
    (".weight_mask", "tensors pruned by a mask", "save them after torch.nn.utils.prune.remove()"),
    ("_flat_param", "tensors that FSDP laid end to end", "save the full state dict"),
];

/// What an unreadable value is, if it is a tensor of some kind.
fn made(global: &str) -> Option<Obstacle> {
    // Of safetensors: the type's name.
    if let Some(dtype) = global.strip_prefix("a tensor of ") {
        let what = match dtype {
            _ if dtype.starts_with("F8") => format!("8-bit floats ({dtype})"),
            _ => format!("tensors of {dtype}"),
        };
        return Some(Obstacle { what, advice: FLOATS });
    }
    let known = MADE.iter().find(|(begin, ..)| global.starts_with(begin));
    // An element type or a function of a torch that is newer than this.
    const NEWER: [&str; 4] = ["uint", "bits", "int", "_utils._rebuild"];
    let other = || {
        let name = global.strip_prefix("torch.")?;
        let newer = name.ends_with("Storage") || NEWER.iter().any(|begin| name.starts_with(begin));
        newer.then(|| Obstacle { what: format!("tensors of {global}"), advice: FLOATS })
    };
    known.map(|(_, what, advice)| Obstacle { what: (*what).into(), advice }).or_else(other)
}

/// What an unreadable value is that stands where a tensor should.
pub(super) fn kind(global: &str) -> Obstacle {
    made(global).unwrap_or_else(|| Obstacle::new(&format!("objects of {}", quoted(global))))
}

/// What an unreadable value is, as several of them are called, and what to do.
pub(crate) fn unreadable(global: &str) -> (String, &'static str) {
    let Obstacle { what, advice } = kind(global);
    (what, advice)
}

/// What whole numbers are that stand where floats should.
pub(super) fn whole_numbers(dtype: ElementType) -> Obstacle {
    Obstacle { what: format!("tensors of whole numbers ({dtype:?})"), advice: QUANTISED }
}

/// What a name says of the network that its tensor is of, where that is none that can be run.
pub(super) fn marked(name: &str) -> Option<Obstacle> {
    let mark = MARKS.iter().find(|(mark, ..)| name.contains(mark));
    mark.map(|(_, what, advice)| Obstacle { what: (*what).into(), advice })
}

/// Whether a value is a tensor, readable or not.
pub(super) fn is_tensor(value: &Value) -> bool {
    match value {
        Value::Tensor(_) => true,
        Value::Opaque { global, .. } => made(global).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_tensors_have_names() {
        for (global, what) in [
            ("numpy.core.multiarray._reconstruct", "numpy arrays instead of tensors"),
            ("numpy._core.multiarray._reconstruct", "numpy arrays instead of tensors"),
            ("a tensor of F8_E4M3", "8-bit floats (F8_E4M3)"),
            ("a tensor of U16", "tensors of U16"),
            ("torch.float8_e5m2", "8-bit floats"),
            ("torch._utils._rebuild_qtensor", "quantised tensors"),
            ("torch._utils._rebuild_sparse_tensor", "sparse tensors"),
            ("torch._utils._rebuild_meta_tensor_no_storage", "tensors without data (of the device meta)"),
            ("torch._utils._rebuild_nested_tensor", "nested tensors"),
            ("torch.distributed.tensor.DTensor", "parts of distributed tensors"),
            ("torch.distributed._shard.sharded_tensor.api.ShardedTensor", "parts of distributed tensors"),
            ("torch.ComplexFloatStorage", "complex tensors"),
            ("torch.Tensor (negated or conjugated lazily)", "tensors negated or conjugated lazily"),
            ("torch._utils._rebuild_something_new", "tensors of torch._utils._rebuild_something_new"),
            ("torch.uint16", "tensors of torch.uint16"),
            ("torch.nn.modules.linear.Linear", "objects of `torch.nn.modules.linear.Linear`"),
            ("my.Tensor", "objects of `my.Tensor`"),
        ] {
            assert_eq!(kind(global).what, what, "{global}");
            assert_eq!(made(global).is_none(), what.starts_with("objects"), "{global}");
        }
        for (name, what) in [
            ("levels.0.blocks.0.mlp.fc1.SCB", Some("tensors quantised by bitsandbytes")),
            ("levels.0.blocks.0.attn.qkv.lora_A.default.weight", Some("LoRA adapters beside the weights")),
            ("head.parametrizations.weight.original0", Some("parametrized tensors")),
            ("levels.0.blocks.0.attn.qkv.weight", None),
        ] {
            assert_eq!(marked(name).map(|kind| kind.what).as_deref(), what, "{name}");
        }
    }
}
