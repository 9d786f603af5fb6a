//! The families, a row each, and what is asked of a backbone of any.

use super::dinat_s::DinatSFamily;
use super::isotropic::IsotropicFamily;
use super::kind::FamilyKind;
use super::nat::NatFamily;
use crate::arch::backbone::{BackboneConfig, Family, Norms};
use crate::arch::maps::{MapSize, MapSizes};
use crate::arch::module::{Inventory, Scope, count};
use crate::recipe::Recipe;

impl Family {
    /// Every family. Of two that have the same tensors, the first is found in them.
    pub(crate) const ALL: [Self; 4] = [Self::Nat, Self::DinatS, Self::Isotropic, Self::VitRpb];

    /// What the family is.
    pub(crate) fn kind(self) -> &'static dyn FamilyKind {
        match self {
            Self::Nat => &NatFamily,
            Self::DinatS => &DinatSFamily,
            Self::Isotropic => &IsotropicFamily { whole_map: false },
            Self::VitRpb => &IsotropicFamily { whole_map: true },
        }
    }

    /// What the family is called: `NAT and DiNAT`, `DiNAT_s`, `isotropic`, `ViT-rpb`.
    pub fn name(self) -> &'static str {
        self.kind().name()
    }

    /// Whether attention is over the whole map, which then has one side only, and no dilation.
    pub fn attends_whole_map(self) -> bool {
        self.kind().attends_whole_map()
    }
}

impl BackboneConfig {
    /// Height or width of each level's map for an input side of `side` pixels.
    pub fn map_sides(&self, side: usize) -> Vec<usize> {
        let first = self.family.kind().first_side(side, self.patch_size);
        let halve = |s: &usize| Some(s.div_ceil(2));
        std::iter::successors(Some(first), halve).take(self.depths.len()).collect()
    }

    /// The map of each level for an image of `height` x `width` pixels.
    pub fn maps(&self, height: usize, width: usize) -> MapSizes {
        let [rows, columns] = [height, width].map(|side| self.map_sides(side));
        let positions = rows.iter().zip(&columns).map(|(&h, &w)| count(h) * count(w));
        let map = |(level, positions)| MapSize { positions, dim: self.dim(level) };
        MapSizes { image: [height, width], levels: positions.enumerate().map(map).collect() }
    }

    /// Bytes of f32 that a pass over one image of `height` x `width` pixels holds at once, at least: the input as
    /// it was prepared and as a tensor, a level's map, its queries, keys and values, and what the attention makes
    /// of them.
    pub fn least_bytes(&self, height: usize, width: usize) -> u64 {
        const HELD: u128 = 5 * size_of::<f32>() as u128;
        let (hs, ws) = (self.map_sides(height), self.map_sides(width));
        let level = |l: usize| HELD * hs[l] as u128 * ws[l] as u128 * self.dim(l) as u128;
        let input = 2 * 3 * size_of::<f32>() as u128 * height as u128 * width as u128;
        u64::try_from(input + (0..self.depths.len()).map(level).max().unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// Walks over the backbone at `scope`, counting as the authors' tool does (fvcore with NATTEN's handles):
    /// convolutions, linear layers, both products of the attention, one for each bias it adds, and five for each
    /// value a layer norm normalises; activations, softmax and residual additions are free.
    pub(crate) fn walk(&self, recipe: &Recipe, scope: &Scope, maps: &MapSizes, inventory: &mut Inventory) {
        self.family.kind().walk(self, recipe, scope, maps, inventory);
        let first = match self.norms {
            Norms::Final => maps.levels.len().saturating_sub(1),
            Norms::Outputs | Norms::Absent => 0,
        };
        for (norm, map) in self.norm_specs(recipe, scope).iter().zip(&maps.levels[first..]) {
            norm.walk(map.positions, inventory);
        }
    }
}
