//! The hook that every effect on the outside world passes before it is sent.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

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

    /// A hook that ends the process without any ado at the n-th effect of a name, for tests of what a crash leaves:
    /// `<door>/<effect>:<before|after>:<n>`. After an effect is before the next one, whatever it is. Then asks `inner`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn crashing(at: &str, inner: Self) -> Result<Self, String> {
        let invalid = || format!("{at:?} isn't <door>/<effect>:<before|after>:<n>");
        let mut parts = at.split(':');
        let (Some(name), Some(when), Some(count), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let count: usize = count.parse().map_err(|_| invalid())?;
        let (name, is_after) = (name.to_owned(), when == "after");
        if !is_after && when != "before" {
            return Err(invalid());
        }
        let (seen, due) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Self::new(move |door, effect| {
            let is_it = name == format!("{door}/{effect}") && seen.fetch_add(1, Ordering::SeqCst) + 1 == count;
            if is_it && !is_after || due.load(Ordering::SeqCst) {
                eprintln!("crashing at {name}, as told");
                std::process::abort();
            }
            inner.allow(door, effect)?;
            due.fetch_or(is_it, Ordering::SeqCst);
            Ok(())
        }))
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
