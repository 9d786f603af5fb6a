//! How large networks are: parameters, and multiply-accumulates of an image.

use std::num::Saturating;

use crate::arch::{Architecture, Backbone, Detector, Family, Head, Norms};
use crate::recipe::{DetectorRecipe, SegmenterRecipe};

/// A count that stops at the largest number, since a file may claim widths of any size.
type Count = Saturating<u64>;

fn count(n: usize) -> Count {
    Saturating(n as u64)
}

/// The sum of counts.
fn sum(counts: impl IntoIterator<Item = Count>) -> Count {
    counts.into_iter().fold(Saturating(0), |sum, n| sum + n)
}

impl Detector {
    /// Multiply-accumulates of everything behind the backbone, whose `maps` have so many positions and
    /// channels: convolutions and linear layers alone, as mmdet's tool counts.
    fn macs(&self, recipe: &DetectorRecipe, maps: &[(Count, Count)]) -> Count {
        let [f, m, classes] = [self.fpn_channels, self.mask_channels, self.classes].map(count);
        let [box_channels, fc_channels] = [self.box_channels, self.fc_channels].map(count);
        let square = count(9) * f * f;
        // Of each position: region proposals, four deltas and a score of each anchor.
        let proposals = square + count(5 * recipe.anchors.count()) * f;
        // With the fifth map.
        let last = maps.last().map_or(count(0), |&(positions, _)| positions / count(4));
        let pyramid = sum(maps.iter().map(|&(positions, dim)| positions * (dim * f + square + proposals)));
        let convs = |number: usize, inputs: Count, channels: Count| match number {
            0 => count(0),
            _ => count(9) * channels * (inputs + count(number - 1) * channels),
        };
        let boxes = if self.class_agnostic { count(1) } else { classes };
        let flat = count(49) * box_channels;
        let (hidden, features) = match self.box_fcs {
            0 => (count(0), flat),
            fcs => ((flat + count(fcs - 1) * fc_channels) * fc_channels, fc_channels),
        };
        let outputs = (classes + count(1) + count(4) * boxes) * features;
        let region = count(49) * convs(self.box_convs, f, box_channels) + hidden + outputs;
        let upsampled = count(4 * 196) * m * (m + classes);
        let object = count(196) * convs(self.mask_convs, f, m) + upsampled;
        let regions = count(recipe.proposals.most) * region + count(recipe.max_detections) * object;
        pyramid + last * proposals + count(self.stages) * regions
    }
}

/// Multiply-accumulates of UPerNet behind the backbone, whose `maps` have so many positions and channels:
/// its convolutions, two for each value that a BatchNorm scales, four for each that is interpolated, up to
/// the logits of all `pixels` of the input.
fn upernet_macs(
    [classes, channels]: [Count; 2],
    recipe: &SegmenterRecipe,
    maps: &[(Count, Count)],
    pixels: Count,
) -> Count {
    let (Some(&(finest, _)), Some((&(coarsest, last), lower))) = (maps.first(), maps.split_last()) else {
        return count(0);
    };
    let below = sum(lower.iter().map(|&(n, _)| n));
    let modules = count(recipe.pool_scales.len());
    let pools = sum(recipe.pool_scales.iter().map(|&side| count(side) * count(side)));
    let pooled = pools * last * channels + coarsest * count(9) * (last + modules * channels) * channels;
    let pyramid = sum(lower.iter().map(|&(n, dim)| n * (dim + count(9) * channels) * channels));
    let fused = finest * channels * (count(9 * maps.len()) * channels + classes);
    let normed = (pools + coarsest + count(2) * below + finest) * channels;
    let interpolated =
        (modules * coarsest + below + count(lower.len()) * finest) * channels + pixels * classes;
    pooled + pyramid + fused + count(2) * normed + count(4) * interpolated
}

impl Backbone {
    /// Multiply-accumulates of one image of `height` x `width` pixels, counted as the authors' tool
    /// does (fvcore with NATTEN's handles): convolutions, linear layers, both products of the
    /// attention, one for each bias it adds, and five for each value a layer norm normalises;
    /// activations, softmax and residual additions are free.
    pub fn macs(&self, height: usize, width: usize) -> u64 {
        const NORM: Count = Saturating(5);
        let maps = self.maps(height, width);
        let [e, patch, kernel] = [self.embed_dim, self.patch_size, self.kernel_size].map(count);
        let mut total = match self.family {
            Family::Nat => {
                count(height.div_ceil(2)) * count(width.div_ceil(2)) * (e / count(2)) * count(27)
                    + maps[0].0 * e * (e / count(2)) * count(9)
            }
            _ => maps[0].0 * e * count(3) * patch * patch,
        };
        total += NORM * maps[0].0 * e;
        for (l, &depth) in self.depths.iter().enumerate() {
            let (area, dim) = maps[l];
            // ViT-rpb gathers its bias with PyTorch's own operators, whose additions are free.
            let (keys, biases) = match self.family {
                Family::VitRpb => (area, count(0)),
                _ => {
                    let heads = count(if self.rpb { self.num_heads[l] } else { 0 });
                    (kernel * kernel, heads * kernel * kernel)
                }
            };
            let linear = count(4) * dim * dim + count(2) * dim * count(self.hidden(l));
            total += count(depth) * area * (linear + count(2) * keys * dim + biases + count(2) * NORM * dim);
            if l + 1 < self.depths.len() {
                // The kernel's taps, and the channels that the norm beside the reduction sees.
                let (taps, normed) = if self.family == Family::Nat { (9, 2) } else { (4, 4) };
                total += maps[l + 1].0 * (count(taps) * dim * count(2) * dim + NORM * count(normed) * dim);
            }
        }
        let normed = |&(area, dim): &(Count, Count)| area * dim;
        total += NORM
            * match self.norms {
                Norms::Final => maps.last().map_or(count(0), normed),
                Norms::Outputs => sum(maps.iter().map(normed)),
                Norms::Absent => count(0),
            };
        total.0
    }

    /// Positions and channels of each level's map.
    fn maps(&self, height: usize, width: usize) -> Vec<(Count, Count)> {
        let [rows, columns] = [height, width].map(|side| self.map_sides(side));
        let positions = rows.iter().zip(&columns).map(|(&h, &w)| count(h) * count(w));
        positions.enumerate().map(|(l, positions)| (positions, count(self.dim(l)))).collect()
    }
}

impl Architecture {
    /// Learnable parameters: every tensor but BatchNorm's running statistics.
    pub fn parameters(&self) -> u64 {
        let counted = |(name, _): &&(String, Vec<usize>)| !name.contains(".running_");
        let tensors = self.tensors();
        let values = |shape: &[usize]| shape.iter().fold(count(1), |values, &n| values * count(n));
        sum(tensors.iter().filter(counted).map(|(_, shape)| values(shape))).0
    }

    /// Multiply-accumulates of one image of `height` x `width` pixels, as [`Backbone::macs`] counts, of
    /// a detector with all the proposals and detections that it keeps.
    pub fn macs(&self, height: usize, width: usize) -> u64 {
        let maps = self.backbone.maps(height, width);
        let head = match &self.head {
            Head::Features => count(0),
            Head::Classifier { classes } => count(self.backbone.out_dim()) * count(*classes),
            Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => {
                detector.macs(&self.recipe.detector, &maps)
            }
            &Head::Upernet { classes, channels } => {
                let pixels = count(height) * count(width);
                upernet_macs([classes, channels].map(count), &self.recipe.segmenter, &maps, pixels)
            }
        };
        (Saturating(self.backbone.macs(height, width)) + head).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo;

    /// The counts themselves are held against the published figures in [`zoo`].
    #[test]
    fn counts_of_absurd_networks_end_at_the_largest_number() {
        for entry in zoo::entries() {
            let mut network = entry.architecture.clone();
            for side in [512, 1 << 16] {
                assert!(network.macs(side, side) < u64::MAX, "{}", entry.name);
            }
            let huge = usize::MAX >> 8;
            (network.backbone.embed_dim, network.backbone.kernel_size) = (huge, huge / 2);
            match &mut network.head {
                Head::Features => {}
                Head::Classifier { classes } => *classes = huge,
                Head::MaskRcnn(detector) | Head::CascadeMaskRcnn(detector) => detector.box_fcs = 0,
                Head::Upernet { channels, .. } => *channels = huge,
            }
            assert_eq!(network.macs(512, 512), u64::MAX, "{}", entry.name);
        }
    }
}
