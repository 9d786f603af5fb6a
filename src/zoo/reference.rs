//! What a user may call a model: a name from `weights.toml`, or a repository of the Hub.

use std::{fmt, str::FromStr};

use nat_convert::zoo::{Entry, UnknownModel, by_hub, find};

/// The revision of a repository where none is named.
const MAIN: &str = "main";

/// A model that is named, not a file.
///
/// ```
/// use nat_infer::zoo::Reference;
///
/// assert!(matches!("nat-tiny".parse()?, Reference::Entry(_)));
/// assert!(matches!("user/my-dinat@v2".parse()?, Reference::Repository(_)));
/// // The repository of a published model is that model.
/// assert!(matches!("shi-labs/nat-tiny-in1k-224".parse()?, Reference::Entry(_)));
/// # Ok::<(), nat_infer::zoo::ReferenceError>(())
/// ```
#[derive(Clone, Debug)]
pub enum Reference {
    /// A published model.
    Entry(&'static Entry),
    /// Somebody's repository on the Hub.
    Repository(Repository),
}

/// A repository of the Hub at a revision. Its parts are safe as names of folders and in addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    name: String,
    revision: Option<String>,
}

/// A name that is neither a model's nor a repository's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum ReferenceError {
    #[error(transparent)]
    Unknown(#[from] UnknownModel),
    /// What has a slash is taken for a repository.
    #[error(
        "`{name}` is no repository of the Hub: those are written user/repo or user/repo@revision ({what})"
    )]
    Repository { name: String, what: &'static str },
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Names with a slash are repositories, `user/repo` or `user/repo@revision`; all others are names
    /// from `weights.toml`. The repository of a published model is that model unless a revision is
    /// named.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if !text.contains('/') {
            return Ok(Self::Entry(find(text)?));
        }
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let repository = Repository::new(name, revision)?;
        let published = by_hub(name).filter(|_| revision.is_none());
        Ok(published.map_or(Self::Repository(repository), Self::Entry))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(entry) => f.write_str(&entry.name),
            Self::Repository(repository) => repository.fmt(f),
        }
    }
}

impl Repository {
    /// The repository `name`, as `user/repo`, at `revision`: a branch, a tag or a commit; `None` is
    /// the main branch.
    ///
    /// # Errors
    /// When the Hub has no such names, or they would leave their folder in the cache.
    pub fn new(name: &str, revision: Option<&str>) -> Result<Self, ReferenceError> {
        let whole = || [Some(name), revision].into_iter().flatten().collect::<Vec<_>>().join("@");
        let refuse = |what| Err(ReferenceError::Repository { name: whole(), what });
        let Some((user, repo)) = name.split_once('/').filter(|(_, repo)| !repo.contains('/')) else {
            return refuse("there is one slash in it");
        };
        let plain = |part: &str, others: &[u8]| {
            part.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b)) && !part.contains("..")
        };
        let is_name = |part: &str| {
            let inside = |c| !part.starts_with(c) && !part.ends_with(c);
            plain(part, b"._-") && !part.contains("--") && inside('.') && inside('-')
        };
        if [user, repo].iter().any(|part| part.is_empty() || part.len() > 96) {
            return refuse("the user and the repository have 1 to 96 characters each");
        }
        if !is_name(user) || !is_name(repo) {
            return refuse("letters, digits, and . _ - inside, not doubled");
        }
        let is_step = |step: &str| !step.is_empty() && !step.starts_with('.') && step.len() <= 200;
        if revision.is_some_and(|r| !plain(r, b"._-+/") || !r.split('/').all(is_step)) {
            return refuse("a revision is a branch, a tag or a commit");
        }
        Ok(Self { name: name.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// `user/repo`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The branch, tag or commit; `main` where none was named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// Whether no revision was named.
    pub fn is_main(&self) -> bool {
        self.revision.is_none()
    }

    /// The commit, if the revision is a whole one: 40 hexadecimal digits, which never mean another.
    pub fn commit(&self) -> Option<&str> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        self.revision.as_deref().filter(|r| r.len() == 40 && r.bytes().all(is_digit))
    }

    /// Its page under the address `hub`.
    pub fn page(&self, hub: &str) -> String {
        match &self.revision {
            Some(revision) => format!("{hub}/{}/tree/{revision}", self.name),
            None => format!("{hub}/{}", self.name),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_models_and_slashes_are_repositories() {
        for (text, says, is_entry) in [
            ("NAT_tiny", "nat-tiny", true),
            ("shi-labs/nat-mini-in1k-224", "nat-mini", true),
            ("shi-labs/nat-mini-in1k-224@main", "shi-labs/nat-mini-in1k-224@main", false),
            ("user/repo", "user/repo", false),
            ("us.er_1/my-net.v2@refs/pr/3", "us.er_1/my-net.v2@refs/pr/3", false),
            ("a/b@v1.0", "a/b@v1.0", false),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(
                (reference.to_string().as_str(), matches!(reference, Reference::Entry(_))),
                (says, is_entry)
            );
        }
        let error = "nat-tny".parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains("the nearest names are nat-tiny"), "{error}");
    }

    #[test]
    fn a_repository_has_a_revision_and_perhaps_a_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (revision, named, is_commit) in [
            (None, "main", false),
            (Some("v1"), "v1", false),
            (Some(commit), commit, true),
            (Some(&commit[1..]), &commit[1..], false),
            (Some(&commit.to_uppercase()), &commit.to_uppercase(), false),
        ] {
            let repository = Repository::new("a/b", revision).unwrap();
            assert_eq!((repository.revision(), repository.commit().is_some()), (named, is_commit));
        }
    }

    #[test]
    fn odd_names_are_refused_in_one_line() {
        for name in [
            "/",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a/b..c",
            "a/.b",
            "a/b-",
            "a--b/c",
            "a/b c",
            "a/b\u{1b}[31m",
            "a/ü",
            "a\\b/c",
            "https://huggingface.co/a/b",
            "a/b@",
            "a/b@..",
            "a/b@../../x",
            "a/b@x/",
            "a/b@/x",
            "a/b@.x",
            "a/b@x/.y",
            "a/b@x y",
            "a/b@x@y",
            "a/b@x?y",
            "a/b@x%2Fy",
            &format!("a/{}", "b".repeat(97)),
        ] {
            let error = name.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains("is no repository of the Hub"), "{name}: {error}");
            assert_eq!(error.lines().count(), 1, "{name}");
        }
    }
}
