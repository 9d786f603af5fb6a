//! What networks are made of: modules that know the names and shapes of their tensors, and what they compute.
//!
//! A module is described by its widths once. A walk over a network meets every module with the number of positions
//! that it is applied at, and an [`Inventory`] keeps what the walk meets; so tensors, parameters and
//! multiply-accumulates come from the same description, which is also what layers are loaded by.

use std::fmt;
use std::num::Saturating;

/// A count that stops at the largest number, since a file may claim widths of any size.
pub type Count = Saturating<u64>;

/// A number as a [`Count`].
pub fn count(n: usize) -> Count {
    Saturating(n as u64)
}

/// The sum of counts.
pub(crate) fn sum(counts: impl IntoIterator<Item = Count>) -> Count {
    counts.into_iter().fold(count(0), |sum, n| sum + n)
}

/// A tensor that a network has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Its canonical name, in full.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Whether training learns it, as it does not learn the statistics of a BatchNorm.
    pub learnt: bool,
}

/// Where a module stands in its network: what the names of its tensors begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// The scope below this one that is called `name`.
    #[must_use]
    pub fn at(&self, name: impl fmt::Display) -> Self {
        if self.0.is_empty() { Self(name.to_string()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The learnt tensor `name` of this module.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Weight {
        Weight { name: self.at(name).0, shape: shape.to_vec(), learnt: true }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a walk over a network has met.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The tensors, in the order in which the original code declares them.
    pub weights: Vec<Weight>,
    /// Multiply-accumulates.
    pub macs: Count,
}

impl Inventory {
    /// Takes a tensor.
    pub fn take(&mut self, weight: &Weight) {
        self.weights.push(weight.clone());
    }

    /// Learnable parameters: the values of every tensor but BatchNorm's running statistics.
    pub fn parameters(&self) -> u64 {
        let values = |weight: &Weight| weight.shape.iter().fold(count(1), |values, &n| values * count(n));
        sum(self.weights.iter().filter(|weight| weight.learnt).map(values)).0
    }
}

/// A linear layer: `weight` `[outputs, inputs]` and, unless it has none, `bias` `[outputs]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// Values of a row that goes in.
    pub inputs: usize,
    /// Values of a row that comes out.
    pub outputs: usize,
    /// `[outputs, inputs]`.
    pub weight: Weight,
    /// `[outputs]`.
    pub bias: Option<Weight>,
}

impl LinearSpec {
    /// The layer at `scope`.
    pub fn new(scope: &Scope, inputs: usize, outputs: usize, bias: bool) -> Self {
        Self {
            inputs,
            outputs,
            weight: scope.weight("weight", &[outputs, inputs]),
            bias: bias.then(|| scope.weight("bias", &[outputs])),
        }
    }

    /// Takes the layer on so many `rows`.
    pub fn walk(&self, rows: Count, inventory: &mut Inventory) {
        inventory.take(&self.weight);
        self.bias.iter().for_each(|bias| inventory.take(bias));
        inventory.macs += rows * count(self.inputs) * count(self.outputs);
    }
}

/// The square window of a convolution, in positions of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the window.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: usize,
}

impl Window {
    /// One position by itself.
    pub const POINT: Self = Self { kernel: 1, stride: 1, padding: 0 };
    /// 3x3, and as many positions out as in.
    pub const SAME: Self = Self { kernel: 3, stride: 1, padding: 1 };
    /// 3x3, and half the positions of each side out.
    pub const HALVE: Self = Self { kernel: 3, stride: 2, padding: 1 };

    /// Side by side, `side` positions each.
    pub const fn patches(side: usize) -> Self {
        Self { kernel: side, stride: side, padding: 0 }
    }
}

/// A convolution: `weight` `[outputs, inputs, kernel, kernel]` and, unless it has none, `bias` `[outputs]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// What a position of the output sees.
    pub window: Window,
    /// `[outputs, inputs, kernel, kernel]`.
    pub weight: Weight,
    /// `[outputs]`.
    pub bias: Option<Weight>,
}

impl ConvSpec {
    /// The convolution at `scope`.
    pub fn new(scope: &Scope, inputs: usize, outputs: usize, window: Window, bias: bool) -> Self {
        Self {
            inputs,
            outputs,
            window,
            weight: scope.weight("weight", &[outputs, inputs, window.kernel, window.kernel]),
            bias: bias.then(|| scope.weight("bias", &[outputs])),
        }
    }

    /// Takes the convolution with so many positions of its output.
    pub fn walk(&self, positions: Count, inventory: &mut Inventory) {
        inventory.take(&self.weight);
        self.bias.iter().for_each(|bias| inventory.take(bias));
        let taps = count(self.window.kernel) * count(self.window.kernel);
        inventory.macs += positions * count(self.inputs) * count(self.outputs) * taps;
    }
}

/// A transposed convolution whose windows lie side by side: every position becomes `side` x `side` ones. `weight`
/// `[inputs, outputs, side, side]` and `bias` `[outputs]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpsamplingSpec {
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Positions of the output for one of the input, along each side.
    pub side: usize,
    /// `[inputs, outputs, side, side]`.
    pub weight: Weight,
    /// `[outputs]`.
    pub bias: Weight,
}

impl UpsamplingSpec {
    /// The convolution at `scope`.
    pub fn new(scope: &Scope, inputs: usize, outputs: usize, side: usize) -> Self {
        Self {
            inputs,
            outputs,
            side,
            weight: scope.weight("weight", &[inputs, outputs, side, side]),
            bias: scope.weight("bias", &[outputs]),
        }
    }

    /// Takes the convolution with so many positions of its input.
    pub fn walk(&self, positions: Count, inventory: &mut Inventory) {
        inventory.take(&self.weight);
        inventory.take(&self.bias);
        let taps = count(self.side) * count(self.side);
        inventory.macs += positions * count(self.inputs) * count(self.outputs) * taps;
    }
}

/// A layer norm: `weight` and `bias` `[dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormSpec {
    /// Channels.
    pub dim: usize,
    /// What is added to the variance.
    pub epsilon: f64,
    /// `[dim]`.
    pub weight: Weight,
    /// `[dim]`.
    pub bias: Weight,
}

impl LayerNormSpec {
    /// Multiply-accumulates of each value, as fvcore counts.
    const EACH: Count = Saturating(5);

    /// The norm at `scope`.
    pub fn new(scope: &Scope, dim: usize, epsilon: f64) -> Self {
        let [weight, bias] = ["weight", "bias"].map(|name| scope.weight(name, &[dim]));
        Self { dim, epsilon, weight, bias }
    }

    /// Takes the norm on so many `positions`.
    pub fn walk(&self, positions: Count, inventory: &mut Inventory) {
        inventory.take(&self.weight);
        inventory.take(&self.bias);
        inventory.macs += Self::EACH * positions * count(self.dim);
    }
}

/// A BatchNorm as it is after training: `weight`, `bias`, `running_mean` and `running_var`, each `[dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormSpec {
    /// Channels.
    pub dim: usize,
    /// What is added to the variance.
    pub epsilon: f64,
    /// `[dim]`.
    pub weight: Weight,
    /// `[dim]`.
    pub bias: Weight,
    /// `[dim]`.
    pub mean: Weight,
    /// `[dim]`.
    pub variance: Weight,
}

impl BatchNormSpec {
    /// Multiply-accumulates of each value, as fvcore counts.
    const EACH: Count = Saturating(2);

    /// The norm at `scope`.
    pub fn new(scope: &Scope, dim: usize, epsilon: f64) -> Self {
        let [weight, bias] = ["weight", "bias"].map(|name| scope.weight(name, &[dim]));
        let [mean, variance] = ["running_mean", "running_var"]
            .map(|name| Weight { learnt: false, ..scope.weight(name, &[dim]) });
        Self { dim, epsilon, weight, bias, mean, variance }
    }

    /// Takes the norm on so many `positions`.
    pub fn walk(&self, positions: Count, inventory: &mut Inventory) {
        for weight in [&self.weight, &self.bias, &self.mean, &self.variance] {
            inventory.take(weight);
        }
        inventory.macs += Self::EACH * positions * count(self.dim);
    }
}

/// OpenMMLab's `ConvModule`: a convolution without bias (`conv`), its BatchNorm (`bn`), and ReLU.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvModuleSpec {
    /// Without bias.
    pub conv: ConvSpec,
    /// What normalises its output.
    pub norm: BatchNormSpec,
}

impl ConvModuleSpec {
    /// The module at `scope`.
    pub fn new(scope: &Scope, inputs: usize, outputs: usize, window: Window, epsilon: f64) -> Self {
        Self {
            conv: ConvSpec::new(&scope.at("conv"), inputs, outputs, window, false),
            norm: BatchNormSpec::new(&scope.at("bn"), outputs, epsilon),
        }
    }

    /// Takes the module with so many positions of its output.
    pub fn walk(&self, positions: Count, inventory: &mut Inventory) {
        self.conv.walk(positions, inventory);
        self.norm.walk(positions, inventory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_their_tensors_and_macs() {
        let scope = Scope::default().at("a").at(0);
        type Walk = fn(&Scope, &mut Inventory);
        type Shaped = &'static [(&'static str, &'static [usize])];
        let cases: [(Walk, Shaped, u64, u64); 6] = [
            (
                |scope, all| LinearSpec::new(scope, 3, 2, true).walk(count(10), all),
                &[("a.0.weight", &[2, 3]), ("a.0.bias", &[2])],
                8,
                60,
            ),
            (
                |scope, all| ConvSpec::new(scope, 3, 2, Window::HALVE, false).walk(count(10), all),
                &[("a.0.weight", &[2, 3, 3, 3])],
                54,
                540,
            ),
            (
                |scope, all| UpsamplingSpec::new(scope, 3, 5, 2).walk(count(10), all),
                &[("a.0.weight", &[3, 5, 2, 2]), ("a.0.bias", &[5])],
                65,
                600,
            ),
            (
                |scope, all| LayerNormSpec::new(scope, 4, 1e-5).walk(count(10), all),
                &[("a.0.weight", &[4]), ("a.0.bias", &[4])],
                8,
                200,
            ),
            (
                |scope, all| BatchNormSpec::new(scope, 4, 1e-5).walk(count(10), all),
                &[
                    ("a.0.weight", &[4]),
                    ("a.0.bias", &[4]),
                    ("a.0.running_mean", &[4]),
                    ("a.0.running_var", &[4]),
                ],
                8,
                80,
            ),
            (
                |scope, all| ConvModuleSpec::new(scope, 1, 2, Window::POINT, 1e-5).walk(count(10), all),
                &[
                    ("a.0.conv.weight", &[2, 1, 1, 1]),
                    ("a.0.bn.weight", &[2]),
                    ("a.0.bn.bias", &[2]),
                    ("a.0.bn.running_mean", &[2]),
                    ("a.0.bn.running_var", &[2]),
                ],
                6,
                60,
            ),
        ];
        for (walk, weights, parameters, macs) in cases {
            let mut all = Inventory::default();
            walk(&scope, &mut all);
            let met: Vec<_> = all.weights.iter().map(|w| (w.name.as_str(), w.shape.as_slice())).collect();
            assert_eq!(met, weights);
            assert_eq!((all.parameters(), all.macs.0), (parameters, macs), "{weights:?}");
        }
        assert_eq!(Scope::default().weight("head", &[1]).name, "head");
    }
}
