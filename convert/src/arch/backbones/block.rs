//! The block that every family repeats: x + attention(norm1(x)), then x + mlp(norm2(x)) (arXiv 2204.07143,
//! figure 3).

use crate::arch::backbone::BackboneConfig;
use crate::arch::maps::MapSize;
use crate::arch::module::{Inventory, LayerNormSpec, LinearSpec, Scope, Weight, count};
use crate::recipe::Recipe;

/// One transformer block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSpec {
    /// Before the attention.
    pub norm1: LayerNormSpec,
    /// The attention.
    pub attn: AttentionSpec,
    /// Scales what the attention adds, `[dim]`.
    pub gamma1: Option<Weight>,
    /// Before the MLP.
    pub norm2: LayerNormSpec,
    /// The MLP's first layer, before GELU.
    pub fc1: LinearSpec,
    /// The MLP's second layer.
    pub fc2: LinearSpec,
    /// Scales what the MLP adds, `[dim]`.
    pub gamma2: Option<Weight>,
}

/// Neighborhood attention between its two linear layers.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// What makes queries, keys and values, in this order.
    pub qkv: LinearSpec,
    /// The relative position bias, `[heads, 2K−1, 2K−1]`.
    pub rpb: Option<Weight>,
    /// What follows the attention.
    pub proj: LinearSpec,
    /// Heads.
    pub heads: usize,
    /// Side K of a neighborhood, or of the whole map.
    pub kernel_size: usize,
    /// Step between neighbours.
    pub dilation: usize,
    /// Attention over the whole map, of one side only.
    pub whole_map: bool,
    /// What a query's products with its keys are multiplied by beyond dim^−½ of a head's channels.
    pub query_factor: f64,
}

impl BlockSpec {
    /// The block at `scope`, number `block` of level `level`; `whole_map` says of what the family's attention is.
    pub fn new(
        config: &BackboneConfig,
        recipe: &Recipe,
        [level, block]: [usize; 2],
        whole_map: bool,
        scope: &Scope,
    ) -> Self {
        let (dim, hidden) = (config.dim(level), config.hidden(level));
        let (heads, side) = (config.num_heads[level], 2 * config.kernel_size - 1);
        let norm = |name| LayerNormSpec::new(&scope.at(name), dim, recipe.norm_epsilon);
        let gamma = |name| config.layer_scale.then(|| scope.weight(name, &[dim]));
        let (attn, mlp) = (scope.at("attn"), scope.at("mlp"));
        let channels = (dim / heads.max(1)) as f64;
        Self {
            norm1: norm("norm1"),
            attn: AttentionSpec {
                qkv: LinearSpec::new(&attn.at("qkv"), dim, 3 * dim, config.qkv_bias),
                rpb: config.rpb.then(|| attn.weight("rpb", &[heads, side, side])),
                proj: LinearSpec::new(&attn.at("proj"), dim, dim, true),
                heads,
                kernel_size: config.kernel_size,
                dilation: config.dilations[level][block],
                whole_map,
                query_factor: recipe.query_scale.map_or(1.0, |scale| scale * channels.sqrt()),
            },
            gamma1: gamma("gamma1"),
            norm2: norm("norm2"),
            fc1: LinearSpec::new(&mlp.at("fc1"), dim, hidden, true),
            fc2: LinearSpec::new(&mlp.at("fc2"), hidden, dim, true),
            gamma2: gamma("gamma2"),
        }
    }

    /// Takes the block on a map.
    pub fn walk(&self, map: MapSize, inventory: &mut Inventory) {
        let positions = map.positions;
        self.norm1.walk(positions, inventory);
        self.attn.walk(map, inventory);
        self.norm2.walk(positions, inventory);
        self.fc1.walk(positions, inventory);
        self.fc2.walk(positions, inventory);
        self.gamma1.iter().chain(&self.gamma2).for_each(|gamma| inventory.take(gamma));
    }
}

impl AttentionSpec {
    /// Takes the attention on a map: its layers, both products, and one for each bias that it adds.
    pub fn walk(&self, MapSize { positions, dim }: MapSize, inventory: &mut Inventory) {
        self.qkv.walk(positions, inventory);
        self.rpb.iter().for_each(|rpb| inventory.take(rpb));
        self.proj.walk(positions, inventory);
        let window = count(self.kernel_size) * count(self.kernel_size);
        let (keys, biases) = match (self.whole_map, &self.rpb) {
            // Its bias is gathered with PyTorch's own operators, whose additions are free.
            (true, _) => (positions, count(0)),
            (false, Some(_)) => (window, count(self.heads) * window),
            (false, None) => (window, count(0)),
        };
        inventory.macs += positions * (count(2) * keys * count(dim) + biases);
    }
}
