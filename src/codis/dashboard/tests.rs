use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    codis::{Timeouts, xauth},
    telemetry::Effects,
};

/// A request as the stand-in got it: `PUT /path` and the body.
type Seen = Arc<Mutex<Vec<(String, Bytes, HeaderMap)>>>;

/// A stand-in for a dashboard, which gives the answers in order, the last one again and again.
struct Dashboard {
    address: Address,
    seen: Seen,
}

impl Dashboard {
    async fn answering(answers: &[(u16, &str)]) -> Self {
        let answers = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()))
            .collect();
        let answers: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(answers));
        let seen = Seen::default();
        let log = seen.clone();
        let router = Router::new().fallback(async move |request: Request| {
            let line = format!("{} {}", request.method(), request.uri());
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            log.lock().unwrap().push((line, body, parts.headers));
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            let (status, body) = if answers.len() > 1 {
                answers.pop_front()
            } else {
                answers.front().cloned()
            }
            .unwrap();
            (StatusCode::from_u16(status).unwrap(), body)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, seen }
    }

    /// What was asked, with `X` for the xauth.
    fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .map(|(line, ..)| line.replace(&xauth(&["demo"]), "X"))
            .collect()
    }
}

fn door(dashboard: &Address, effects: Effects) -> Codis {
    let timeouts = Timeouts {
        redis: Duration::from_secs(2),
        read: Duration::from_millis(300),
        write: Duration::from_millis(300),
        lock: Duration::from_millis(300),
    };
    Codis::new("demo", Some("prodpw"), dashboard.clone(), effects, timeouts).unwrap()
}

fn group(number: u64) -> GroupId {
    GroupId::try_from(number).unwrap()
}

fn at(text: &str) -> Address {
    text.parse().unwrap()
}

const TOKEN: &str = "5ac01f9c105f7163fe2153f9ab72328d";

/// Every effect on the dashboard, once, by its name.
async fn effect(codis: &Codis, name: &str) -> Result<(), Error> {
    let server = at("10.96.0.7:6379");
    let slots = [
        (SlotId::try_from(0).unwrap(), group(1)),
        (SlotId::try_from(1023).unwrap(), group(2)),
    ];
    match name {
        names::CREATE_GROUP => codis.create_group(group(1)).await,
        names::ADD_SERVER => codis.add_server(group(1), &server, None).await,
        names::MARK_REPLICA => codis.mark_replica(group(1), &server, true).await,
        names::SYNC_SERVER => codis.sync_server(&server).await,
        names::PROMOTE => codis.promote(group(1), &server).await,
        names::RESYNC_GROUP => codis.resync_group(group(1)).await,
        names::ASSIGN_SLOTS => codis.assign_slots(&slots).await,
        names::ADD_SENTINEL => codis.add_sentinel(&at("10.96.0.9:26379")).await,
        names::RESYNC_SENTINELS => codis.resync_sentinels().await,
        names::ONLINE_PROXY => codis.online_proxy(&at("10.244.1.6:11080")).await,
        names::REMOVE_PROXY => codis.remove_proxy(TOKEN).await,
        names::SET_MIGRATIONS => codis.set_migrations(false).await,
        names::MOVE_SLOT => codis.move_slot(slots[0].0, group(2)).await,
        names::CANCEL_MOVE => codis.cancel_move(slots[0].0).await,
        names::REMOVE_SERVER => codis.remove_server(group(1), &server).await,
        names::REMOVE_GROUP => codis.remove_group(group(1)).await,
        names::REMOVE_SENTINEL => codis.remove_sentinel(&at("10.96.0.9:26379"), true).await,
        _ => panic!("no effect on the dashboard: {name}"),
    }
}

const EFFECTS: [(&str, &str); 17] = [
    (names::CREATE_GROUP, "PUT /api/topom/group/create/X/1"),
    (names::ADD_SERVER, "PUT /api/topom/group/add/X/1/10.96.0.7:6379"),
    (
        names::MARK_REPLICA,
        "PUT /api/topom/group/replica-groups/X/1/10.96.0.7:6379/1",
    ),
    (
        names::SYNC_SERVER,
        "PUT /api/topom/group/action/create/X/10.96.0.7:6379",
    ),
    (names::PROMOTE, "PUT /api/topom/group/promote/X/1/10.96.0.7:6379"),
    (names::RESYNC_GROUP, "PUT /api/topom/group/resync/X/1"),
    (names::ASSIGN_SLOTS, "PUT /api/topom/slots/assign/X"),
    (names::ADD_SENTINEL, "PUT /api/topom/sentinels/add/X/10.96.0.9:26379"),
    (names::RESYNC_SENTINELS, "PUT /api/topom/sentinels/resync-all/X"),
    (names::ONLINE_PROXY, "PUT /api/topom/proxy/online/X/10.244.1.6:11080"),
    (
        names::REMOVE_PROXY,
        "PUT /api/topom/proxy/remove/X/5ac01f9c105f7163fe2153f9ab72328d/1",
    ),
    (names::SET_MIGRATIONS, "PUT /api/topom/slots/action/disabled/X/1"),
    (names::MOVE_SLOT, "PUT /api/topom/slots/action/create/X/0/2"),
    (names::CANCEL_MOVE, "PUT /api/topom/slots/action/remove/X/0"),
    (names::REMOVE_SERVER, "PUT /api/topom/group/del/X/1/10.96.0.7:6379"),
    (names::REMOVE_GROUP, "PUT /api/topom/group/remove/X/1"),
    (
        names::REMOVE_SENTINEL,
        "PUT /api/topom/sentinels/del/X/10.96.0.9:26379/1",
    ),
];

#[tokio::test]
async fn migrations_are_enabled_by_not_being_disabled_and_a_sentinel_is_asked_unless_forced() {
    let dashboard = Dashboard::answering(&[(200, "\"OK\"")]).await;
    let codis = door(&dashboard.address, Effects::none());
    codis.set_migrations(true).await.unwrap();
    codis.remove_sentinel(&at("10.96.0.9:26379"), false).await.unwrap();
    let expected = [
        "PUT /api/topom/slots/action/disabled/X/0",
        "PUT /api/topom/sentinels/del/X/10.96.0.9:26379/0",
    ];
    assert_eq!(dashboard.lines(), expected);
}

#[tokio::test]
async fn a_server_of_a_known_zone_is_added_with_it_and_a_mark_is_taken_back_by_a_nought() {
    let dashboard = Dashboard::answering(&[(200, "\"OK\"")]).await;
    let (codis, server) = (door(&dashboard.address, Effects::none()), at("10.96.0.7:6379"));
    codis.add_server(group(1), &server, Some("eu-1b")).await.unwrap();
    codis.mark_replica(group(1), &server, false).await.unwrap();
    let expected = [
        "PUT /api/topom/group/add/X/1/10.96.0.7:6379/eu-1b",
        "PUT /api/topom/group/replica-groups/X/1/10.96.0.7:6379/0",
    ];
    assert_eq!(dashboard.lines(), expected);
}

#[tokio::test]
async fn each_effect_is_one_request_of_codiss_own_form_and_is_counted_once_by_its_name() {
    for (name, line) in EFFECTS {
        let dashboard = Dashboard::answering(&[(200, "\"OK\"")]).await;
        let counted: Arc<Mutex<Vec<_>>> = Arc::default();
        let counter = counted.clone();
        let effects = Effects::new(move |door, effect| {
            counter.lock().unwrap().push((door, effect));
            Ok(())
        });
        effect(&door(&dashboard.address, effects), name).await.unwrap();
        assert_eq!(dashboard.lines(), [line]);
        assert_eq!(*counted.lock().unwrap(), [("codis", name)]);
        let (_, body, headers) = dashboard.seen.lock().unwrap()[0].clone();
        assert!(!headers.contains_key(header::ACCEPT_ENCODING), "{name}");
        if name == names::ASSIGN_SLOTS {
            assert_eq!(body, r#"[{"id":0,"group_id":1},{"id":1023,"group_id":2}]"#);
            assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        } else {
            assert_eq!(headers[header::CONTENT_LENGTH], "0", "{name}");
        }
    }
}

#[tokio::test]
async fn an_effect_that_is_held_back_isnt_sent() {
    for (name, _) in EFFECTS {
        let dashboard = Dashboard::answering(&[(200, "\"OK\"")]).await;
        let effects = Effects::new(|_, _| Err("crash".to_owned()));
        let error = effect(&door(&dashboard.address, effects), name).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{name} wasn't sent: crash"));
        assert!(dashboard.lines().is_empty());
    }
}

#[tokio::test]
async fn a_refusal_that_says_that_it_is_done_already_is_a_success() {
    for (name, cause) in [
        (names::CREATE_GROUP, "group-[1] already exists"),
        (names::ADD_SERVER, "server-[10.96.0.7:6379] already exists"),
        (names::SYNC_SERVER, "server-[10.96.0.7:6379] action already exist"),
        (names::ADD_SENTINEL, "sentinel-[10.96.0.9:26379] already exists"),
        (
            names::REMOVE_PROXY,
            "proxy-[5ac01f9c105f7163fe2153f9ab72328d] doesn't exist",
        ),
        (names::REMOVE_SERVER, "group-[1] doesn't have server-[10.96.0.7:6379]"),
        (names::REMOVE_SERVER, "group-[1] doesn't exist"),
        (names::REMOVE_GROUP, "group-[1] doesn't exist"),
        (names::REMOVE_SENTINEL, "sentinel-[10.96.0.9:26379] not found"),
    ] {
        let answer = format!(r#"{{"Cause":"{cause}","Stack":null}}"#);
        let dashboard = Dashboard::answering(&[(800, &answer)]).await;
        let done = effect(&door(&dashboard.address, Effects::none()), name).await;
        assert_eq!(done, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn any_other_refusal_is_one_with_its_cause() {
    for (name, _) in EFFECTS {
        let cause = "group-[9] doesn't exist";
        let answer = format!(r#"{{"Cause":"{cause}","Stack":[{{"Name":"a","File":"b","Line":1}}]}}"#);
        let dashboard = Dashboard::answering(&[(800, &answer)]).await;
        let error = effect(&door(&dashboard.address, Effects::none()), name)
            .await
            .unwrap_err();
        let peer = dashboard.address.clone();
        assert_eq!(
            error,
            Error::Refused {
                peer,
                cause: cause.to_owned()
            },
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_told_without_the_xauths_of_proxies() {
    let cause = "Put http://10.244.1.6:11080/api/proxy/start/2c0387db92c0a87441d84a17106631f9: EOF";
    let dashboard = Dashboard::answering(&[(800, &format!(r#"{{"Cause":"{cause}"}}"#))]).await;
    let codis = door(&dashboard.address, Effects::none());
    let error = codis.online_proxy(&at("10.244.1.6:11080")).await.unwrap_err();
    assert!(error.to_string().ends_with("/api/proxy/start/***: EOF"), "{error}");
}

#[tokio::test]
async fn a_refused_resync_of_sentinels_is_repeated_at_once_until_it_succeeds() {
    let refused = (800, r#"{"Cause":"read tcp a->b: use of closed network connection"}"#);
    let dashboard = Dashboard::answering(&[refused, refused, refused, (200, "\"OK\"")]).await;
    let codis = door(&dashboard.address, Effects::none());
    assert_eq!(codis.resync_sentinels().await, Ok(()));
    assert_eq!(dashboard.lines().len(), 4);
}

#[tokio::test]
async fn a_resync_of_sentinels_is_given_up_after_eight_refusals() {
    let dashboard = Dashboard::answering(&[(800, r#"{"Cause":"dial tcp b: i/o timeout"}"#)]).await;
    let codis = door(&dashboard.address, Effects::none());
    let error = codis.resync_sentinels().await.unwrap_err();
    assert!(
        matches!(error, Error::Refused { .. }) && error.is_retryable(),
        "{error}"
    );
    assert_eq!(dashboard.lines().len(), 8);
}

#[tokio::test]
async fn a_resync_of_sentinels_that_failed_otherwise_isnt_repeated() {
    let dashboard = Dashboard::answering(&[(500, "<html>")]).await;
    let codis = door(&dashboard.address, Effects::none());
    assert!(matches!(codis.resync_sentinels().await, Err(Error::Unexpected { .. })));
    assert_eq!(dashboard.lines().len(), 1);
}

#[tokio::test]
async fn what_isnt_codiss_answer_is_unexpected() {
    for (status, body, expected) in [
        (500, "<html>PANIC</html>", "status 500"),
        (404, "404 page not found", "status 404"),
        (302, "", "status 302"),
        (800, "{\"Cau", "status 800"),
        (502, r#"{"Cause":"not from Codis"}"#, "status 502"),
        (200, "<html>log in</html>", "not \"OK\""),
        (200, "\"O", "not \"OK\""),
    ] {
        let dashboard = Dashboard::answering(&[(status, body)]).await;
        let error = effect(&door(&dashboard.address, Effects::none()), names::PROMOTE)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} answered unexpectedly: {expected}", dashboard.address)
        );
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_token_cant_lead_to_another_path() {
    let dashboard = Dashboard::answering(&[(200, "\"OK\"")]).await;
    let codis = door(&dashboard.address, Effects::none());
    codis.remove_proxy("../../shutdown?x#y").await.unwrap();
    assert_eq!(
        dashboard.lines(),
        ["PUT /api/topom/proxy/remove/X/..%2F..%2Fshutdown%3Fx%23y/1"]
    );
}

/// A listener that does `what` with its first connection, once it has been sent something.
async fn listener(what: &'static [u8], then_hang: bool) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(what).await;
        if then_hang {
            std::future::pending::<()>().await;
        }
    });
    address
}

async fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Address::new("127.0.0.1", listener.local_addr().unwrap().port())
}

#[tokio::test]
async fn a_dashboard_that_is_gone_hangs_or_breaks_off_makes_retryable_errors_without_the_path() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\"O";
    for (address, expected) in [
        (nobody().await, "is unreachable: Connection refused"),
        (listener(b"", true).await, "didn't answer within 0.3 s"),
        (listener(half, true).await, "didn't answer within 0.3 s"),
        (listener(b"", false).await, "is unreachable: "),
        (listener(half, false).await, "is unreachable: "),
    ] {
        let error = door(&address, Effects::none())
            .create_group(group(1))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("{address} {expected}")), "{text}");
        assert!(error.is_retryable(), "{text}");
        assert!(!format!("{text} {error:?}").contains(&xauth(&["demo"])), "{text}");
    }
}

async fn view(codis: &Codis) -> String {
    match codis.dashboard().await {
        DashboardView::Online { version, .. } => version,
        DashboardView::Unavailable(why) => why,
    }
}

#[tokio::test]
async fn a_dashboard_that_cant_be_read_is_unavailable_and_tells_why() {
    let waits: serde_json::Value = serde_json::from_str(include_str!("../fixtures/err-topom-not-online.json")).unwrap();
    for (status, body, expected) in [
        (800, waits["body"].to_string(), "waits for its lock"),
        (
            800,
            r#"{"Cause":"use of closed topom"}"#.to_owned(),
            "refused: use of closed topom",
        ),
        (500, "<html>".to_owned(), "answered unexpectedly: status 500"),
        (
            200,
            r#"{"version":"1","stats":{"slots":[{"#.to_owned(),
            "its answer is no overview: EOF",
        ),
    ] {
        let dashboard = Dashboard::answering(&[(status, &body)]).await;
        let why = view(&door(&dashboard.address, Effects::none())).await;
        assert!(why.contains(expected), "{why}");
    }
    let why = view(&door(&nobody().await, Effects::none())).await;
    assert!(why.contains("is unreachable"), "{why}");
    let why = view(&door(&listener(b"", true).await, Effects::none())).await;
    assert!(why.contains("didn't answer within 0.3 s"), "{why}");
}

#[tokio::test]
async fn looking_at_the_dashboard_is_one_read_and_no_effect() {
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../fixtures/topom-bootstrapped.json")).unwrap();
    let dashboard = Dashboard::answering(&[(200, &recorded["body"].to_string())]).await;
    let effects = Effects::new(|_, _| Err("a read is no effect".to_owned()));
    assert!(view(&door(&dashboard.address, effects)).await.contains("@de1ad026"));
    assert_eq!(dashboard.lines(), ["GET /topom"]);
}
