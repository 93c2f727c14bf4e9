//! The program as a pod runs it.
#![allow(
    clippy::unwrap_used,
    reason = "the lint's exception for tests doesn't know helpers of tests"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use codis_git_server::WorkTree;

struct Program(Child, PathBuf);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_dir_all(&self.1);
    }
}

fn ask(address: &str, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[test]
fn it_makes_its_repositories_takes_pushes_and_switches_faults() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("git-server-{}", std::process::id()));
    let child = Command::new(env!("CARGO_BIN_EXE_codis-git-server"))
        .args(["--listen", "127.0.0.1:0", "--repo", "one", "--repo", "two", "--root"])
        .arg(folder.join("root"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut program = Program(child, folder.clone());
    let mut line = String::new();
    BufReader::new(program.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    assert_eq!(ask(&address, "GET", "/-/healthz"), "HTTP/1.1 200 OK");
    for name in ["one", "two"] {
        let work = WorkTree::clone(&format!("http://{address}/{name}.git"), &folder.join(name)).unwrap();
        let id = work.publish("a.yaml", "a: 1\n").unwrap();
        let list = || work.git(&["ls-remote", "origin", "refs/heads/main"]);
        assert!(list().unwrap().starts_with(&id));
        for (fault, works) in [("404", false), ("truncated", true), ("none", true)] {
            assert_eq!(
                ask(&address, "POST", &format!("/-/fault/{name}/{fault}")),
                "HTTP/1.1 200 OK"
            );
            assert_eq!(list().is_ok(), works, "{fault}");
        }
        assert_eq!(ask(&address, "POST", "/-/fault/all/500"), "HTTP/1.1 200 OK");
        assert!(list().is_err());
        assert_eq!(ask(&address, "POST", "/-/fault/all/none"), "HTTP/1.1 200 OK");
        assert!(list().is_ok());
    }
    assert_eq!(
        ask(&address, "POST", "/-/fault/all/nonsense"),
        "HTTP/1.1 400 Bad Request"
    );
}
