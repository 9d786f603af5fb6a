//! What a fetched file was when it came: its SHA-256, in a file beside it that `sha256sum --check`
//! reads. A comment in that says the file's size and when it was written, so that a file which no one
//! has touched is not read again.

use std::{
    ffi::OsString,
    fs::Metadata,
    io::{self, Write},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::digest::digest;

/// A file that is not what it should be.
#[derive(Debug)]
pub(super) struct Altered {
    /// The SHA-256 that it should have.
    pub wanted: String,
    /// The one that it has.
    pub found: String,
}

/// What is known of a file.
struct HashRecord {
    sha256: String,
    /// [`stamp`] of the file that was hashed, where the record has it.
    stamp: Option<String>,
}

/// Where the record of `file` lies: `<file>.sha256`.
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut path = OsString::from(file);
    path.push(".sha256");
    path.into()
}

/// The SHA-256 that is recorded of `file`, whether or not the file is there.
pub(super) fn recorded(file: &Path) -> Option<String> {
    Some(read(file)?.sha256)
}

/// Records that `file` has this SHA-256; what watches the record sees a whole one or none.
///
/// # Errors
/// When the folder can't be written to.
pub(super) fn write(file: &Path, sha256: &str) -> io::Result<()> {
    let text = format!("{sha256}  {}\n{}\n", name(file), stamp(&file.metadata()?));
    let mut temporary = temporary(file)?;
    temporary.write_all(text.as_bytes())?;
    temporary.persist(beside(file))?;
    Ok(())
}

/// Holds `file` against `wanted`, or else against its record. A file without either is recorded as it
/// is, if its folder can be written to.
///
/// # Errors
/// When the file can't be read.
pub(super) fn check(file: &Path, wanted: Option<&str>) -> io::Result<Result<(), Altered>> {
    let known = read(file);
    let now = stamp(&file.metadata()?);
    let compare = |found: &str, wanted: &str| match found.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => Err(Altered { wanted: wanted.to_owned(), found: found.to_owned() }),
    };
    if let Some(record) = known.as_ref().filter(|record| record.stamp.as_deref() == Some(&*now)) {
        return Ok(compare(&record.sha256, wanted.unwrap_or(&record.sha256)));
    }
    let wanted = wanted.or(known.as_ref().map(|record| &*record.sha256));
    if wanted.is_none() && temporary(file).is_err() {
        // Whoever can't write it down need not find it out each time.
        return Ok(Ok(()));
    }
    let found = digest(file)?;
    let same = compare(&found, wanted.unwrap_or(&found));
    if same.is_ok() {
        // A cache that can only be read is as good; it takes longer.
        write(file, &found).ok();
    }
    Ok(same)
}

/// Whether `text` is a SHA-256 in hexadecimal digits.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn read(file: &Path) -> Option<HashRecord> {
    let text = std::fs::read_to_string(beside(file)).ok()?;
    let hash = text.lines().filter(|line| !line.starts_with('#')).find_map(|line| line.split(' ').next());
    let sha256 = hash.filter(|hash| is_sha256(hash))?.to_ascii_lowercase();
    Some(HashRecord { sha256, stamp: text.lines().find(|line| line.starts_with('#')).map(str::to_owned) })
}

/// What changes when a file is written to, as the record's comment says it.
fn stamp(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified =
        modified.map_or("unknown".to_owned(), |t| format!("{}.{:09}", t.as_secs(), t.subsec_nanos()));
    format!("# size {}, modified {modified}", metadata.len())
}

fn temporary(file: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // Readable for all whom the umask lets read the file itself.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".sha256").tempfile_in(file.parent().unwrap_or(Path::new(".")))
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// SHA-256 of `abc`, of FIPS 180-2.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_record_is_what_sha256sum_writes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pth");
        std::fs::write(&file, "abc").unwrap();
        check(&file, None).unwrap().unwrap();
        let text = std::fs::read_to_string(folder.path().join("a.pth.sha256")).unwrap();
        assert_eq!(text.lines().next(), Some(&*format!("{ABC}  a.pth")));
        assert!(text.contains("\n# size 3, modified "), "{text}");
        assert_eq!(recorded(&file).as_deref(), Some(ABC));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

        // Of its own, in capitals, without a comment, and of no use.
        for (record, known) in
            [(format!("{} *a.pth\n", ABC.to_uppercase()), true), ("# x\nabc".to_owned(), false)]
        {
            std::fs::write(beside(&file), record).unwrap();
            assert_eq!(recorded(&file).is_some(), known);
            check(&file, None).unwrap().unwrap();
            assert_eq!(std::fs::read_to_string(beside(&file)).unwrap(), text);
        }
    }

    #[test]
    fn a_file_that_changed_is_found_out_and_one_that_was_touched_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pth");
        let refused = |wanted: Option<&str>| check(&file, wanted).unwrap().err().map(|a| (a.wanted, a.found));
        std::fs::write(&file, "abd").unwrap();
        let other = digest(&file).unwrap();
        assert_eq!(refused(Some(ABC)), Some((ABC.to_owned(), other.clone())));
        assert_eq!(recorded(&file), None);

        std::fs::write(&file, "abc").unwrap();
        assert_eq!(refused(Some(&ABC.to_uppercase())), None);
        assert_eq!(refused(Some(&other)), Some((other.clone(), ABC.to_owned())));
        let later = UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!(refused(None), None);
        assert!(std::fs::read_to_string(beside(&file)).unwrap().contains("modified 1000000000.000000000"));

        std::fs::write(&file, "abd").unwrap();
        assert_eq!(refused(None), Some((ABC.to_owned(), other.clone())));
        assert_eq!(recorded(&file).as_deref(), Some(ABC));

        // What has not been touched is not read: a record that is wrong of it is believed.
        write(&file, ABC).unwrap();
        assert_eq!(refused(None), None);
    }
}
