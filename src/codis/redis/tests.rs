use std::{collections::BTreeSet, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::domain::GroupId;
use crate::{
    codis::{SentinelSettings, Timeouts},
    telemetry::Effects,
};

fn up(replication: Replication, offset: u64, keys: u64) -> ServerView {
    ServerView::Up {
        replication,
        offset,
        keys,
        uptime: 0,
        link_down_for: None,
        replicas: BTreeSet::new(),
        memory: Memory::default(),
        fenced: false,
    }
}

#[test]
fn a_restarted_server_tells_its_age_and_its_fence() {
    let info = "role:master\r\nuptime_in_seconds:7\r\nmin_slaves_good_slaves:0\r\n";
    let fenced = matches!(
        parse_info(info),
        Ok(ServerView::Up {
            uptime: 7,
            fenced: true,
            ..
        })
    );
    assert!(fenced, "{:?}", parse_info(info));
}

fn replica_of(master: &str, link_up: bool) -> Replication {
    Replication::Replica {
        master: master.parse().unwrap(),
        link_up,
    }
}

#[test]
fn a_master_tells_its_replicas_by_the_addresses_that_they_announced() {
    let info = "role:master\r\nconnected_slaves:2\r\nslave0:ip=10.96.0.7,port=6379,state=online,offset=43,lag=0\r\n\
                slave1:ip=10.96.0.8,port=6380,state=wait_bgsave,offset=0,lag=0\r\nslave_priority:100\r\n";
    let Ok(ServerView::Up { replicas, .. }) = parse_info(info) else {
        panic!("{:?}", parse_info(info));
    };
    let expected = ["10.96.0.7:6379", "10.96.0.8:6380"].map(|text| text.parse().unwrap());
    assert_eq!(replicas, BTreeSet::from(expected));
}

#[test]
fn a_servers_info_becomes_a_view() {
    let replica = "loading:0\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n";
    for (info, expected) in [
        (
            "# Replication\r\nrole:master\r\nmaster_repl_offset:2093\r\n".to_owned(),
            up(Replication::Master, 2093, 0),
        ),
        (
            "loading:0\nrole:master\nmaster_repl_offset:7\ndb0:keys=3,expires=0,avg_ttl=0\ndb12:keys=4,expires=1\ndb_x:keys=9"
                .to_owned(),
            up(Replication::Master, 7, 7),
        ),
        (
            format!("{replica}master_link_status:up\r\nslave_repl_offset:42\r\nmaster_repl_offset:41\r\n"),
            up(replica_of("10.0.0.1:6379", true), 42, 0),
        ),
        (
            format!("{replica}master_link_status:down\r\nslave_repl_offset:1\r\n"),
            up(replica_of("10.0.0.1:6379", false), 1, 0),
        ),
        ("loading:1\r\nrole:master\r\n".to_owned(), ServerView::Loading),
    ] {
        assert_eq!(parse_info(&info), Ok(expected), "{info}");
    }
}

#[test]
fn an_info_without_what_it_needs_is_told_in_words() {
    for (info, expected) in [
        ("", "its INFO has no role"),
        ("role:sentinel", r#"its INFO has role "sentinel": it is no server"#),
        ("role:slave", "its INFO has no master_port"),
        ("role:slave\nmaster_port:99999", r#"its INFO has master_port "99999""#),
        ("role:slave\nmaster_port:1", "its INFO has no master_host"),
        (
            "role:slave\nmaster_port:1\nmaster_host:a",
            "its INFO has no master_link_status",
        ),
    ] {
        assert_eq!(parse_info(info), Err(expected.to_owned()), "{info}");
    }
}

/// A peer that gives each connection these replies, one per command, and then says nothing more.
async fn peer(replies: &'static [&'static str]) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        for reply in replies {
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(reply.as_bytes()).await;
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    address
}

fn codis() -> Codis {
    let timeouts = Timeouts {
        redis: Duration::from_millis(300),
        ..Timeouts::default()
    };
    let nobody = Address::new("127.0.0.1", 1);
    Codis::new("demo", Some("prodpw"), nobody, Effects::none(), timeouts).unwrap()
}

#[tokio::test]
async fn a_server_that_refuses_is_unreachable_in_its_own_words_and_one_that_loads_is_loading() {
    let unreachable = |why: &str| ServerView::Unreachable(why.to_owned());
    let cases: [(&[&str], ServerView); 7] = [
        (&["-ERR invalid password\r\n"], unreachable("ERR invalid password")),
        (
            &["-ERR Client sent AUTH, but no password is set\r\n"],
            unreachable("ERR Client sent AUTH, but no password is set"),
        ),
        (
            &["-WRONGPASS invalid username-password pair or user is disabled.\r\n"],
            unreachable("WRONGPASS invalid username-password pair or user is disabled."),
        ),
        (
            &["+OK\r\n", "-NOAUTH Authentication required.\r\n"],
            unreachable("NOAUTH Authentication required."),
        ),
        (
            &["-ERR unknown command 'AUTH', with args beginning with: 'prodpw' \r\n"],
            unreachable("ERR unknown command 'AUTH', with args beginning with: '***' "),
        ),
        (
            &["+OK\r\n", "-LOADING Redis is loading the dataset in memory\r\n"],
            ServerView::Loading,
        ),
        (&["+OK\r\n", "$11\r\nrole:master\r\n"], up(Replication::Master, 0, 0)),
    ];
    for (replies, expected) in cases {
        assert_eq!(codis().server(&peer(replies).await).await, expected, "{replies:?}");
    }
}

#[tokio::test]
async fn a_refused_parameter_is_named_and_its_value_told_unless_it_is_a_password() {
    for (key, reply, expected) in [
        (
            "maxmemory",
            "-ERR Invalid argument 'hunter3' for CONFIG SET 'maxmemory'\r\n",
            "maxmemory: ERR Invalid argument 'hunter3' for CONFIG SET 'maxmemory'",
        ),
        (
            "requirepass",
            "-ERR Invalid argument 'hunter3' for CONFIG SET 'requirepass'\r\n",
            "requirepass: ERR Invalid argument",
        ),
        (
            "masterauth",
            "-ERR unknown command `CONFIG`, with args beginning with: `SET`, `masterauth`, `hunt`\r\n",
            "masterauth: ERR unknown command",
        ),
    ] {
        let peer = peer(Box::leak(Box::new(["+OK\r\n", reply]))).await;
        let pair = (key.to_owned(), "hunter3".to_owned());
        let error = codis().set_config(&peer, &[pair]).await.unwrap_err();
        let cause = expected.to_owned();
        assert_eq!(error, Error::Refused { peer, cause });
    }
}

#[test]
fn offsets_meet_between_a_master_and_its_linked_replica_only() {
    let master = "10.0.0.1:6379";
    let at = |replication, offset| up(replication, offset, 0);
    for (goal, reached, expected) in [
        (at(Replication::Master, 7), at(replica_of(master, true), 7), Some(true)),
        (at(Replication::Master, 7), at(replica_of(master, true), 6), Some(false)),
        (at(Replication::Master, 7), at(replica_of(master, true), 8), Some(false)),
        (at(Replication::Master, 7), at(replica_of(master, false), 7), None),
        (
            at(Replication::Master, 7),
            at(replica_of("10.0.0.2:6379", true), 7),
            None,
        ),
        (at(Replication::Master, 7), at(Replication::Master, 7), None),
        (at(replica_of(master, true), 7), at(replica_of(master, true), 7), None),
        (ServerView::Loading, at(replica_of(master, true), 7), None),
    ] {
        let met = have_met(&goal, &reached, &master.parse().unwrap());
        assert_eq!(met, expected, "{goal:?} {reached:?}");
    }
}

#[tokio::test]
async fn a_server_is_told_auth_and_info_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"+OK\r\n$11\r\nrole:master\r\n").await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    });
    codis().server(&address).await;
    // That it ends at all says that the door closes its connection.
    let said = server.await.unwrap();
    assert_eq!(said, "*2\r\n$4\r\nAUTH\r\n$6\r\nprodpw\r\n*1\r\n$4\r\nINFO\r\n");
}

#[tokio::test]
async fn a_server_that_hangs_or_babbles_is_unreachable() {
    let ServerView::Unreachable(why) = codis().server(&peer(&[]).await).await else {
        panic!("it is unreachable");
    };
    assert!(why.ends_with("didn't answer within 0.3 s"), "{why}");
    let ServerView::Unreachable(why) = codis().server(&peer(&["HTTP/1.1 400 Bad Request\r\n"]).await).await else {
        panic!("it is unreachable");
    };
    assert!(why.contains("answered unexpectedly"), "{why}");
}

#[tokio::test]
async fn several_silent_servers_cost_the_time_of_one() {
    let mut addresses = Vec::new();
    for _ in 0..10 {
        addresses.push(peer(&[]).await);
    }
    let began = std::time::Instant::now();
    let views = codis().servers(addresses).await;
    assert_eq!(views.len(), 10);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_sentinels_rows_become_its_masters() {
    let row = "*12\r\n$4\r\nname\r\n$6\r\ndemo-1\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n$4\r\nport\r\n$4\r\n6379\r\n\
        $5\r\nflags\r\n$13\r\ns_down,master\r\n$10\r\nnum-slaves\r\n$1\r\n2\r\n$19\r\nnum-other-sentinels\r\n$1\r\n1\r\n";
    let reply: &'static str = Box::leak(format!("*1\r\n{row}").into_boxed_str());
    let replies: &'static [&'static str] = Box::leak(Box::new([
        reply,
        "*1\r\n*6\r\n$2\r\nip\r\n$8\r\n10.0.0.2\r\n$4\r\nport\r\n$4\r\n6379\r\n$18\r\nlast-ok-ping-reply\r\n$3\r\n250\r\n",
        "$15\r\nsentinel_tilt:1\r\n",
    ]));
    let address = peer(replies).await;
    let views = codis().sentinels([address.clone()]).await;
    assert!(views[&address].as_ref().unwrap().in_tilt);
    let master = &views[&address].as_ref().unwrap().masters["demo-1"];
    assert_eq!(master.address.to_string(), "10.0.0.1:6379");
    assert_eq!((master.replicas, master.other_sentinels), (2, 1));
    assert_eq!(master.flags, "s_down,master");
    let silence: Vec<_> = master
        .replica_silence
        .iter()
        .map(|(who, ms)| (who.to_string(), *ms))
        .collect();
    assert_eq!(silence, [("10.0.0.2:6379".to_owned(), 250)]);
}

#[tokio::test]
async fn a_sentinel_that_is_none_or_lacks_a_field_is_an_error_in_words() {
    let cases: [(&'static [&'static str], &str); 2] = [
        (
            &["-ERR unknown command 'SENTINEL'\r\n"],
            "ERR unknown command 'SENTINEL'",
        ),
        (
            &["*1\r\n*2\r\n$4\r\nname\r\n$6\r\ndemo-1\r\n", "*0\r\n", "$0\r\n\r\n"],
            "a master has no port",
        ),
    ];
    for (replies, expected) in cases {
        let address = peer(replies).await;
        let views = codis().sentinels([address.clone()]).await;
        assert_eq!(views[&address], Err(expected.to_owned()));
    }
}

#[tokio::test]
async fn a_sentinel_that_hangs_makes_monitor_time_out() {
    let settings = SentinelSettings {
        quorum: 2,
        parallel_syncs: 1,
        down_after: Duration::from_secs(5),
        failover_timeout: Duration::from_secs(60),
    };
    let master = Address::new("10.0.0.1", 6379);
    let group = GroupId::try_from(1).unwrap();
    let error = codis()
        .monitor(&peer(&[]).await, group, &master, &settings)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Timeout { .. }) && error.is_retryable(),
        "{error}"
    );
}
