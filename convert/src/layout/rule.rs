//! Where tensors of a file go.

/// Where a tensor of the file goes.
pub(super) enum Rule {
    /// To a canonical name, whole.
    Whole(String),
    /// To a canonical name, as one of the three parts of a stacked tensor.
    Third(String, usize),
    /// Its rows to two canonical names.
    Rows([String; 2]),
}

impl Rule {
    pub fn names(&self) -> Vec<String> {
        match self {
            Rule::Whole(name) | Rule::Third(name, _) => vec![name.clone()],
            Rule::Rows(names) => names.to_vec(),
        }
    }
}
