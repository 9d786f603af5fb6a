//! From a model's name to its weights on this machine: what `weights.toml` says of it, whether a
//! cache has it, and fetching it when none does.
//!
//! A name is a [`Reference`]: one from `weights.toml`, or a repository of the Hub. [`cache`] knows where
//! files lie and touches no network; [`hub`] and the requests below it have all the network code.
//! Reading what [`locate`] finds is the converter's business.

pub use nat_convert::zoo::{Entry, Reported, Task, UnknownModel, by_file_name, by_hub, entries, find};

pub use cache::Env;
pub use hub::FetchError;
pub use locate::{
    Access, Located, OFFLINE, ZooError, fetch_image, is_cached, is_web_address, locate, locate_file,
    locate_repository, origin,
};
pub use reference::{Reference, ReferenceError, Repository};
pub use watch::{Bars, Watch};

pub mod cache;
mod http;
pub mod hub;
mod locate;
pub(crate) mod record;
mod reference;
mod watch;
