//! Files that are fetched into a cache: of repositories of the Hub and of any web server, through one
//! download function.
//!
//! The `hf-hub` crate gives the cache's layout, the names in it and the repository's listing. Its
//! download is not used: version 0.5 sends the token to whatever host a redirect names, joins a whole
//! file to a partial one where a server ignores `Range`, and compares neither size nor hash.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use hf_hub::api::RepoInfo;
use sha2::{Digest, Sha256};
use ureq::{
    Body,
    http::{Response, StatusCode, Uri},
};

pub use super::http::{Client, FetchError};

use crate::digest::{digest, hex};

use super::{
    cache::{self, CONFIG, WEIGHTS, file_name},
    http::{CHUNK, ServerOrigin, bad_address, broke_off, encoded, header, protocol, retried, shown},
    record,
    reference::Repository,
    watch::Watch,
};

/// Names the file in an I/O error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    move |source| FetchError::Io { path: path.to_owned(), source }
}

/// What a server says of a file before it sends it.
#[derive(Default)]
struct Announced {
    etag: Option<String>,
    modified: Option<String>,
    size: Option<u64>,
}

impl Announced {
    /// A name for this version of the file, where the server tells versions apart.
    fn version(&self) -> Option<String> {
        let version = self.etag.as_ref().or(self.modified.as_ref())?;
        let hash = || hex(&Sha256::digest(version)[..8]);
        Some(file_name(version).map_or_else(hash, str::to_owned))
    }
}

/// Where a download goes, all on one file system, and what it must be.
struct Target<'a> {
    /// The finished file.
    file: &'a Path,
    /// What has arrived so far.
    partial: &'a Path,
    /// Locked while one process writes.
    lock: &'a Path,
    /// The SHA-256 that it must have, beyond what the server says.
    sha256: Option<&'a str>,
    /// Whether its SHA-256 is recorded beside it, and must be that of a record which is there already.
    recorded: bool,
}

/// A download as it is shown: one, however often the connection is lost.
struct Shown<'a> {
    watch: &'a mut dyn Watch,
    url: &'a str,
    begun: bool,
    bytes: u64,
}

impl Shown<'_> {
    fn begin(&mut self, size: Option<u64>) {
        if !self.begun {
            let url = shown(self.url);
            self.watch.begin(last_part(&url), size, &url);
            self.begun = true;
        }
    }

    fn have(&mut self, bytes: u64) {
        self.watch.advance(bytes.saturating_sub(self.bytes));
        self.bytes = self.bytes.max(bytes);
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if self.begun {
            self.watch.finish();
        }
    }
}

impl Client<'_> {
    /// Fetches what is needed of a Hub repository into the Hub cache at `folder` and returns what can
    /// be loaded. That is the snapshot, with `config.json`, `preprocessor_config.json` where there is
    /// one, and the weights, as safetensors where the repository has them; or, of a repository without
    /// a configuration, its one safetensors file. Files that the cache has are not fetched again. The
    /// weights must have the SHA-256 `sha256` if one is given.
    ///
    /// # Errors
    /// [`FetchError`]; files that are whole stay in the cache, and the snapshot becomes the current
    /// one when all are.
    pub fn fetch_repository(
        &self,
        repository: &Repository,
        folder: &Path,
        sha256: Option<&str>,
        watch: &mut dyn Watch,
    ) -> Result<PathBuf, FetchError> {
        let id = cache::repo(repository);
        let place = cache::place(folder, repository);
        let url = format!("{}/api/{}", self.endpoint, id.api_url());
        let listing = retried(|| self.text(&url))?;
        let listing: RepoInfo = serde_json::from_str(&listing).map_err(|e| protocol(&url, e.to_string()))?;
        let commit =
            file_name(&listing.sha).ok_or_else(|| protocol(&url, "its commit has no proper name"))?;

        if repository.commit().is_some_and(|asked| asked != commit) {
            return Err(protocol(&url, format!("it names the commit {commit}")));
        }

        let listed: Vec<&str> = listing.siblings.iter().map(|s| s.rfilename.as_str()).collect();
        let has = |file: &&str| listed.contains(file);
        let weights = WEIGHTS.into_iter().find(has).filter(|_| has(&CONFIG));
        let (files, weights) = match (weights, cache::converted(&listed)) {
            (Some(weights), _) => (vec![CONFIG, "preprocessor_config.json", weights], weights),
            (None, Some(file)) => (vec![file], file),
            (None, None) => return Err(FetchError::NoWeights { repo: repository.to_string() }),
        };
        let snapshot = place.pointer_path(commit);
        for file in files.iter().copied().filter(has) {
            let pointer = snapshot.join(file);
            if pointer.is_file() {
                continue;
            }
            let url = format!("{}/{}/resolve/{commit}/{file}", self.endpoint, id.url());
            let announced = retried(|| self.announced(&url))?;
            let etag = announced.etag.as_deref().and_then(file_name);
            let etag = etag.ok_or_else(|| protocol(&url, "its ETag can't name a file"))?;
            let sha256 = sha256.filter(|_| file == weights);
            if let Some(wanted) = sha256.filter(|w| record::is_sha256(etag) && !etag.eq_ignore_ascii_case(w))
            {
                return Err(damaged(&url, format!("its SHA-256 is {etag}, not {wanted}")));
            }
            let blob = place.blob_path(etag);
            let target = Target {
                file: &blob,
                partial: &blob.with_file_name(format!("{etag}.incomplete")),
                lock: &folder.join(".locks").join(id.folder_name()).join(format!("{etag}.lock")),
                sha256,
                recorded: false,
            };
            self.download(&url, &announced, &target, watch)?;
            cache::link(&blob, &pointer).map_err(at(&pointer))?;
        }
        if repository.commit().is_none() {
            place.create_ref(commit).map_err(at(folder))?;
        }
        Ok(if files.contains(&CONFIG) { snapshot } else { snapshot.join(weights) })
    }

    /// Fetches one file by its address to `file`, under a lock in the folder `locks`; nothing is
    /// requested when it is there. It must have the SHA-256 `sha256`, or where none is given that of
    /// the record beside it, if an earlier download left one; what it has is recorded.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn fetch_file(
        &self,
        url: &str,
        file: &Path,
        locks: &Path,
        sha256: Option<&str>,
        watch: &mut dyn Watch,
    ) -> Result<(), FetchError> {
        if file.is_file() {
            return Ok(());
        }
        let url = &encoded(url);
        let announced = match retried(|| self.announced(url)) {
            // Some addresses, signed ones of stores for example, are for GET alone.
            Err(FetchError::Denied { .. } | FetchError::Status { status: 400 | 405 | 501, .. }) => {
                Announced::default()
            }
            announced => announced?,
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // The version is in the partial file's name: the rest of another one is never joined to it.
        let version = announced.version();
        let partial = format!("{name}.{}.incomplete", version.as_deref().unwrap_or("unknown"));
        let target = Target {
            file,
            partial: &file.with_file_name(partial),
            lock: &locks.join(format!("{name}.lock")),
            sha256,
            recorded: true,
        };
        self.download(url, &announced, &target, watch)
    }

    /// The download: into the partial file, resumed where one is there, checked, then renamed.
    fn download(
        &self,
        url: &str,
        announced: &Announced,
        target: &Target,
        watch: &mut dyn Watch,
    ) -> Result<(), FetchError> {
        for path in [target.file, target.lock] {
            let folder = path.parent().unwrap_or(path);
            std::fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let _lock = locked(target.lock, &mut || watch.waiting(last_part(&shown(url))))?;
        if target.file.is_file() {
            return Ok(());
        }
        if announced.version().is_none() && target.partial.exists() {
            std::fs::remove_file(target.partial).map_err(at(target.partial))?;
        }
        let mut shown = Shown { watch, url, begun: false, bytes: 0 };
        let received = retried(|| self.receive(url, announced, target.partial, &mut shown));
        drop(shown);
        let whole = received.and_then(|()| verify(url, announced, target));
        if matches!(whole, Err(FetchError::Damaged { .. } | FetchError::Replaced { .. })) {
            std::fs::remove_file(target.partial).map_err(at(target.partial))?;
        }
        let sha256 = whole?;
        std::fs::rename(target.partial, target.file).map_err(at(target.file))?;
        match sha256.filter(|_| target.recorded) {
            Some(sha256) => record::write(target.file, &sha256).map_err(at(&record::beside(target.file))),
            None => Ok(()),
        }
    }

    /// One attempt to receive what `partial` lacks.
    fn receive(
        &self,
        url: &str,
        announced: &Announced,
        partial: &Path,
        shown: &mut Shown,
    ) -> Result<(), FetchError> {
        let mut file = OpenOptions::new().create(true).append(true).open(partial).map_err(at(partial))?;
        let mut have = file.metadata().map_err(at(partial))?.len();
        if have > 0 && announced.size == Some(have) {
            return Ok(());
        }
        let range = Some(have).filter(|&have| have > 0 && announced.size.is_none_or(|size| have < size));
        // Shown before the first answer: a slow server takes its time for that too.
        if announced.size.is_some() {
            shown.begin(announced.size);
        }
        let mut response = self.follow(url, range)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let start = header(&response, "content-range").and_then(range_start);
                if range.is_none() || start != range {
                    return Err(protocol(url, "it sends another range than was asked for"));
                }
            }
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => {
                if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                    response = self.follow(url, None)?;
                }
                file.set_len(0).map_err(at(partial))?;
                have = 0;
            }
            status => return Err(protocol(url, format!("status {status}"))),
        }
        let left = header(&response, "content-length").and_then(|length| length.parse::<u64>().ok());
        let end = left.map(|left| have + left);
        shown.begin(announced.size.or(end));
        shown.have(have);
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match body.read(&mut buffer).map_err(|e| broke_off(url, &e))? {
                0 => break,
                read => read,
            };
            have += read as u64;
            if let Some(size) = announced.size.filter(|&size| have > size) {
                return Err(damaged(url, format!("it goes on after the announced {size} bytes")));
            }
            file.write_all(&buffer[..read]).map_err(at(partial))?;
            shown.have(have);
            if shown.watch.stops() {
                return Err(FetchError::Stopped { url: self::shown(url) });
            }
        }
        file.sync_all().map_err(at(partial))?;
        match end {
            Some(end) if announced.size.is_none() && have < end => Err(broke_off(url, &"it is not whole")),
            _ => Ok(()),
        }
    }

    /// Asks what a file is. A redirect to where the Hub keeps large files is not followed: the answer
    /// that carries it has the hash and the size already.
    fn announced(&self, url: &str) -> Result<Announced, FetchError> {
        let linked = |r: &Response<Body>| header(r, "x-linked-etag").is_some();
        let response = self.walk(url, &|agent, url| agent.head(url), &linked)?;
        let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
        let size = match response.status().is_redirection() {
            true => header(&response, "x-linked-size"),
            false => header(&response, "x-linked-size").or_else(|| header(&response, "content-length")),
        };
        Ok(Announced {
            etag: etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned()),
            modified: header(&response, "last-modified").map(str::to_owned),
            size: size.and_then(|size| size.parse().ok()),
        })
    }
}

/// `url` at the place that `mirror` names: that stands for the scheme and the host.
///
/// # Errors
/// When either is not a web address.
pub(super) fn mirrored(url: &str, mirror: &str) -> Result<String, FetchError> {
    let bad = || FetchError::BadMirror { mirror: mirror.to_owned() };
    let place: Uri = mirror.parse().map_err(|_| bad())?;
    ServerOrigin::of(&place).ok_or_else(bad)?;
    if place.query().is_some() || mirror.contains(['#', '@']) {
        return Err(bad());
    }
    let path = url.split_once("://").and_then(|(_, rest)| Some(&rest[rest.find('/')?..]));
    Ok(format!("{mirror}{}", path.ok_or_else(|| bad_address(url))?))
}

/// Where a file of the web lies in our cache: a folder that no other address has, and a file's name
/// in it.
///
/// # Errors
/// When that is no web address of a file.
pub(super) fn web_place(url: &str) -> Result<[String; 2], FetchError> {
    let sent = encoded(url);
    let origin = sent.parse().ok().as_ref().and_then(ServerOrigin::of);
    let host = origin.ok_or_else(|| bad_address(url))?.host;
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
    let host: String = host.chars().map(plain).collect();
    let hash = hex(&Sha256::digest(&sent)[..8]);
    let path = shown(&sent);
    let name: String = last_part(&path).chars().map(plain_name).collect();
    // The end of a long name says what the file is.
    let name = name[name.len().saturating_sub(LONGEST_NAME)..].trim_start_matches('.');
    let below = path.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    match file_name(name).filter(|_| below) {
        Some(name) => Ok([format!("{host}-{hash}"), name.to_owned()]),
        None => Err(FetchError::BadAddress { url: shown(url), what: "it does not end with a file's name" }),
    }
}

/// Most characters of a file's name: the records' and the partial files' names are longer.
const LONGEST_NAME: usize = 120;

fn plain_name(c: char) -> char {
    if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }
}

/// What follows the last slash.
fn last_part(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// An exclusive lock, held until the file is dropped; none where the file system has no locks. The
/// Hub's Python client takes the same ones. Before it waits for another process it calls `waiting`.
fn locked(path: &Path, waiting: &mut dyn FnMut()) -> Result<File, FetchError> {
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(at(path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            waiting();
            file.lock().map_err(at(path))?;
        }
        Err(TryLockError::Error(e)) if e.kind() != io::ErrorKind::Unsupported => return Err(at(path)(e)),
        _ => {}
    }
    Ok(file)
}

/// Compares what arrived with what was announced and with what it must be: the size, and the content
/// where a SHA-256 is known, of the target, of an ETag as the Hub's large files have it, or of a record.
/// Returns the SHA-256 if it was computed.
fn verify(url: &str, announced: &Announced, target: &Target) -> Result<Option<String>, FetchError> {
    let partial = target.partial;
    let size = partial.metadata().map_err(at(partial))?.len();
    if let Some(expected) = announced.size.filter(|&expected| expected != size) {
        return Err(damaged(url, format!("{size} bytes arrived, {expected} were announced")));
    }
    let linked = announced.etag.as_deref().filter(|etag| record::is_sha256(etag));
    let expected: Vec<&str> = [linked, target.sha256].into_iter().flatten().collect();
    if expected.is_empty() && !target.recorded {
        return Ok(None);
    }
    let found = digest(partial).map_err(at(partial))?;
    if let Some(expected) = expected.iter().find(|expected| !found.eq_ignore_ascii_case(expected)) {
        return Err(damaged(url, format!("its SHA-256 is {found}, not {expected}")));
    }
    // What weights.toml says stands above what came once.
    let recorded = record::recorded(target.file).filter(|_| target.recorded && target.sha256.is_none());
    match recorded.filter(|recorded| *recorded != found) {
        Some(recorded) => {
            let record = record::beside(target.file);
            Err(FetchError::Replaced { url: shown(url), recorded, found, record })
        }
        None => Ok(Some(found)),
    }
}

fn damaged(url: &str, what: String) -> FetchError {
    FetchError::Damaged { url: shown(url), what }
}

/// The first byte of `Content-Range: bytes FIRST-LAST/SIZE`.
fn range_start(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_stands_for_the_host() {
        let url = "https://shi-labs.com/projects/nat/a.pth";
        for (mirror, to) in [
            ("https://m.example", Some("https://m.example/projects/nat/a.pth")),
            ("http://m.example:8080/nat", Some("http://m.example:8080/nat/projects/nat/a.pth")),
            ("m.example", None),
            ("ftp://m.example", None),
            ("https://", None),
            ("https://m.example?x", None),
            ("https://m.example#x", None),
            ("https://me:secret@m.example", None),
        ] {
            assert_eq!(mirrored(url, mirror).ok().as_deref(), to, "{mirror}");
        }
    }

    #[test]
    fn every_address_has_a_place_of_its_own() {
        let place = |url| web_place(url).unwrap();
        let [folder, name] = place("https://a.example/x/net.pth?version=1");
        assert!(folder.starts_with("a.example-") && folder.len() == "a.example-".len() + 16, "{folder}");
        assert_eq!(name, "net.pth");
        for other in [
            "https://a.example/x/net.pth?version=2",
            "https://a.example/y/net.pth?version=1",
            "http://a.example/x/net.pth?version=1",
            "https://a.example:8443/x/net.pth?version=1",
        ] {
            assert_ne!(place(other)[0], folder, "{other}");
        }
        // The part that no server sees is none of the address.
        assert_eq!(place("https://a.example/x/net.pth?version=1#top"), [folder, name]);
        for (url, name) in [
            ("http://[::1]:80/a b.pth", "a_20b.pth"),
            ("https://a.example/..net.pth", "net.pth"),
            ("https://a.example/a\\..\\b.pth", "a_5C.._5Cb.pth"),
        ] {
            let [folder, file] = place(url);
            assert_eq!((file.as_str(), file_name(&folder).is_some()), (name, true), "{url}");
        }
        assert_eq!(place(&format!("https://a.example/{}.pth", "x".repeat(500)))[1].len(), LONGEST_NAME);
        for url in [
            "https://a.example",
            "https://a.example/",
            "https://a.example/x/",
            "https://a.example/..",
            "ftp://a/b",
        ] {
            assert!(web_place(url).is_err(), "{url}");
        }
    }
}
