use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn fabric() -> Fabric {
    let named = |host: &str, port| match host {
        "b" => Some(Route::To(B, port)),
        "nobody" => Some(Route::Nobody),
        _ => None,
    };
    let fabric = Fabric::new(7, Box::new(named));
    fabric.plug(A);
    fabric.plug(B);
    fabric
}

/// Both ends of a connection from A to B.
async fn pair(fabric: &Fabric, listener: &mut Box<dyn Listener>) -> (Socket, Socket) {
    let ours = fabric.connect(A, "b:80").await.unwrap();
    (ours, listener.accept().await.unwrap())
}

async fn hears(socket: &mut Socket, within: Duration) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    let read = tokio::time::timeout(within, socket.stream.read(&mut buffer))
        .await
        .ok()?;
    Some(buffer[..read.unwrap()].to_vec())
}

const SOON: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_connection_carries_both_ways_and_ends_with_either_end() {
    let fabric = fabric();
    let mut listener = fabric.listen(B, 80).unwrap();
    let (mut ours, mut theirs) = pair(&fabric, &mut listener).await;
    ours.stream.write_all(b"hello").await.unwrap();
    assert_eq!(hears(&mut theirs, SOON).await.unwrap(), b"hello");
    theirs.stream.write_all(b"yes").await.unwrap();
    assert_eq!(hears(&mut ours, SOON).await.unwrap(), b"yes");
    drop(theirs);
    assert_eq!(hears(&mut ours, SOON).await.unwrap(), b"", "the end");
    assert_eq!(
        ours.stream.write_all(b"x").await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_listen_refuses_and_who_does_not_exist_is_silent() {
    let fabric = fabric();
    let kind = |done: io::Result<Socket>| done.err().map(|error| error.kind());
    for addr in ["b:81", "10.0.0.2:81", "nobody:80"] {
        assert_eq!(
            kind(fabric.connect(A, addr).await),
            Some(ErrorKind::ConnectionRefused),
            "{addr}"
        );
    }
    assert_eq!(kind(fabric.connect(A, "c:80").await), Some(ErrorKind::NotFound));
    let began = tokio::time::Instant::now();
    assert_eq!(kind(fabric.connect(A, "10.0.0.3:80").await), Some(ErrorKind::TimedOut));
    assert_eq!(began.elapsed().as_secs(), 63);
    let _port = fabric.listen(B, 80).unwrap();
    assert!(fabric.listens(B, 80) && !fabric.listens(B, 81));
    assert_eq!(fabric.listen(B, 80).err().unwrap().kind(), ErrorKind::AddrInUse);
}

#[tokio::test(start_paused = true)]
async fn a_cut_direction_holds_what_is_said_until_it_is_mended() {
    let fabric = fabric();
    let mut listener = fabric.listen(B, 80).unwrap();
    let (mut ours, mut theirs) = pair(&fabric, &mut listener).await;
    fabric.cut(A, B, true);
    ours.stream.write_all(b"late").await.unwrap();
    theirs.stream.write_all(b"the other way").await.unwrap();
    assert_eq!(hears(&mut theirs, 5 * SOON).await, None);
    assert_eq!(hears(&mut ours, SOON).await.unwrap(), b"the other way");
    let mut second = fabric.connect(A, "b:80");
    assert!(tokio::time::timeout(SOON, &mut second).await.is_err(), "no SYN arrives");
    fabric.cut(A, B, false);
    assert_eq!(hears(&mut theirs, SOON).await.unwrap(), b"late");
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_lost_its_address_says_not_even_goodbye() {
    let fabric = fabric();
    let mut listener = fabric.listen(B, 80).unwrap();
    let (mut ours, theirs) = pair(&fabric, &mut listener).await;
    fabric.unplug(B);
    drop(theirs);
    assert_eq!(hears(&mut ours, 60 * SOON).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_island_reaches_nobody_outside_of_it_whenever_they_came() {
    const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
    let fabric = fabric();
    let mut listener = fabric.listen(B, 80).unwrap();
    let (mut ours, mut theirs) = pair(&fabric, &mut listener).await;
    let island = BTreeSet::from([A]);
    fabric.isolate(&island, true);
    ours.stream.write_all(b"late").await.unwrap();
    assert_eq!(hears(&mut theirs, SOON).await, None);
    fabric.plug(C);
    let _port = fabric.listen(C, 80).unwrap();
    let mut newcomer = fabric.connect(A, "10.0.0.3:80");
    assert!(tokio::time::timeout(SOON, &mut newcomer).await.is_err());
    fabric.connect(C, "b:80").await.unwrap();
    fabric.cut(A, B, true);
    fabric.isolate(&island, false);
    assert_eq!(hears(&mut theirs, SOON).await, None, "another cut lasts");
    fabric.cut(A, B, false);
    assert_eq!(hears(&mut theirs, SOON).await.unwrap(), b"late");
}
