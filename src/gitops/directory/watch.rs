//! When a directory changed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event};
use tokio::{sync::Notify, time};

use super::DirectoryError;

/// How long it must be still: a swap of a mounted ConfigMap is several changes.
const SETTLE: Duration = Duration::from_millis(100);
/// A directory that is never still is told nevertheless.
const SETTLE_AT_MOST: Duration = Duration::from_secs(1);
/// How often a directory that is gone is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Tells when a directory changed. It may tell of changes that were none; that it misses none can't be promised (it may
/// lie on a network): list from time to time nevertheless.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    noticed: Arc<Notify>,
    /// A change was noticed and not told yet.
    pending: bool,
    /// All that is below the directory; none while there is no directory.
    tree: Option<RecommendedWatcher>,
    /// The directory's own name: it may be removed and made again, or be a link that is replaced.
    _parent: Option<RecommendedWatcher>,
}

/// Watches a directory, which may come later.
///
/// # Errors
/// When neither the directory nor the one above it can be watched.
pub fn watch(directory: &Path) -> Result<Watch, DirectoryError> {
    let directory = std::path::absolute(directory).map_err(DirectoryError::read(directory))?;
    let noticed = Arc::new(Notify::new());
    let parent = directory.parent().map(|above| {
        let name = directory.clone();
        let is_it = move |event: &Event| event.paths.contains(&name);
        watcher(above, RecursiveMode::NonRecursive, &noticed, is_it)
    });
    let tree = tree(&directory, &noticed);
    match (tree, parent.transpose()) {
        (Err(error), Err(_) | Ok(None)) => Err(error.into()),
        (tree, parent) => Ok(Watch {
            tree: tree.ok(),
            _parent: parent.ok().flatten(),
            pending: false,
            noticed,
            directory,
        }),
    }
}

impl Watch {
    /// Waits until the directory changed and was still for a moment. Nothing is lost when the wait is given up.
    pub async fn changed(&mut self) {
        while !self.pending {
            if self.tree.is_some() {
                self.noticed.notified().await;
                self.pending = true;
            } else {
                // Also when nothing was noticed: what is above may be gone, too.
                let noticed = time::timeout(LOOK_AGAIN, self.noticed.notified()).await.is_ok();
                self.pending = noticed || self.directory.is_dir();
            }
        }
        let still = async { while time::timeout(SETTLE, self.noticed.notified()).await.is_ok() {} };
        // Too long only means that more is to come.
        let _ = time::timeout(SETTLE_AT_MOST, still).await;
        // Anew each time: the directory may be another one now. The old watch ends after the new one began.
        self.tree = tree(&self.directory, &self.noticed).ok();
        self.pending = false;
    }
}

fn tree(directory: &Path, noticed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    // Of a link the watcher would see only the link.
    let real = directory.canonicalize().map_err(notify::Error::io)?;
    watcher(&real, RecursiveMode::Recursive, noticed, |_| true)
}

fn watcher(
    path: &Path,
    mode: RecursiveMode,
    noticed: &Arc<Notify>,
    counts: impl Fn(&Event) -> bool + Send + 'static,
) -> notify::Result<RecommendedWatcher> {
    let noticed = Arc::clone(noticed);
    let handler = move |event: notify::Result<Event>| {
        // An error, like a queue that was full, may have hidden a change.
        if event.map_or(true, |event| {
            event.need_rescan() || changes(event.kind) && counts(&event)
        }) {
            noticed.notify_one();
        }
    };
    let mut watcher = RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false))?;
    watcher.watch(path, mode)?;
    Ok(watcher)
}

/// Reading isn't a change, or each listing would cause the next.
fn changes(kind: EventKind) -> bool {
    use event::{AccessKind, AccessMode};
    !kind.is_access() || kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}
