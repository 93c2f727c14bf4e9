use std::{
    os::unix::fs::symlink,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::*;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// A directory `specs` of its own, removed in the end.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "codis-directory-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let temp = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(temp.specs()).unwrap();
        temp
    }

    fn specs(&self) -> PathBuf {
        self.0.join("specs")
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.specs().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: impl AsRef<Path>) {
        symlink(target, self.specs().join(path)).unwrap();
    }

    fn list(&self) -> Listing {
        list(&self.specs()).unwrap()
    }

    /// The paths, with the beginning of the text or of the reason.
    fn told(&self) -> Vec<String> {
        let told = |file: &Blob| match &file.content {
            Content::Text(text) => format!("{} {text}", file.path),
            Content::Refused(reason) => format!("{} refused: {}", file.path, reason.split(':').next().unwrap()),
            Content::Known => panic!("{} is not known", file.path),
        };
        self.list().files.iter().map(told).collect()
    }

    /// What the kubelet's AtomicWriter does with a new version of a ConfigMap.
    fn swap(&self, version: &str, files: &[(&str, &str)]) {
        let old = fs::read_link(self.specs().join("..data")).ok();
        for (name, text) in files {
            self.write(&format!("..{version}/{name}"), text);
        }
        self.link("..data_tmp", format!("..{version}"));
        fs::rename(self.specs().join("..data_tmp"), self.specs().join("..data")).unwrap();
        for (name, _) in files.iter().filter(|(name, _)| !self.specs().join(name).is_symlink()) {
            self.link(name, format!("..data/{name}"));
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.specs().join(old)).unwrap();
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn specs_are_listed_in_order_with_those_of_directories_below() {
    let temp = Temp::new();
    for path in [
        "b.yaml",
        "a.yml",
        "team/c.yaml",
        "README.md",
        ".hidden.yaml",
        ".git/d.yaml",
        "team/yaml",
    ] {
        temp.write(path, "x");
    }
    fs::create_dir(temp.specs().join("directory.yaml")).unwrap();
    assert_eq!(temp.told(), ["a.yml x", "b.yaml x", "team/c.yaml x"]);
}

#[test]
fn an_empty_directory_has_no_files_and_a_revision() {
    let listing = Temp::new().list();
    assert!(listing.files.is_empty());
    let digits = listing.revision.strip_prefix("dir@sha256:").unwrap();
    assert!(
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{digits}"
    );
}

#[test]
fn the_revision_is_that_of_the_paths_and_contents_and_of_nothing_else() {
    let temp = Temp::new();
    temp.write("a.yaml", "x");
    temp.write("b.yaml", "y");
    let first = temp.list();
    temp.write("note.txt", "z");
    temp.write("a.yaml", "x");
    assert_eq!(temp.list(), first);
    temp.write("a.yaml", "y");
    temp.write("b.yaml", "x");
    let swapped = temp.list();
    assert_ne!(swapped.revision, first.revision);
    assert_eq!(
        (&swapped.files[0].id, &swapped.files[1].id),
        (&first.files[1].id, &first.files[0].id)
    );
    fs::rename(temp.specs().join("b.yaml"), temp.specs().join("c.yaml")).unwrap();
    assert_ne!(temp.list().revision, swapped.revision);
}

#[test]
fn what_must_not_be_read_is_refused_with_a_reason() {
    let temp = Temp::new();
    fs::write(temp.0.join("outside.yaml"), "secret").unwrap();
    fs::create_dir(temp.0.join("elsewhere")).unwrap();
    temp.write("inside/real.yaml", "x");
    temp.write("large.yaml", "x".repeat((256 << 10) + 1));
    temp.write("limit.yaml", " ".repeat(256 << 10));
    temp.write("latin.yaml", b"caf\xe9");
    temp.link("absolute.yaml", temp.0.join("outside.yaml"));
    temp.link("relative.yaml", "../outside.yaml");
    temp.link("passwd.yaml", "/etc/passwd");
    temp.link("nowhere.yaml", "missing");
    temp.link("loop.yaml", "loop.yaml");
    temp.link("linked", "../elsewhere");
    temp.link("good.yaml", "inside/real.yaml");
    std::os::unix::net::UnixListener::bind(temp.specs().join("socket.yaml")).unwrap();
    let told = temp.told();
    let told: Vec<_> = told.iter().map(|text| text.trim_end()).collect();
    assert_eq!(
        told,
        [
            "absolute.yaml refused: is a link that leaves the directory",
            "good.yaml x",
            "inside/real.yaml x",
            "large.yaml refused: is larger than 256 KiB",
            "latin.yaml refused: is not UTF-8 text",
            "limit.yaml",
            "linked refused: is a link that leaves the directory",
            "loop.yaml refused: is a link that leads nowhere",
            "nowhere.yaml refused: is a link that leads nowhere",
            "passwd.yaml refused: is a link that leaves the directory",
            "relative.yaml refused: is a link that leaves the directory",
            "socket.yaml refused: is not a file",
        ]
    );
}

#[test]
fn the_top_may_be_a_link() {
    let temp = Temp::new();
    temp.write("a.yaml", "x");
    temp.link("b.yaml", "a.yaml");
    let link = temp.0.join("link");
    symlink("specs", &link).unwrap();
    assert_eq!(list(&link).unwrap(), temp.list());
}

#[test]
fn too_much_and_what_is_no_directory_are_errors() {
    let temp = Temp::new();
    temp.write("a.yaml", "x");
    for path in ["missing", "specs/a.yaml"] {
        assert!(
            matches!(list(&temp.0.join(path)), Err(DirectoryError::Read { .. })),
            "{path}"
        );
    }
    (0..65).for_each(|file| temp.write(&format!("big-{file}.yaml"), "x".repeat(256 << 10)));
    assert_eq!(
        list(&temp.specs()).unwrap_err().to_string(),
        "the directory has more than 16 MiB of files"
    );
    let temp = Temp::new();
    (0..2_001).for_each(|file| temp.write(&format!("{file}.yaml"), ""));
    assert_eq!(
        list(&temp.specs()).unwrap_err().to_string(),
        "the directory has more than 2000 files"
    );
}

#[test]
fn a_mounted_configmap_has_its_files_once() {
    let temp = Temp::new();
    temp.swap("2026_1", &[("a.yaml", "old"), ("b.yaml", "old")]);
    assert_eq!(temp.told(), ["a.yaml old", "b.yaml old"]);
    temp.swap("2026_2", &[("a.yaml", "new"), ("b.yaml", "new")]);
    assert_eq!(temp.told(), ["a.yaml new", "b.yaml new"]);
}

#[test]
fn a_listing_during_swaps_is_never_half_of_two_versions() {
    let temp = Temp::new();
    let names: Vec<String> = (0..20).map(|file| format!("{file}.yaml")).collect();
    let swap = |version: u32| {
        let text = version.to_string();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), text.as_str())).collect();
        temp.swap(&format!("2026_{version}"), &files);
    };
    swap(0);
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| (1..100).for_each(swap));
        let mut listed = 0;
        while !swaps.is_finished() || listed == 0 {
            // Swaps come thick and fast here: not to have an answer is right, a mixed one isn't.
            let Ok(listing) = list(&temp.specs()) else { continue };
            listed += 1;
            assert_eq!(listing.files.len(), 20);
            assert!(
                listing.files.iter().all(|file| file.id == listing.files[0].id),
                "{listing:?}"
            );
        }
    });
}

#[test]
fn readings_go_on_until_two_in_a_row_agree() {
    let vanished = || DirectoryError::Read {
        path: "a.yaml".into(),
        error: io::ErrorKind::NotFound.into(),
    };
    let mut readings = [Some(2), None, Some(2), Some(1), Some(3), Some(3), Some(4)].into_iter();
    let read = || readings.next().unwrap().ok_or_else(vanished);
    assert_eq!(until_two_agree(read).unwrap(), 3);
    let gone = until_two_agree(|| Err::<u32, _>(vanished()));
    assert!(matches!(gone, Err(DirectoryError::Read { .. })), "{gone:?}");
    let mut count = 0;
    let mut always_new = || {
        count += 1;
        Ok(count)
    };
    assert!(matches!(
        until_two_agree(&mut always_new),
        Err(DirectoryError::Unsettled)
    ));
    assert_eq!(count, MAX_READINGS);
}

/// Waits until the watch tells a change after which `is` holds.
async fn until(watch: &mut Watch, what: &str, is: impl Fn() -> bool) {
    let told = async {
        loop {
            watch.changed().await;
            if is() {
                break;
            }
        }
    };
    assert!(tokio::time::timeout(LONG, told).await.is_ok(), "{what} was not noticed");
}

#[tokio::test]
async fn each_kind_of_change_is_noticed() {
    let temp = Temp::new();
    let mut watch = watch(&temp.specs()).unwrap();
    let path = |path: &str| temp.specs().join(path);
    type Change<'a> = (&'a str, Box<dyn Fn() + 'a>, &'a [&'a str]);
    let changes: [Change<'_>; 10] = [
        ("a new file", Box::new(|| temp.write("a.yaml", "1")), &["a.yaml 1"]),
        ("a written file", Box::new(|| temp.write("a.yaml", "2")), &["a.yaml 2"]),
        (
            "a file renamed over another",
            Box::new(|| {
                temp.write("a.tmp", "3");
                fs::rename(path("a.tmp"), path("a.yaml")).unwrap();
            }),
            &["a.yaml 3"],
        ),
        (
            "a renamed file",
            Box::new(|| fs::rename(path("a.yaml"), path("b.yaml")).unwrap()),
            &["b.yaml 3"],
        ),
        (
            "a new directory",
            Box::new(|| temp.write("team/c.yaml", "1")),
            &["b.yaml 3", "team/c.yaml 1"],
        ),
        (
            "a file in it",
            Box::new(|| temp.write("team/c.yaml", "2")),
            &["b.yaml 3", "team/c.yaml 2"],
        ),
        (
            "a removed directory",
            Box::new(|| fs::remove_dir_all(path("team")).unwrap()),
            &["b.yaml 3"],
        ),
        (
            "a removed file",
            Box::new(|| fs::remove_file(path("b.yaml")).unwrap()),
            &[],
        ),
        (
            "a mounted ConfigMap",
            Box::new(|| temp.swap("2026_1", &[("d.yaml", "1")])),
            &["d.yaml 1"],
        ),
        (
            "its next version",
            Box::new(|| temp.swap("2026_2", &[("d.yaml", "2")])),
            &["d.yaml 2"],
        ),
    ];
    for (what, change, expected) in &changes {
        change();
        until(&mut watch, what, || temp.told() == *expected).await;
    }
}

#[tokio::test]
async fn a_swap_is_told_when_it_is_over() {
    let temp = Temp::new();
    temp.swap("2026_1", &[("a.yaml", "1")]);
    let mut watch = watch(&temp.specs()).unwrap();
    temp.swap("2026_2", &[("a.yaml", "2")]);
    tokio::time::timeout(LONG, watch.changed()).await.unwrap();
    assert_eq!(temp.told(), ["a.yaml 2"]);
}

#[tokio::test]
async fn a_listing_is_no_change() {
    let temp = Temp::new();
    temp.write("team/a.yaml", "1");
    let mut watch = watch(&temp.specs()).unwrap();
    temp.list();
    // Longer than a change takes to be told.
    let told = tokio::time::timeout(Duration::from_millis(500), watch.changed()).await;
    assert!(told.is_err(), "a listing was told as a change");
}

#[tokio::test]
async fn a_wait_that_is_given_up_loses_no_change() {
    let temp = Temp::new();
    let mut watch = watch(&temp.specs()).unwrap();
    temp.write("a.yaml", "1");
    let given_up = tokio::time::timeout(Duration::from_millis(20), watch.changed()).await;
    assert!(given_up.is_err(), "a change is told when it has settled");
    tokio::time::timeout(LONG, watch.changed()).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_removed_and_made_again_is_noticed_and_watched() {
    let temp = Temp::new();
    temp.write("a.yaml", "1");
    let mut watch = watch(&temp.specs()).unwrap();
    for round in ["2", "3"] {
        fs::remove_dir_all(temp.specs()).unwrap();
        until(&mut watch, "the removal", || !temp.specs().exists()).await;
        temp.write("a.yaml", round);
        until(&mut watch, "the new directory", || {
            temp.told() == [format!("a.yaml {round}")]
        })
        .await;
        temp.write("a.yaml", "new");
        until(&mut watch, "a change in it", || temp.told() == ["a.yaml new"]).await;
    }
    fs::rename(temp.specs(), temp.0.join("old")).unwrap();
    temp.write("a.yaml", "other");
    until(&mut watch, "the replacement", || temp.told() == ["a.yaml other"]).await;
    temp.write("a.yaml", "last");
    until(&mut watch, "a change of the replacement", || {
        temp.told() == ["a.yaml last"]
    })
    .await;
}

#[tokio::test]
async fn a_directory_that_is_a_link_is_watched_where_it_leads() {
    let temp = Temp::new();
    let link = temp.0.join("link");
    symlink("specs", &link).unwrap();
    let mut watch = watch(&link).unwrap();
    let first = |text: &str| {
        let files = list(&link).unwrap().files;
        files
            .first()
            .is_some_and(|file| file.content == Content::Text(text.to_owned()))
    };
    temp.write("a.yaml", "1");
    until(&mut watch, "a file", || first("1")).await;
    fs::create_dir(temp.0.join("other")).unwrap();
    fs::write(temp.0.join("other/a.yaml"), "2").unwrap();
    symlink("other", temp.0.join("new")).unwrap();
    fs::rename(temp.0.join("new"), &link).unwrap();
    until(&mut watch, "another target", || first("2")).await;
    fs::write(temp.0.join("other/a.yaml"), "3").unwrap();
    until(&mut watch, "a file of the other target", || first("3")).await;
}

#[tokio::test]
async fn a_directory_may_come_after_its_watch() {
    let temp = Temp::new();
    fs::remove_dir_all(temp.specs()).unwrap();
    let mut watch = watch(&temp.specs()).unwrap();
    temp.write("a.yaml", "1");
    until(&mut watch, "the directory", || temp.told() == ["a.yaml 1"]).await;
}

#[test]
fn without_a_directory_above_there_is_no_watch() {
    let temp = Temp::new();
    assert!(matches!(watch(&temp.0.join("no/where")), Err(DirectoryError::Watch(_))));
}
