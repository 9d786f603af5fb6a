//! `INPUT...`: the images of a command.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nat_infer::images::{Exif, Limits};
use nat_infer::pipeline::{Listing, Location, Source, SourceError};

use super::verbosity::Verbosity;

/// Which images.
#[derive(Args)]
#[command(next_help_heading = "Images")]
pub struct ImageOptions {
    /// Image, folder of images, glob, http(s) address, or - for an image on stdin
    #[arg(required_unless_present = "files_from", value_name = "INPUT", help_heading = None)]
    pub inputs: Vec<PathBuf>,
    /// Search folders with all below them
    #[arg(short, long)]
    pub recursive: bool,
    /// File with more inputs, one per line; - for such a list on stdin
    #[arg(long, value_name = "FILE")]
    pub files_from: Option<PathBuf>,
    /// The inputs in --files-from end with a NUL byte, as `find -print0` writes them
    #[arg(short = '0', long, requires = "files_from")]
    pub null: bool,
    /// Do share I of N: inputs I, I+N, I+2N, ... in their order, so that N processes do each input once
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// What to do with the orientation that a camera wrote into the file
    #[arg(long, value_enum, default_value = "apply")]
    pub exif: ExifName,
}

/// `--exif`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExifName {
    /// Turn the image upright
    Apply,
    /// Leave it as stored, as the published accuracies of classifiers were measured
    Ignore,
}

impl From<ExifName> for Exif {
    fn from(name: ExifName) -> Self {
        match name {
            ExifName::Apply => Self::Apply,
            ExifName::Ignore => Self::Ignore,
        }
    }
}

/// `--shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// From 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.count
    }

    /// Whether input `number`, from 0, is of it.
    pub fn has(self, number: usize) -> bool {
        number % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let fits = |&(index, count): &(usize, usize)| (1..=count).contains(&index);
        let (index, count) = numbers.filter(fits).ok_or("a share such as 1/4 is wanted, from 1/N to N/N")?;
        Ok(Self { index, count })
    }
}

impl ImageOptions {
    /// Names every image; none is opened. Standard input is read now: waiting for it must not keep a Ctrl-C waiting.
    ///
    /// # Errors
    /// When the list of --files-from can't be read.
    pub fn list(&self, verbosity: Verbosity) -> Result<Vec<Result<Source, SourceError>>> {
        let mut stdin = || limited(io::stdin().lock());
        let mut listing = Listing::expand(&self.inputs, self.recursive, &mut stdin);
        if let Some(path) = &self.files_from {
            let from_stdin = path == Path::new("-");
            if from_stdin && self.inputs.iter().any(|input| input == path) {
                bail!("--files-from -: standard input is an image already");
            }
            let list = match from_stdin {
                true => limited(io::stdin().lock()),
                false => File::open(path).and_then(limited),
            };
            let list = list.with_context(|| format!("--files-from {}", path.display()))?;
            let mut stdin = || match from_stdin {
                true => Err(io::Error::other("it has the list of inputs")),
                false => limited(io::stdin().lock()),
            };
            listing.append(Listing::expand_list(&list, self.null, self.recursive, &mut stdin));
        }
        for line in &listing.passed_over {
            verbosity.explain("inputs", line);
        }
        if listing.sources.is_empty() {
            bail!("--files-from names no input");
        }
        Ok(listing.sources)
    }

    /// Leaves the images of --shard.
    pub fn take_share(&self, sources: &mut Vec<Result<Source, SourceError>>) {
        if let Some(Shard { index, count }) = self.shard {
            let mut listing = Listing { sources: std::mem::take(sources), ..Listing::default() };
            listing.shard(index, count);
            *sources = listing.sources;
        }
    }
}

/// The files among the images.
pub fn files(sources: &[Result<Source, SourceError>]) -> impl Iterator<Item = &Path> {
    sources.iter().flatten().filter_map(|source| match &source.place {
        Location::File(path) => Some(path.as_path()),
        Location::Member { archive, .. } => Some(archive.path()),
        Location::Url(_) | Location::Memory { .. } | Location::Pixels { .. } => None,
    })
}

/// All of a stream, up to what an image may have.
fn limited(stream: impl Read) -> io::Result<Vec<u8>> {
    let limit = Limits::default().memory;
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("more than the limit of {} MiB", limit >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_promised() {
        for (text, shard) in [
            ("1/1", Some([1, 1])),
            ("2/3", Some([2, 3])),
            ("3/3", Some([3, 3])),
            ("0/3", None),
            ("4/3", None),
            ("1/0", None),
            ("1", None),
            ("/", None),
            ("-1/2", None),
        ] {
            let read = text.parse::<Shard>().ok().map(|shard| [shard.index, shard.count]);
            assert_eq!(read, shard, "{text}");
        }
    }
}
