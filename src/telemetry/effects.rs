//! The hook that every effect on the outside world passes before it is sent.

use std::{fmt, sync::Arc};

type Hook = dyn Fn(&'static str, &'static str) -> Result<(), String> + Send + Sync;

/// Called once per effect with the door (`kubernetes`, `codis`) and the effect's name, before anything is sent.
///
/// Production counts; tests refuse, delay or crash at the n-th effect.
#[derive(Clone)]
pub struct Effects(Option<Arc<Hook>>);

impl Effects {
    /// A hook that lets everything pass.
    pub fn none() -> Self {
        Self(None)
    }

    /// A hook of one's own: an `Err` means that the effect isn't sent.
    pub fn new(hook: impl Fn(&'static str, &'static str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    /// Asks the hook.
    ///
    /// # Errors
    /// The hook's reason not to send the effect.
    pub fn allow(&self, door: &'static str, effect: &'static str) -> Result<(), String> {
        self.0.as_ref().map_or(Ok(()), |hook| hook(door, effect))
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Effects(hook)"
        } else {
            "Effects(none)"
        })
    }
}
