//! One signal that ends everything a component started.

use tokio::sync::watch;

/// A stop signal; every clone sees and can raise it.
#[derive(Debug, Clone)]
pub struct Stop {
    raised: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            raised: watch::Sender::new(false),
        }
    }
}

impl Stop {
    /// Raises the signal; it never goes down again.
    pub fn raise(&self) {
        self.raised.send_replace(true);
    }

    /// Whether it has been raised.
    pub fn is_raised(&self) -> bool {
        *self.raised.borrow()
    }

    /// Ends when it is raised.
    pub async fn raised(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.raised.subscribe().wait_for(|raised| *raised).await;
    }

    /// Runs a future until it ends or the signal is raised.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.raised() => None,
            done = work => Some(done),
        }
    }
}
