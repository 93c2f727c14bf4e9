//! The one door to Codis: dashboard, proxies, sentinel and redis on the wire. It does I/O and decides nothing: what to do is
//! [`plan`](crate::plan)'s, when to try again is the controller's.
//!
//! May enter: domain, reqwest, hyper, redis. Stays out: kube, clocks, decisions.
//!
//! Two kinds of calls. Observations only read, are bounded in time and never fail: what can't be seen is a value that
//! says why. Effects change the outside world; each has a name, asks [`Effects`] before it is sent and returns an
//! [`Error`] of a few kinds. Effects on one dashboard are meant to be called one after the other (contract §2).
//! No text that leaves the room holds a password or an xauth.

mod coordinator;
mod dashboard;
mod effects;
mod error;
mod keys;
mod network;
mod proxy;
mod redis;
mod sentinel;
mod topom;
mod wire;
mod xauth;

use std::sync::Arc;

use crate::{domain::Address, telemetry::Effects};

pub use coordinator::coordinator_reachable;
pub use effects::{DOOR, names};
pub use error::Error;
pub use network::{Link, Network, Stream};
pub use redis::ANNOUNCED;
pub use sentinel::SentinelSettings;
pub use wire::Timeouts;
pub use xauth::xauth;

/// The door to one product. Cheap to clone.
#[derive(Clone)]
pub struct Codis(Arc<Door>);

#[derive(Clone)]
struct Door {
    product: String,
    product_auth: Option<String>,
    dashboard: Address,
    xauth: String,
    http: reqwest::Client,
    link: Link,
    effects: Effects,
    timeouts: Timeouts,
}

impl Codis {
    /// The door to `product`, whose dashboard answers at `dashboard`. `product_auth` is the password of every
    /// codis-server (contract §3); none or empty means that they have none. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when no HTTP client can be made.
    pub fn new(
        product: &str,
        product_auth: Option<&str>,
        dashboard: Address,
        effects: Effects,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        Ok(Self(Arc::new(Door {
            product: product.to_owned(),
            product_auth: product_auth.filter(|auth| !auth.is_empty()).map(str::to_owned),
            xauth: xauth(&[product]),
            http: wire::client(&dashboard)?,
            link: Link::default(),
            dashboard,
            effects,
            timeouts,
        })))
    }

    /// The same door, reached over `link` instead of the machine's sockets.
    #[must_use]
    pub fn over(mut self, link: Link) -> Self {
        Arc::make_mut(&mut self.0).link = link;
        self
    }

    /// Where the dashboard answers.
    #[must_use]
    pub fn peer(&self) -> &Address {
        &self.0.dashboard
    }

    /// To be called right before each effect is sent.
    fn before(&self, effect: &'static str) -> Result<(), Error> {
        let passes = self.0.effects.allow(DOOR, effect);
        passes.map_err(|cause| Error::Injected { effect, cause })
    }
}
