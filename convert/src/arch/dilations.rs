//! Dilations as people write them.

use std::{fmt, str::FromStr};

/// Dilations as a user writes them: levels split by `/`, a level's list repeats along the level.
///
/// `1,8/1,4/1,2/1` is DiNAT at 224.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dilations(Vec<Vec<usize>>);

impl Dilations {
    /// Dilations of these levels.
    ///
    /// # Errors
    /// When there is no level, a level is empty, or a dilation is not from 1 to 4096.
    pub fn new(levels: Vec<Vec<usize>>) -> Result<Self, DilationsError> {
        if levels.is_empty() || levels.iter().any(Vec::is_empty) {
            return Err(DilationsError("a level without dilations (write levels like 1,8/1,4/1,2/1)".into()));
        }
        match levels.iter().flatten().find(|d| !(1..=4096).contains(*d)) {
            Some(d) => Err(DilationsError(format!("dilation {d} is not a number from 1 to 4096"))),
            None => Ok(Self(levels)),
        }
    }

    /// The shortest way to write the dilations of every block: each level's list without its
    /// repetitions.
    pub fn shortest(blocks: &[Vec<usize>]) -> Self {
        let period = |level: &Vec<usize>| {
            let fits = |p: &usize| level.iter().zip(&level[*p..]).all(|(a, b)| a == b);
            level[..(1..level.len()).find(fits).unwrap_or(level.len())].to_vec()
        };
        Self(blocks.iter().map(period).collect())
    }

    /// The dilation of every block of levels with these depths: a shorter list repeats, of a longer
    /// one the first `depth` count.
    ///
    /// # Errors
    /// When the number of levels differs.
    pub fn expand(&self, depths: &[usize]) -> Result<Vec<Vec<usize>>, DilationsError> {
        if self.0.len() != depths.len() {
            return Err(DilationsError(format!(
                "dilations `{self}` have {} level(s), the network has {}",
                self.0.len(),
                depths.len()
            )));
        }
        Ok(self
            .0
            .iter()
            .zip(depths)
            .map(|(list, &depth)| list.iter().copied().cycle().take(depth).collect())
            .collect())
    }
}

/// A dilation list that can't be read or does not fit the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DilationsError(String);

impl FromStr for Dilations {
    type Err = DilationsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |item: &str| match item.trim().parse::<usize>() {
            Ok(d) if (1..=4096).contains(&d) => Ok(d),
            _ => Err(DilationsError(format!(
                "`{item}` in dilations `{text}` is not a number from 1 to 4096 (write levels like 1,8/1,4/1,2/1)"
            ))),
        };
        let levels = text.split('/').map(|level| level.split(',').map(number).collect());
        Self::new(levels.collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Dilations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = |l: &Vec<usize>| l.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        f.write_str(&self.0.iter().map(level).collect::<Vec<_>>().join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dilations_repeat_along_their_level() {
        let d: Dilations = "1,8/1,4/1,2/1".parse().unwrap();
        assert_eq!(d.expand(&[3, 1, 2, 2]).unwrap(), [vec![1, 8, 1], vec![1], vec![1, 2], vec![1, 1]]);
        assert_eq!(d.to_string(), "1,8/1,4/1,2/1");
        for bad in ["", "1,/2", "0", "1,x", "99999"] {
            assert!(bad.parse::<Dilations>().is_err(), "{bad}");
        }
        assert_eq!(Dilations::shortest(&d.expand(&[3, 4, 18, 5]).unwrap()), d);
        assert_eq!(Dilations::shortest(&[vec![1, 28, 1]]).to_string(), "1,28");
        assert!(Dilations::new(vec![vec![1], vec![]]).is_err());
        assert!(d.expand(&[1, 1]).unwrap_err().to_string().contains("4 level(s), the network has 2"));
    }
}
