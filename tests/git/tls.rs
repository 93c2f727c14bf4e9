//! HTTPS with a private authority: the poll trusts it by rustls, the fetch by OpenSSL.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use codis_operator::gitops::git::{Credentials, ErrorKind, Remote, Tip};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Place, credentials, texts};

fn openssl(folder: &Path, line: &str) {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(line.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An authority and a certificate of it for `name`, as `<prefix>-ca.pem`, `<prefix>.pem` and `<prefix>.key`.
fn certificates(folder: &Path, prefix: &str, name: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        folder,
        &format!("req -x509 {key} -days 2 -subj /CN={prefix}-ca -keyout {prefix}-ca.key -out {prefix}-ca.pem"),
    );
    openssl(
        folder,
        &format!("req {key} -subj /CN={prefix} -keyout {prefix}.key -out {prefix}.csr"),
    );
    fs::write(folder.join("extensions"), format!("subjectAltName={name}\n")).unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in {prefix}.csr -CA {prefix}-ca.pem -CAkey {prefix}-ca.key -CAcreateserial -days 2 \
             -extfile extensions -out {prefix}.pem"
        ),
    );
}

/// TLS in front of a server.
async fn front(folder: &Path, prefix: &str, behind: SocketAddr) -> (u16, JoinHandle<()>) {
    let (port, task, _) = counting_front(folder, prefix, behind).await;
    (port, task)
}

/// The same, with the number of connections.
async fn counting_front(folder: &Path, prefix: &str, behind: SocketAddr) -> (u16, JoinHandle<()>, Arc<AtomicUsize>) {
    let chain = CertificateDer::pem_file_iter(folder.join(format!("{prefix}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{prefix}.key"))).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(|certificate| certificate.unwrap()).collect(), key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that doesn't trust it goes away in the middle, which is what is tested.
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut plain).await;
                }
            });
        }
    });
    (port, task, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_only_if_the_secret_names_it() {
    let mut place = Place::new().await;
    let head = place.work.head().unwrap();
    let folder = place.folder.0.clone();
    certificates(&folder, "right", "IP:127.0.0.1,DNS:localhost");
    certificates(&folder, "other", "IP:127.0.0.1");
    let (port, task) = front(&folder, "right", place.server.address()).await;
    let url = format!("https://127.0.0.1:{port}/specs.git");
    let with = |ca: &str| {
        let ca = fs::read_to_string(folder.join(ca)).unwrap();
        credentials(&url, &[("ca.crt", &ca)])
    };
    place.remote = Remote {
        url: url.clone(),
        credentials: with("right-ca.pem"),
        ..place.remote
    };
    assert_eq!(place.tip().await.unwrap(), Tip::Commit(head.clone()));
    assert_eq!(texts(&place.fetch(&head, None).await)["clusters/a.yaml"], "a: 1\n");
    for wrong in [with("other-ca.pem"), Credentials::default()] {
        place.git.forget(crate::support::KEY);
        place.remote.credentials = wrong;
        for error in [
            place.tip().await.unwrap_err(),
            place.try_fetch(&head, None, &head).await.unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Untrusted, "{error}");
            assert!(error.message.contains("ca.crt"), "{error}");
        }
    }
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_not_trusted() {
    let mut place = Place::new().await;
    let head = place.work.head().unwrap();
    let folder = place.folder.0.clone();
    certificates(&folder, "right", "DNS:git.example.com");
    let (port, task) = front(&folder, "right", place.server.address()).await;
    let url = format!("https://localhost:{port}/specs.git");
    let ca = fs::read_to_string(folder.join("right-ca.pem")).unwrap();
    place.remote = Remote {
        credentials: credentials(&url, &[("ca.crt", &ca)]),
        url,
        ..place.remote
    };
    for error in [
        place.tip().await.unwrap_err(),
        place.try_fetch(&head, None, &head).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Untrusted, "{error}");
    }
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_share_a_connection() {
    let mut place = Place::new().await;
    let folder = place.folder.0.clone();
    certificates(&folder, "right", "IP:127.0.0.1");
    let (port, task, connections) = counting_front(&folder, "right", place.server.address()).await;
    let url = format!("https://127.0.0.1:{port}/specs.git");
    let ca = fs::read_to_string(folder.join("right-ca.pem")).unwrap();
    place.remote = Remote {
        credentials: credentials(&url, &[("ca.crt", &ca)]),
        url,
        ..place.remote
    };
    for _ in 0..10 {
        place.at().await;
    }
    // A poll at the heels of another may find the connection not yet free.
    let connections = connections.load(Ordering::Relaxed);
    assert!(connections <= 5, "{connections} connections for ten polls");
    task.abort();
}
