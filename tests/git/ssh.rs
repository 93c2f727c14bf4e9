//! SSH, with a real sshd on loopback.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use codis_operator::gitops::git::{ErrorKind, Relation, Remote, Tip};

use crate::support::{Place, credentials, eventually, texts};

const SSHD: &str = "/usr/sbin/sshd";

/// Whether sshd is there. Its absence is an error where `REQUIRE_SSHD=1`.
fn sshd_is_here() -> bool {
    let here = Path::new(SSHD).exists();
    if !here {
        assert!(
            std::env::var_os("REQUIRE_SSHD").is_none_or(|required| required != "1"),
            "{SSHD} isn't there, and REQUIRE_SSHD=1"
        );
        eprintln!("SKIPPED: {SSHD} isn't there");
    }
    here
}

/// An sshd that lets one key in, and ends with its test.
struct Sshd {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keygen(kind: &str, path: &Path, passphrase: &str) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", "tests", "-f"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Sshd {
    /// `host` is the type of its host key. Keys that can come in: `ed25519`, `rsa`, `locked`; one that can't: `stranger`.
    async fn start(folder: &Path, host: &str) -> Self {
        let folder = folder.join("ssh");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        keygen(host, &folder.join("host"), "");
        let mut authorized = String::new();
        for (name, kind, passphrase) in [
            ("ed25519", "ed25519", ""),
            ("rsa", "rsa", ""),
            ("locked", "ed25519", "open-it"),
        ] {
            keygen(kind, &folder.join(name), passphrase);
            authorized += &fs::read_to_string(folder.join(format!("{name}.pub"))).unwrap();
        }
        keygen("ed25519", &folder.join("stranger"), "");
        fs::write(folder.join("authorized"), authorized).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nPidFile none\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
             PermitRootLogin yes\nMaxAuthTries 1000\nLogLevel VERBOSE\n",
            folder.display()
        );
        fs::write(folder.join("config"), config).unwrap();
        // It wants this directory, and only root can make it.
        let _ = fs::create_dir_all("/run/sshd");
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(folder.join("config"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let sshd = Self { child, folder, port };
        eventually("sshd listens", || sshd.log().contains("Server listening")).await;
        sshd
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap()
    }

    fn known_hosts(&self) -> String {
        format!("[127.0.0.1]:{} {}", self.port, self.file("host.pub"))
    }

    /// The remote for whoever runs the tests.
    fn remote(&self, place: &Place, path: &str, data: &[(&str, &str)]) -> Remote {
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        let url = format!("ssh://{}@127.0.0.1:{}{path}", user.trim(), self.port);
        Remote {
            credentials: credentials(&url, data),
            url,
            ..place.remote.clone()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_known_host_give_tip_and_files() {
    if !sshd_is_here() {
        return;
    }
    for host in ["ed25519", "rsa", "ecdsa"] {
        let mut place = Place::new().await;
        let sshd = Sshd::start(&place.folder.0, host).await;
        let bare = place.bare.display().to_string();
        let hosts = sshd.known_hosts();
        for key in ["ed25519", "rsa"] {
            place.git.forget(crate::support::KEY);
            place.remote = sshd.remote(&place, &bare, &[("identity", &sshd.file(key)), ("known_hosts", &hosts)]);
            let first = place.at().await;
            assert_eq!(
                texts(&place.fetch(&first, None).await)["clusters/a.yaml"],
                "a: 1\n",
                "{host} {key}"
            );
        }
        let first = place.at().await;
        let second = place.work.publish("clusters/a.yaml", "a: 2\n").unwrap();
        assert_eq!(place.tip().await.unwrap(), Tip::Commit(second.clone()));
        let fetched = place.fetch(&second, Some(&first)).await;
        assert_eq!(fetched.relation, Relation::Descends);
        place.remote.branch = "absent".to_owned();
        let missing = Tip::Missing {
            repository_is_empty: false,
        };
        assert_eq!(place.tip().await.unwrap(), missing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hashed_known_hosts_and_locked_keys_work() {
    if !sshd_is_here() {
        return;
    }
    let mut place = Place::new().await;
    let sshd = Sshd::start(&place.folder.0, "ed25519").await;
    let bare = place.bare.display().to_string();
    let hosts = sshd.folder.join("known_hosts");
    fs::write(&hosts, sshd.known_hosts()).unwrap();
    let output = Command::new("ssh-keygen")
        .arg("-H")
        .arg("-f")
        .arg(&hosts)
        .output()
        .unwrap();
    assert!(output.status.success());
    let hashed = fs::read_to_string(&hosts).unwrap();
    assert!(hashed.starts_with("|1|"));
    let locked = sshd.file("locked");
    let with = |password: &str| {
        [
            ("identity", locked.as_str()),
            ("known_hosts", &hashed),
            ("password", password),
        ]
        .map(|(key, value)| (key, value.to_owned()))
    };
    for (password, good) in [("open-it", true), ("wrong-one", false)] {
        let data = with(password);
        let data: Vec<_> = data.iter().map(|(key, value)| (*key, value.as_str())).collect();
        place.remote = sshd.remote(&place, &bare, &data);
        match place.tip().await {
            Ok(tip) => assert!(good, "{tip:?}"),
            Err(error) => {
                assert!(!good, "{error}");
                assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
                assert!(
                    error.message.contains("passphrase") && !error.message.contains("wrong-one"),
                    "{error}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_that_is_not_known_is_named_and_sees_no_key() {
    if !sshd_is_here() {
        return;
    }
    let mut place = Place::new().await;
    let sshd = Sshd::start(&place.folder.0, "ed25519").await;
    let bare = place.bare.display().to_string();
    let identity = sshd.file("ed25519");
    let output = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(sshd.folder.join("host.pub"))
        .output()
        .unwrap();
    let fingerprint = String::from_utf8(output.stdout).unwrap();
    let fingerprint = fingerprint.split(' ').nth(1).unwrap();
    let rotated = format!("[127.0.0.1]:{} {}", sshd.port, sshd.file("stranger.pub"));
    let elsewhere = format!("git.example.com {}", sshd.file("host.pub"));
    for hosts in [rotated, elsewhere] {
        place.remote = sshd.remote(&place, &bare, &[("identity", &identity), ("known_hosts", &hosts)]);
        let head = place.work.head().unwrap();
        for error in [
            place.tip().await.unwrap_err(),
            place.try_fetch(&head, None, &head).await.unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Untrusted, "{error}");
            assert!(error.message.contains(fingerprint), "{fingerprint}: {error}");
        }
    }
    assert!(!sshd.log().contains("Accepted publickey"), "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_ends_after_one_attempt() {
    if !sshd_is_here() {
        return;
    }
    let mut place = Place::new().await;
    let sshd = Sshd::start(&place.folder.0, "ed25519").await;
    let bare = place.bare.display().to_string();
    let hosts = sshd.known_hosts();
    place.remote = sshd.remote(
        &place,
        &bare,
        &[("identity", &sshd.file("stranger")), ("known_hosts", &hosts)],
    );
    let head = place.work.head().unwrap();
    let start = Instant::now();
    for error in [
        place.tip().await.unwrap_err(),
        place.try_fetch(&head, None, &head).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
        assert!(error.message.contains("identity"), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let attempts = sshd.log().matches("Failed publickey").count();
    assert!(attempts <= 2, "{attempts} attempts\n{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_not_there_is_said() {
    if !sshd_is_here() {
        return;
    }
    let mut place = Place::new().await;
    let sshd = Sshd::start(&place.folder.0, "ed25519").await;
    let hosts = sshd.known_hosts();
    place.remote = sshd.remote(
        &place,
        "/nonexistent/specs.git",
        &[("identity", &sshd.file("ed25519")), ("known_hosts", &hosts)],
    );
    let error = place.tip().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}
