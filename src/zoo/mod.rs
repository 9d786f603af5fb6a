//! From a model's name to its weights on this machine: what `weights.toml` says of it, whether a
//! cache has it, and fetching it when none does.
//!
//! A name is a [`Reference`]: one from `weights.toml`, or a repository of the Hub. [`cache`] knows where
//! files lie and touches no network; [`hub`] and the requests below it have all the network code.
//! Reading what [`locate`] finds is the converter's business.

pub use nat_convert::zoo::{Entry, Reported, Task, UnknownModel, by_file_name, by_hub, entries, find};

#[cfg(feature = "hub")]
pub use cache::Env;
#[cfg(feature = "hub")]
pub use hub::FetchError;
#[cfg(feature = "hub")]
pub use locate::{
    Access, OFFLINE, ZooError, fetch_image, is_cached, locate, locate_file, locate_repository, origin,
};
pub use located::{Located, is_web_address};
pub use reference::{Reference, ReferenceError, Repository};
#[cfg(feature = "hub")]
pub use watch::{Bars, Watch};

#[cfg(feature = "hub")]
pub mod cache;
#[cfg(feature = "hub")]
mod http;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "hub")]
mod locate;
mod located;
#[cfg(feature = "hub")]
mod record;
mod reference;
#[cfg(feature = "hub")]
mod watch;
