//! The programs as they are started: names, flags, files, signals, exit codes, logs.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Folder, Process, free_port, until};

/// The program under a name of Codis.
pub fn program(folder: &Folder, name: &str) -> Command {
    let path: PathBuf = folder.0.join(name);
    if !path.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_codis-double"), &path).unwrap();
    }
    Command::new(path)
}

pub fn run(folder: &Folder, name: &str, args: &[&str]) -> Output {
    program(folder, name).args(args).output().unwrap()
}

pub async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("http://127.0.0.1:{port}{path}")).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

pub fn terminate(process: &mut Process) -> Option<i32> {
    let killed = Command::new("kill").arg(process.0.id().to_string()).status().unwrap();
    assert!(killed.success());
    process.0.wait().unwrap().code()
}

#[test]
fn each_name_tells_that_it_is_the_stand_in() {
    let folder = Folder::new();
    for name in ["codis-dashboard", "codis-proxy", "codis-fe", "codis-admin"] {
        let output = run(&folder, name, &["--version"]);
        assert!(output.status.success());
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("codis-double 3.2.2"),
            "{name}"
        );
    }
}

#[test]
fn mistakes_end_with_exit_code_1() {
    let folder = Folder::new();
    let bad = folder.file("bad.toml", "product_name = \"demo\"\nsentinel_quorum = 0\n");
    let table: [(&str, &[&str], &str); 8] = [
        ("codis-dashboard", &["-c", &bad], "invalid sentinel_quorum"),
        ("codis-dashboard", &["--product_name", "a b"], "bad product name = a b"),
        (
            "codis-fe",
            &["--listen=127.0.0.1:0", "--etcd=127.0.0.1:1", "--etcd-auth=nobody"],
            "invalid auth",
        ),
        (
            "codis-proxy",
            &["--product_auth", ""],
            "option --product_auth requires an argument",
        ),
        ("codis-proxy", &["--host-admin=0.0.0.0:0"], "invalid advertised address"),
        ("codis-proxy", &["--unheard-of"], "usage: codis-proxy"),
        (
            "codis-fe",
            &["--listen=127.0.0.1:0", "--assets=/nowhere", "-d", "x"],
            "no index.html",
        ),
        (
            "codis-admin",
            &["--dashboard=127.0.0.1:1", "config"],
            "connection refused",
        ),
    ];
    for (name, args, text) in table {
        let output = run(&folder, name, args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {told}");
        assert!(told.contains(text), "{name} {args:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_lives_and_dies_with_its_processes() {
    let folder = Folder::new();
    let (dashboard, admin, clients, fe) = (free_port(), free_port(), free_port(), free_port());
    let root = folder.0.join("store").display().to_string();
    let toml =
        format!("product_name = \"demo\"\nproduct_auth = \"prodpw\"\ncoordinator_addr = \"{root}\"\nextra = 1\n");
    let (toml, log) = (folder.file("dashboard.toml", &toml), folder.0.join("dashboard.log"));
    let listen = folder.file(
        "d.toml",
        &format!("{}admin_addr = \"127.0.0.1:{dashboard}\"\n", read(&toml)),
    );
    let mut first = Process::spawn(
        program(&folder, "codis-dashboard")
            .args(["-c", &listen])
            .stderr(std::fs::File::create(&log).unwrap()),
    );
    until("the dashboard is online", || async {
        matches!(get(dashboard, "/topom").await, Some((200, _)))
    })
    .await;

    let proxy = format!(
        "product_name = \"demo\"\nproduct_auth = \"prodpw\"\nsession_auth = \"sesspw\"\n\
         admin_addr = \"127.0.0.1:{admin}\"\nproxy_addr = \"127.0.0.1:{clients}\"\n"
    );
    let proxy = folder.file("proxy.toml", &proxy);
    let mut second = Process::spawn(
        program(&folder, "codis-proxy")
            .args(["-c", &proxy, &format!("--dashboard=127.0.0.1:{dashboard}")])
            .stderr(Stdio::null()),
    );
    until("the proxy is online", || async {
        get(admin, "/proxy/stats")
            .await
            .is_some_and(|(_, text)| text.contains("\"online\": true"))
    })
    .await;

    folder.file("index.html", "<p>fe");
    let assets = folder.0.display().to_string();
    let listen = format!("127.0.0.1:{fe}");
    let _third = Process::spawn(
        program(&folder, "codis-fe")
            .args(["--filesystem", &root, "--assets", &assets, "--listen", &listen])
            .stderr(Stdio::null()),
    );
    until("the fe is up", || async {
        get(fe, "/").await == Some((200, "<p>fe".into()))
    })
    .await;
    assert_eq!(
        get(fe, "/topom/model?forward=demo").await,
        Some((403, String::new())),
        "before the first list"
    );
    until("the list is loaded", || async {
        get(fe, "/list").await.is_some_and(|(_, text)| text.contains("demo"))
    })
    .await;
    assert!(
        get(fe, "/topom/model?forward=demo")
            .await
            .is_some_and(|(status, text)| status == 200 && text.contains("demo"))
    );
    assert_eq!(get(fe, "/topom/model?forward=nope").await, Some((403, String::new())));

    let at = format!("--dashboard=127.0.0.1:{dashboard}");
    let config = run(&folder, "codis-admin", &[&at, "config"]);
    let config: Value = serde_json::from_slice(&config.stdout).unwrap();
    assert_eq!(
        (&config["product_name"], config.get("product_auth")),
        (&Value::from("demo"), None)
    );
    let created = run(&folder, "codis-admin", &[&at, "--create-group", "--gid=1"]);
    assert!(created.status.success());
    let again = run(&folder, "codis-admin", &[&at, "--create-group", "--gid=1"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("group-[1] already exists"));

    assert_eq!(terminate(&mut second), Some(0));
    first.kill();
    let list = run(&folder, "codis-admin", &["--dashboard-list", "--filesystem", &root]);
    assert!(
        String::from_utf8_lossy(&list.stdout).contains("demo"),
        "the lock outlives a kill"
    );
    for _ in 0..2 {
        let removed = run(
            &folder,
            "codis-admin",
            &["--remove-lock", "--product=demo", "--filesystem", &root],
        );
        assert!(removed.status.success());
    }
    let dumped = run(
        &folder,
        "codis-admin",
        &["--config-dump", "--product=demo", "--filesystem", &root],
    );
    let dumped: Value = serde_json::from_slice(&dumped.stdout).unwrap();
    assert_eq!(
        (
            dumped["group"][0]["id"].as_i64(),
            dumped["proxy"].as_array().map(Vec::len)
        ),
        (Some(1), Some(1))
    );

    let told = read(&log.display().to_string());
    assert!(told.contains("[WARN] API call /api/topom/group/create/"), "{told}");
    assert!(!told.contains("prodpw"), "passwords are not logged");
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}
