use std::{sync::Mutex, time::Duration};

use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

use super::*;
use crate::{
    codis::{Codis, Error, Timeouts, coordinator_reachable, xauth},
    domain::{DashboardView, GroupId, ServerView},
    telemetry::Effects,
};

/// What becomes of every connection in a small world.
#[derive(Clone, Copy)]
enum Fate {
    /// Each thing that is said gets the next of these, and then the peer waits for the end.
    Answers(&'static [&'static str]),
    /// Nobody listens.
    Refused,
    /// No packet arrives.
    Lost,
}

/// A network with one kind of peer. It keeps what was said on each connection that was closed.
struct World {
    fate: Fate,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Network for World {
    fn connect(&self, peer: &Address) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (fate, heard, peer) = (self.fate, self.heard.clone(), peer.clone());
        let opened = async move {
            let answers = match fate {
                Fate::Answers(answers) => answers,
                Fate::Refused => return Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                Fate::Lost => return std::future::pending().await,
            };
            let (ours, theirs) = duplex(4096);
            tokio::spawn(async move {
                let said = play(theirs, answers).await;
                heard.lock().unwrap().push(format!("{peer} {said}"));
            });
            Ok(Box::new(ours) as Box<dyn Stream>)
        };
        opened.boxed()
    }
}

/// A peer with a script. What it was told, once the other side is gone.
async fn play(mut stream: DuplexStream, answers: &[&str]) -> String {
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    for answer in answers {
        let length = stream.read(&mut buffer).await.unwrap_or(0);
        said.extend_from_slice(&buffer[..length]);
        let _ = stream.write_all(answer.as_bytes()).await;
    }
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8(said).unwrap()
}

/// A door in a world, and what was said there.
fn door(fate: Fate) -> (Codis, Arc<Mutex<Vec<String>>>) {
    let (link, heard) = link(fate);
    let dashboard = Address::new("demo-dashboard", 18080);
    let door = Codis::new("demo", Some("prodpw"), dashboard, Effects::none(), Timeouts::default()).unwrap();
    (door.over(link), heard)
}

fn link(fate: Fate) -> (Link, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let world = World {
        fate,
        heard: heard.clone(),
    };
    (Link::over(Arc::new(world)), heard)
}

/// What was said, once every connection is closed. Virtual time makes the wait none.
async fn said(heard: &Mutex<Vec<String>>) -> Vec<String> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let said = heard.lock().unwrap();
    said.iter().map(|line| line.replace(&xauth(&["demo"]), "X")).collect()
}

fn group() -> GroupId {
    GroupId::try_from(7).unwrap()
}

fn server() -> Address {
    Address::new("10.96.0.7", 6379)
}

#[tokio::test(start_paused = true)]
async fn a_dashboard_is_asked_over_a_network_as_over_sockets() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\"OK\"";
    let (codis, heard) = door(Fate::Answers(&[OK]));
    codis.create_group(group()).await.unwrap();
    codis.assign_slots(&[]).await.unwrap();
    let view = codis.dashboard().await;
    assert!(matches!(&view, DashboardView::Unavailable(_)), "\"OK\" is no topology");
    let said = said(&heard).await;
    let lines: Vec<_> = said.iter().filter_map(|all| all.lines().next()).collect();
    let host = "demo-dashboard:18080";
    assert_eq!(
        lines,
        [
            format!("{host} PUT /api/topom/group/create/X/7 HTTP/1.1"),
            format!("{host} PUT /api/topom/slots/assign/X HTTP/1.1"),
            format!("{host} GET /topom HTTP/1.1"),
        ]
    );
    let all_have_host = said.iter().all(|all| all.contains(&format!("\r\nhost: {host}\r\n")));
    assert!(all_have_host, "{said:?}");
    assert!(said[0].contains("\r\ncontent-length: 0\r\n"), "{said:?}");
    assert!(said[1].contains("\r\ncontent-type: application/json\r\n"), "{said:?}");
    assert!(said[1].ends_with("\r\n\r\n[]"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_with_a_dashboard_has_the_same_kinds_over_a_network() {
    let peer = Address::new("demo-dashboard", 18080);
    let unreachable = |cause: &str| Error::Unreachable {
        peer: peer.clone(),
        cause: cause.to_owned(),
    };
    let unexpected = |cause: &str| Error::Unexpected {
        peer: peer.clone(),
        cause: cause.to_owned(),
    };
    let cases = [
        (
            Fate::Answers(&[
                "HTTP/1.1 800 status code 800\r\nContent-Length: 52\r\n\r\n{\"Cause\":\"group-[7] is promoting\",\"Stack\":\"main.go\"}",
            ]),
            Error::Refused {
                peer: peer.clone(),
                cause: "group-[7] is promoting".to_owned(),
            },
            0,
        ),
        (
            Fate::Answers(&["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]),
            unexpected("status 404"),
            0,
        ),
        (
            Fate::Answers(&["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\"NO\""]),
            unexpected("not \"OK\""),
            0,
        ),
        (Fate::Refused, unreachable("connection refused"), 0),
        (Fate::Lost, unreachable("operation timed out"), 2),
        (
            Fate::Answers(&[]),
            Error::Timeout {
                peer: peer.clone(),
                after: Duration::from_secs(90),
            },
            90,
        ),
        (
            Fate::Answers(&["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\"O"]),
            Error::Timeout {
                peer: peer.clone(),
                after: Duration::from_secs(90),
            },
            90,
        ),
    ];
    for (fate, expected, seconds) in cases {
        let began = Instant::now();
        let (codis, _) = door(fate);
        assert_eq!(codis.create_group(group()).await, Err(expected.clone()));
        assert_eq!(began.elapsed().as_secs(), seconds, "{expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_over_a_network_as_over_sockets() {
    const INFO: &str = "$35\r\nrole:master\r\nmaster_repl_offset:5\r\n\r\n";
    let unreachable = |why: &str| ServerView::Unreachable(why.to_owned());
    let timed_out = "10.96.0.7:6379 didn't answer within 2 s";
    let cases: [(Fate, Option<ServerView>, u64); 5] = [
        (Fate::Answers(&["+OK\r\n", INFO]), None, 0),
        (
            Fate::Answers(&["-ERR invalid password\r\n"]),
            Some(unreachable("ERR invalid password")),
            0,
        ),
        (
            Fate::Refused,
            Some(unreachable("10.96.0.7:6379 is unreachable: connection refused")),
            0,
        ),
        (Fate::Lost, Some(unreachable(timed_out)), 2),
        (Fate::Answers(&[]), Some(unreachable(timed_out)), 2),
    ];
    for (fate, expected, seconds) in cases {
        let (began, (codis, heard)) = (Instant::now(), door(fate));
        let view = codis.server(&server()).await;
        match expected {
            Some(expected) => assert_eq!(view, expected),
            None => assert!(matches!(view, ServerView::Up { offset: 5, .. }), "{view:?}"),
        }
        assert_eq!(began.elapsed().as_secs(), seconds, "{view:?}");
        // The connection closed with the conversation: it is heard of only then, also where an answer is still due.
        let auth = "10.96.0.7:6379 *2\r\n$4\r\nAUTH\r\n$6\r\nprodpw\r\n";
        let said = said(&heard).await;
        let connects = matches!(fate, Fate::Answers(_));
        assert_eq!(
            said.iter().filter(|all| all.starts_with(auth)).count(),
            usize::from(connects),
            "{said:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_is_reached_over_a_network_as_over_sockets() {
    let cases = [
        (Fate::Answers(&[]), Ok(()), 0),
        (Fate::Refused, Err("10.96.0.7:6379: connection refused".to_owned()), 0),
        (Fate::Lost, Err("10.96.0.7:6379: no answer within 2 s".to_owned()), 2),
    ];
    for (fate, expected, seconds) in cases {
        let (began, (link, _)) = (Instant::now(), link(fate));
        assert_eq!(coordinator_reachable(&link, &[server()]).await, expected);
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
}
