//! How our pictures are told from others.

/// What our PNG files say made them, as a text of this keyword: so that they can be told from anybody else's.
pub(crate) const SOFTWARE: [&str; 2] = ["Software", "nat-infer"];
