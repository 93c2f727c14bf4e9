//! A server with one repository, a clone to push from, and the door to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use codis_git_server::{GitServer, Options, WorkTree, create_repository};
use codis_operator::gitops::git::{Content, Credentials, Error, Fetch, Fetched, Git, Remote, Tip, Tree};
use k8s_openapi::ByteString;

/// How long a fetch may take where its deadline isn't what is tested.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The source's name.
pub const KEY: &str = "default/specs";

/// A directory that ends with its test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("git-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The worker's program.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_codis-operator"))
}

pub struct Place {
    pub server: GitServer,
    pub git: Git,
    pub work: WorkTree,
    pub bare: PathBuf,
    pub remote: Remote,
    pub folder: Folder,
}

impl Place {
    /// A repository without commits.
    pub async fn empty_with(options: Options) -> Self {
        let folder = Folder::new();
        let root = folder.0.join("server");
        let bare = create_repository(&root, "specs").unwrap();
        let server = GitServer::start("127.0.0.1:0", &root, options).await.unwrap();
        // Pushes go past the server, so that its counters count only the door's requests.
        let work = WorkTree::clone(bare.to_str().unwrap(), &folder.0.join("work")).unwrap();
        let remote = Remote {
            url: server.url("specs"),
            branch: "main".to_owned(),
            path: "clusters".to_owned(),
            credentials: Credentials::default(),
        };
        let git = Git::new(program(), folder.0.join("kept"));
        Self {
            server,
            git,
            work,
            bare,
            remote,
            folder,
        }
    }

    pub async fn empty() -> Self {
        Self::empty_with(Options::default()).await
    }

    /// A repository with one commit that has `clusters/a.yaml`.
    pub async fn new() -> Self {
        let place = Self::empty().await;
        place.work.publish("clusters/a.yaml", "a: 1\n").unwrap();
        place
    }

    pub async fn tip(&self) -> Result<Tip, Error> {
        self.git.tip(KEY, &self.remote).await
    }

    /// The commit that the branch is at.
    pub async fn at(&self) -> String {
        match self.tip().await.unwrap() {
            Tip::Commit(id) => id,
            missing @ Tip::Missing { .. } => panic!("{missing:?}"),
        }
    }

    pub async fn try_fetch(&self, tip: &str, since: Option<&str>, read: &str) -> Result<Fetched, Error> {
        let known = BTreeSet::new();
        let fetch = Fetch {
            tip,
            since,
            read,
            known: &known,
        };
        self.git.fetch(KEY, &self.remote, &fetch, PATIENCE).await
    }

    /// Fetches the tip and reads it.
    pub async fn fetch(&self, tip: &str, since: Option<&str>) -> Fetched {
        self.try_fetch(tip, since, tip).await.unwrap()
    }

    /// The directory where what is kept lies.
    pub fn kept(&self) -> PathBuf {
        let source = only_directory(&self.folder.0.join("kept"), |_| true);
        only_directory(&source, |name| name != "home").join("repository")
    }
}

fn only_directory(path: &Path, wanted: impl Fn(&str) -> bool) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| wanted(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Path and content of what was read.
pub fn texts(fetched: &Fetched) -> BTreeMap<String, String> {
    let Tree::Files(files) = &fetched.tree else {
        panic!("{fetched:?}");
    };
    files
        .iter()
        .map(|file| {
            let text = match &file.content {
                Content::Known => "KNOWN".to_owned(),
                Content::Text(text) => text.clone(),
                Content::Refused(why) => format!("REFUSED {why}"),
            };
            (file.path.clone(), text)
        })
        .collect()
}

pub fn credentials(url: &str, data: &[(&str, &str)]) -> Credentials {
    let data = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
        .collect();
    Credentials::of_secret(url, &data).unwrap()
}

/// Processes of this one whose command line has `part` in it, zombies included.
pub fn children_with(part: &str) -> Vec<String> {
    let me = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let after = stat.rsplit(')').next()?;
            let mut fields = after.split_whitespace();
            let state = fields.next()?.to_owned();
            let parent = fields.next()?;
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            // A zombie has no command line, but its name.
            let named = line.contains(part) || (state == "Z" && stat.contains("codis-operator"));
            (parent == me && named).then(|| format!("{state} {line}"))
        })
        .collect()
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Bytes that don't compress.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..length / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}
