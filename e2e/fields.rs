//! Every field of the spec is changed and changed back under clients: each takes effect, and nothing is lost.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::support::{
    cluster::Cluster,
    load::{Ended, Load},
    runner::{Story, Told},
    spec::{PRODUCT, SESSION, SMALL},
    wait::{secs, wait_for},
};

/// A change of the spec, and how it shows.
struct Field {
    name: &'static str,
    /// JSON merge patches of the spec.
    change: Value,
    back: Value,
    /// Commands of kubectl, and what each prints a part of while the field is changed, and not otherwise.
    shows: Vec<(Vec<String>, &'static str)>,
}

pub async fn story(story: &mut Story<'_>) -> Told {
    let cluster = story.cluster("a small cluster on volumes", SMALL.volumes(true)).await?;
    let wanted = std::env::var("CODIS_E2E_FIELDS").unwrap_or_default();
    for field in fields() {
        if !wanted.split(',').any(|part| field.name.contains(part)) {
            continue;
        }
        let name = format!("{}: changed and changed back", field.name);
        let held = story.check(&name, there_and_back(&cluster, &field)).await;
        if held.is_err() {
            // The next field begins from where this one did.
            let back = async {
                cluster.patch(&json!({"spec": field.back})).await?;
                cluster.healthy(secs(240)).await.map(drop)
            };
            story.check("it is back where it was", back).await?;
        }
    }
    story
        .check(
            "volumes don't shrink: it is said, and nothing changes",
            shrinking(&cluster),
        )
        .await
}

async fn there_and_back(cluster: &Cluster, field: &Field) -> Result<()> {
    let load = Load::start(cluster, field.name).await?;
    let result = async {
        for (value, note) in [(&field.change, "changed"), (&field.back, "back")] {
            cluster.patch(&json!({"spec": value})).await.context(note)?;
            let took = cluster.ready(secs(300)).await.context(note)?;
            for (command, part) in &field.shows {
                shows(cluster, command, part, note == "changed").await.context(note)?;
            }
            cluster.healthy(secs(60)).await.context(note)?;
            println!("        {note}: Ready after {:.1} s", took.as_secs_f64());
        }
        Ok(())
    };
    let result: Result<()> = result.await;
    let ended: Ended = load.stop().await?;
    let verdict = ended.check().await;
    result?;
    verdict?.nothing_lost()
}

async fn shows(cluster: &Cluster, command: &[String], part: &str, wished: bool) -> Result<()> {
    let args: Vec<&str> = command.iter().map(String::as_str).collect();
    wait_for("the change to show", secs(60), async || {
        let text = cluster.namespace.kubectl(&args).await?;
        let tail: String = text.chars().take(200).collect();
        ensure!(
            text.contains(part) == wished,
            "{args:?}: {part:?} expected: {wished}; it is {tail:?}"
        );
        Ok(())
    })
    .await
}

async fn shrinking(cluster: &Cluster) -> Result<()> {
    cluster
        .patch(&json!({"spec": {"codisServer": {"requests": {"storage": "128Mi"}}}}))
        .await?;
    let told = wait_for("the reason", secs(60), async || {
        let told = cluster.status().await?.without_effect;
        let told = told.into_iter().find(|told| told.contains("shrink"));
        told.context("nothing is said of it")
    })
    .await;
    cluster
        .patch(&json!({"spec": {"codisServer": {"requests": {"storage": "256Mi"}}}}))
        .await?;
    cluster.healthy(secs(120)).await?;
    println!("        {}", told?);
    Ok(())
}

/// A field of an object.
fn object(name: &str, path: &str) -> Vec<String> {
    ["get", name, "-o", &format!("jsonpath={{{path}}}")]
        .map(str::to_owned)
        .to_vec()
}

/// A file of the cluster's configuration.
fn file(name: &str) -> Vec<String> {
    let template = format!("go-template={{{{index .data \"{name}\" | base64decode}}}}");
    ["get", "secret", "c-config", "-o", &template]
        .map(str::to_owned)
        .to_vec()
}

/// Whether the dashboard has the servers read from.
fn told_of_servers() -> Vec<String> {
    let script =
        "codis-admin --dashboard=$(cat /etc/codis/dashboard-address) group | grep -o '\"replica_group\": *[a-z]*'";
    ["exec", "deployment/c-proxy", "-c", "proxy", "--", "sh", "-c", script]
        .map(str::to_owned)
        .to_vec()
}

/// A setting of a running server.
fn setting(name: &str) -> Vec<String> {
    let script = format!("REDISCLI_AUTH=$(cat /etc/codis/product-auth) redis-cli CONFIG GET {name} | tail -1");
    ["exec", "c-g1-0", "-c", "server", "--", "sh", "-c", &script]
        .map(str::to_owned)
        .to_vec()
}

fn field(name: &'static str, change: Value, back: Value, shows: Vec<(Vec<String>, &'static str)>) -> Field {
    Field {
        name,
        change,
        back,
        shows,
    }
}

/// What a component's pods may have beyond its image, all at once: they restart once for it.
fn pods(component: &'static str, key: &str, object_name: &str) -> Field {
    let mut options = json!({
        "limits": {"cpu": "900m", "memory": "96Mi"},
        "pod": {"labels": {"e2e": "label-of-e2e"}, "annotations": {"e2e": "annotation-of-e2e"}},
    });
    if component != "fe" && component != "dashboard" {
        options["nodeSelector"] = json!({"kubernetes.io/os": "linux"});
        options["tolerations"] = json!([{"key": "e2e", "operator": "Exists"}]);
    }
    let nothing: serde_json::Map<String, Value> = options
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| (key.clone(), Value::Null))
        .collect();
    let template = |path: &str| object(object_name, &format!(".spec.template{path}"));
    let mut shows = vec![
        (template(".spec.containers[0].resources.limits"), "900m"),
        (template(".metadata.labels"), "label-of-e2e"),
        (template(".metadata.annotations"), "annotation-of-e2e"),
    ];
    if options.get("nodeSelector").is_some() {
        shows.push((template(".spec.nodeSelector"), "linux"));
        shows.push((template(".spec.tolerations[*].key"), "e2e"));
    }
    field(component, json!({key: options}), json!({key: nothing}), shows)
}

fn fields() -> Vec<Field> {
    let mut all = pods_of_components();
    all.extend(sizes_and_services());
    all.extend(settings());
    all.extend(whole_cluster());
    all
}

fn pods_of_components() -> Vec<Field> {
    vec![
        pods("fe", "codisFe", "deployment/c-fe"),
        pods("proxy", "codisProxy", "deployment/c-proxy"),
        pods("dashboard", "codisDashboard", "statefulset/c-dashboard"),
        pods("sentinel", "sentinel", "statefulset/c-sentinel"),
        pods("server", "codisServer", "statefulset/c-g1"),
    ]
}

fn sizes_and_services() -> Vec<Field> {
    let hpa = json!({"minReplicas": 2, "maxReplicas": 3, "cpuUsedThreshold": 80});
    vec![
        field(
            "codisProxy.replicas",
            json!({"codisProxy": {"replicas": 3}}),
            json!({"codisProxy": {"replicas": 2}}),
            vec![(object("deployment/c-proxy", ".spec.replicas"), "3")],
        ),
        field(
            "codisProxy.maxSurge, maxUnavailable",
            json!({"codisProxy": {"maxSurge": 2, "maxUnavailable": 0}}),
            json!({"codisProxy": {"maxSurge": null, "maxUnavailable": null}}),
            vec![(
                object("deployment/c-proxy", ".spec.strategy.rollingUpdate.maxSurge"),
                "2",
            )],
        ),
        field(
            "codisProxy.drainSeconds",
            json!({"codisProxy": {"drainSeconds": 7}}),
            json!({"codisProxy": {"drainSeconds": 5}}),
            vec![(
                object(
                    "deployment/c-proxy",
                    ".spec.template.spec.terminationGracePeriodSeconds",
                ),
                "22",
            )],
        ),
        field(
            "codisProxy.replicaReads",
            json!({"codisProxy": {"replicaReads": true}}),
            json!({"codisProxy": {"replicaReads": null}}),
            vec![(told_of_servers(), "true")],
        ),
        field(
            "codisProxy.serviceAnnotations",
            json!({"codisProxy": {"serviceAnnotations": {"e2e": "of-e2e"}}}),
            json!({"codisProxy": {"serviceAnnotations": null}}),
            vec![(object("service/c-proxy", ".metadata.annotations"), "of-e2e")],
        ),
        field(
            "codisProxy.hpaSpec",
            json!({"codisProxy": {"hpaSpec": hpa}}),
            json!({"codisProxy": {"hpaSpec": null}}),
            vec![(["get", "hpa", "-o", "name"].map(str::to_owned).to_vec(), "c-proxy")],
        ),
        field(
            "codisFe.replicas, serviceType, serviceAnnotations",
            json!({"codisFe": {"replicas": 2, "serviceType": "NodePort", "serviceAnnotations": {"e2e": "of-e2e"}}}),
            json!({"codisFe": {"replicas": 1, "serviceType": null, "serviceAnnotations": null}}),
            vec![
                (object("deployment/c-fe", ".spec.replicas"), "2"),
                (object("service/c-fe", ".spec.type"), "NodePort"),
                (object("service/c-fe", ".metadata.annotations"), "of-e2e"),
            ],
        ),
        field(
            "codisServer.volumeRetention",
            json!({"codisServer": {"volumeRetention": "Delete"}}),
            json!({"codisServer": {"volumeRetention": null}}),
            vec![],
        ),
        field(
            "codisServer.volumePolicy",
            json!({"codisServer": {"volumePolicy": "Adopt"}}),
            json!({"codisServer": {"volumePolicy": null}}),
            vec![],
        ),
    ]
}

fn settings() -> Vec<Field> {
    vec![
        field(
            "codisServer.config, live",
            json!({"codisServer": {"config": {"maxmemory-policy": "allkeys-lru"}}}),
            json!({"codisServer": {"config": null}}),
            vec![(setting("maxmemory-policy"), "allkeys-lru")],
        ),
        field(
            "codisServer.config, by a restart",
            json!({"codisServer": {"config": {"databases": 7}}}),
            json!({"codisServer": {"config": null}}),
            vec![(setting("databases"), "7")],
        ),
        field(
            "codisProxy.config",
            json!({"codisProxy": {"config": {"proxy_max_clients": 4321}}}),
            json!({"codisProxy": {"config": null}}),
            vec![(file("proxy.toml"), "4321")],
        ),
        field(
            // Nobody is there: proxies go on trying, and serve.
            "codisProxy.jodis",
            json!({"codisProxy": {"jodis": {"coordinatorName": "etcd", "coordinatorAddr": "127.0.0.1:1"}}}),
            json!({"codisProxy": {"jodis": null}}),
            vec![(file("proxy.toml"), "jodis_name = \"etcd\"")],
        ),
        field(
            "codisDashboard.config",
            json!({"codisDashboard": {"config": {"migration_timeout": "43s"}}}),
            json!({"codisDashboard": {"config": null}}),
            vec![(file("dashboard.toml"), "43s")],
        ),
        field(
            "sentinel.config",
            json!({"sentinel": {"config": {"down-after-milliseconds": 4321}}}),
            json!({"sentinel": {"config": null}}),
            vec![],
        ),
        field(
            "codisDashboard.productAuth",
            json!({"codisDashboard": {"productAuth": "another-product"}}),
            json!({"codisDashboard": {"productAuth": PRODUCT}}),
            // No process of Codis takes two passwords: the old one stays, and that is said.
            vec![(object("codiscluster/c", ".status.withoutEffect"), "productAuth")],
        ),
        field(
            "codisProxy.sessionAuth, the same",
            json!({"codisProxy": {"sessionAuth": SESSION}}),
            json!({"codisProxy": {"sessionAuth": SESSION}}),
            vec![],
        ),
    ]
}

fn whole_cluster() -> Vec<Field> {
    let status = |path: &str| object("codiscluster/c", path);
    vec![
        field(
            "durability",
            json!({"durability": "bounded"}),
            json!({"durability": null}),
            vec![(setting("min-slaves-to-write"), "1")],
        ),
        field(
            // No slot moves here: the pace is set once one does.
            "slotMoves",
            json!({"slotMoves": {"parallelSlots": 7, "intervalMicroseconds": 500, "balanceBy": "Keys", "paused": true}}),
            json!({"slotMoves": null}),
            vec![(file("dashboard.toml"), "migration_parallel_slots = 7")],
        ),
        field(
            "paused",
            json!({"paused": true}),
            json!({"paused": null}),
            vec![(status(".status.brakes"), "paused")],
        ),
        field(
            "maintenance",
            json!({"maintenance": "supervised"}),
            json!({"maintenance": null}),
            vec![(status(".status.brakes"), "supervised")],
        ),
        field(
            "management",
            json!({"management": "Observe"}),
            json!({"management": null}),
            vec![(status(".status.brakes"), "Observe")],
        ),
        field(
            "nodeLossAfter, schedulerName, deletionProtection",
            json!({"nodeLossAfter": "2m", "schedulerName": "default-scheduler", "deletionProtection": true}),
            json!({"nodeLossAfter": null, "schedulerName": null, "deletionProtection": null}),
            vec![],
        ),
    ]
}
