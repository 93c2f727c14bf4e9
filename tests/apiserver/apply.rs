//! Server-side apply: it writes what differs, seizes nothing, and leaves others their fields.

use std::sync::{Arc, Mutex};

use codis_operator::{
    api::CodisCluster,
    cluster::{ANNOTATION_APPLIED, Applied, Category, Cluster, DOOR, Error, Live, Object, Propagation, WriteGate},
    domain::Part,
    telemetry::Effects,
};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, Secret, Service},
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{objects, support::apiserver::User, world::World};

fn typed<K: Object>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}

/// Somebody else edits an object.
async fn edit<K: Object>(world: &World, name: &str, change: &Value) {
    world
        .api::<K>()
        .patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
}

/// What `fetch` found of an object, for the kinds of these tests.
async fn live(world: &World, cluster: &CodisCluster) -> Live {
    world.door.fetch(cluster).await.unwrap()
}

/// Creates it, and applies it again to what the server made of it: nothing may be sent.
async fn roundtrip<K>(world: &World, wanted: &Value, found: impl Fn(&Live) -> Option<K>, owner: &CodisCluster)
where
    K: Object + PartialEq + Send + Sync + 'static,
{
    let wanted: K = typed(wanted);
    let kind = K::kind(&());
    assert_eq!(world.door.apply(None, &wanted).await, Ok(Applied::Created), "{kind}");
    let before = world.writes();
    for _ in 0..2 {
        let found = found(&live(world, owner).await).unwrap_or_else(|| panic!("{kind} isn't found"));
        assert_eq!(
            world.door.apply(Some(&found), &wanted).await,
            Ok(Applied::Unchanged),
            "{kind}"
        );
    }
    assert_eq!(world.writes(), before, "{kind}");
}

#[tokio::test]
async fn every_kind_is_created_once_and_then_costs_no_write() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let meta = |name: &str| world.meta(&c, name);
    let get = |name: &'static str| move |l: &Live| l.services.get(name).cloned();
    roundtrip::<Service>(&world, &objects::service(meta("c-g1")), get("c-g1"), &c).await;
    roundtrip::<Service>(&world, &objects::headless(meta("c-g2")), get("c-g2"), &c).await;
    let set = objects::stateful_set(meta("c-g1"));
    roundtrip::<StatefulSet>(&world, &set, |l| l.stateful_sets.get("c-g1").cloned(), &c).await;
    let deployment = objects::deployment(meta("c-proxy"));
    roundtrip::<Deployment>(&world, &deployment, |l| l.deployments.get("c-proxy").cloned(), &c).await;
    roundtrip::<Secret>(&world, &objects::secret(meta("c-config")), |l| l.secret.clone(), &c).await;
    assert!(
        world.writes().iter().all(|write| write.verb == "patch"),
        "{:?}",
        world.writes()
    );
}

#[tokio::test]
async fn an_object_that_the_caller_did_not_see_is_found_and_costs_one_refused_write() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let wanted: Service = typed(&objects::service(world.meta(&c, "c-g1")));
    assert_eq!(world.door.apply(None, &wanted).await, Ok(Applied::Created));
    assert_eq!(world.door.apply(None, &wanted).await, Ok(Applied::Unchanged));
    edit::<Service>(
        &world,
        "c-g1",
        &json!({ "metadata": { "labels": { "codis.k8s.io/cluster": null } } }),
    )
    .await;
    assert!(
        live(&world, &c).await.services.is_empty(),
        "without its label it isn't seen"
    );
    assert_eq!(world.door.apply(None, &wanted).await, Ok(Applied::Changed));
    assert_eq!(live(&world, &c).await.services.len(), 1);
}

#[tokio::test]
async fn a_hand_edit_is_put_back_and_what_others_added_survives() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let wanted: StatefulSet = typed(&objects::stateful_set(world.meta(&c, "c-g1")));
    world.door.apply(None, &wanted).await.unwrap();
    let mut containers = json!(
        world
            .api::<StatefulSet>()
            .get("c-g1")
            .await
            .unwrap()
            .spec
            .unwrap()
            .template
            .spec
    );
    containers["containers"][0]["image"] = json!("evil");
    containers["containers"][0]["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "FOREIGN", "value": "1" }));
    let change = json!({
        "metadata": { "annotations": { "example.com/note": "mine" } },
        "spec": { "replicas": 7, "template": { "spec": containers } },
    });
    edit::<StatefulSet>(&world, "c-g1", &change).await;

    let found = live(&world, &c).await.stateful_sets.remove("c-g1").unwrap();
    assert_eq!(world.door.apply(Some(&found), &wanted).await, Ok(Applied::Changed));
    let found = live(&world, &c).await.stateful_sets.remove("c-g1").unwrap();
    assert_eq!(
        found.annotations().get("example.com/note").map(String::as_str),
        Some("mine")
    );
    let spec = found.spec.as_ref().unwrap();
    let container = &spec.template.spec.as_ref().unwrap().containers[0];
    assert_eq!(
        (spec.replicas, container.image.as_deref()),
        (Some(2), Some("codis:3.2"))
    );
    assert!(container.env.as_ref().unwrap().iter().any(|env| env.name == "FOREIGN"));
    assert_eq!(world.door.apply(Some(&found), &wanted).await, Ok(Applied::Unchanged));
}

#[tokio::test]
async fn what_is_dropped_from_the_wish_disappears() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let mut wanted = objects::service(world.meta(&c, "c-g1"));
    wanted["metadata"]["annotations"] = json!({ "example.com/internal": "yes" });
    world.door.apply(None, &typed::<Service>(&wanted)).await.unwrap();
    wanted["metadata"].as_object_mut().unwrap().remove("annotations");
    wanted["spec"]["ports"].as_array_mut().unwrap().pop();
    let found = live(&world, &c).await.services.remove("c-g1").unwrap();
    assert_eq!(
        world.door.apply(Some(&found), &typed::<Service>(&wanted)).await,
        Ok(Applied::Changed)
    );
    let found = live(&world, &c).await.services.remove("c-g1").unwrap();
    assert_eq!(found.annotations().keys().collect::<Vec<_>>(), [ANNOTATION_APPLIED]);
    assert_eq!(found.spec.as_ref().unwrap().ports.as_ref().unwrap().len(), 1);
    assert_eq!(
        world.door.apply(Some(&found), &typed::<Service>(&wanted)).await,
        Ok(Applied::Unchanged)
    );
}

#[tokio::test]
async fn replicas_that_go_over_to_an_autoscaler_keep_their_number() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let mut wanted = objects::deployment(world.meta(&c, "c-proxy"));
    wanted["spec"]["replicas"] = json!(5);
    world.door.apply(None, &typed::<Deployment>(&wanted)).await.unwrap();
    wanted["spec"].as_object_mut().unwrap().remove("replicas");
    let replicas = |d: &Deployment| d.spec.as_ref().and_then(|spec| spec.replicas);
    let found = live(&world, &c).await.deployments.remove("c-proxy").unwrap();
    assert_eq!(
        world.door.apply(Some(&found), &typed::<Deployment>(&wanted)).await,
        Ok(Applied::Changed)
    );
    let found = live(&world, &c).await.deployments.remove("c-proxy").unwrap();
    assert_eq!(replicas(&found), Some(5), "not back to the default of one");

    edit::<Deployment>(&world, "c-proxy", &json!({ "spec": { "replicas": 8 } })).await;
    let found = live(&world, &c).await.deployments.remove("c-proxy").unwrap();
    assert_eq!(
        world.door.apply(Some(&found), &typed::<Deployment>(&wanted)).await,
        Ok(Applied::Unchanged)
    );
    wanted["spec"]["replicas"] = json!(3);
    assert_eq!(
        world.door.apply(Some(&found), &typed::<Deployment>(&wanted)).await,
        Ok(Applied::Changed)
    );
    let found = live(&world, &c).await.deployments.remove("c-proxy").unwrap();
    assert_eq!(replicas(&found), Some(3), "and back");
}

#[tokio::test]
async fn a_foreign_object_of_our_name_is_left_as_it_is() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let wanted: Service = typed(&objects::service(world.meta(&c, "c-g1")));
    let mut meta = world.meta(&c, "c-g1");
    for change in [
        json!([]),
        json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x", "controller": true }]),
    ] {
        meta["ownerReferences"] = change;
        let foreign: Service = typed(&objects::service(meta.clone()));
        let made = world
            .api::<Service>()
            .create(&PostParams::default(), &foreign)
            .await
            .unwrap();
        assert!(
            live(&world, &c).await.services.is_empty(),
            "our label doesn't make it ours"
        );
        for seen in [None, Some(&made)] {
            let error = world.door.apply(seen, &wanted).await.unwrap_err();
            let taken = Error::NameTaken {
                kind: "Service".into(),
                name: format!("{}/c-g1", world.namespace),
            };
            assert_eq!(error, taken);
        }
        let after = world.api::<Service>().get("c-g1").await.unwrap();
        assert_eq!(after.resource_version(), made.resource_version());
        world
            .api::<Service>()
            .delete("c-g1", &Default::default())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_foreign_object_made_after_the_fetch_is_left_as_it_is() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let mut wanted = objects::service(world.meta(&c, "c-g1"));
    world.door.apply(None, &typed::<Service>(&wanted)).await.unwrap();
    let stale = live(&world, &c).await.services.remove("c-g1").unwrap();
    wanted["spec"]["publishNotReadyAddresses"] = json!(false);
    world
        .api::<Service>()
        .delete("c-g1", &Default::default())
        .await
        .unwrap();
    let error = world
        .door
        .apply(Some(&stale), &typed::<Service>(&wanted))
        .await
        .unwrap_err();
    assert_eq!(error.category(), Category::Conflict, "gone: {error}");

    let mut foreign = objects::service(world.meta(&c, "c-g1"));
    foreign["metadata"]["ownerReferences"] = json!([]);
    let made = world
        .api::<Service>()
        .create(&PostParams::default(), &typed::<Service>(&foreign))
        .await
        .unwrap();
    let error = world
        .door
        .apply(Some(&stale), &typed::<Service>(&wanted))
        .await
        .unwrap_err();
    assert_eq!(error.category(), Category::Conflict, "made anew: {error}");
    let after = world.api::<Service>().get("c-g1").await.unwrap();
    assert_eq!(after.resource_version(), made.resource_version());
}

#[tokio::test]
async fn an_object_that_outlives_its_cluster_is_ours_by_its_label() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let mut wanted = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": world.meta(&c, "c-topology"),
        "data": { "topology": "{}" } });
    wanted["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    let wanted: ConfigMap = typed(&wanted);
    assert_eq!(world.door.apply(None, &wanted).await, Ok(Applied::Created));
    let found = world
        .door
        .read::<ConfigMap>(&world.namespace, "c-topology")
        .await
        .unwrap();
    assert_eq!(world.door.apply(found.as_ref(), &wanted).await, Ok(Applied::Unchanged));
    edit::<ConfigMap>(&world, "c-topology", &json!({ "metadata": { "labels": null } })).await;
    let error = world.door.apply(None, &wanted).await.unwrap_err();
    assert_eq!(error.category(), Category::NameTaken, "{error}");
}

#[tokio::test]
async fn every_write_is_asked_for_by_name_and_what_is_refused_is_not_sent() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let asked = asked.clone();
        Effects::new(move |door, effect| {
            asked.lock().unwrap().push((door, effect));
            if effect == "apply" {
                Err("crash".to_owned())
            } else {
                Ok(())
            }
        })
    };
    let door = Cluster::new(world.server.client(User::Operator), WriteGate::open(), hook, "test");
    let mut wanted = objects::service(world.meta(&c, "c-g1"));
    door.apply(None, &typed::<Service>(&wanted)).await.unwrap();
    wanted["spec"]["publishNotReadyAddresses"] = json!(false);
    let found = live(&world, &c).await.services.remove("c-g1").unwrap();
    let refused = door.apply(Some(&found), &typed::<Service>(&wanted)).await;
    assert_eq!(refused, Err(Error::Injected("crash".into())));
    let uid = found.uid().unwrap();
    door.delete::<Service>(&world.namespace, "c-g1", &uid, Propagation::Background)
        .await
        .unwrap();
    assert_eq!(
        *asked.lock().unwrap(),
        ["create", "apply", "delete"].map(|effect| (DOOR, effect))
    );
    let sent: Vec<String> = world.writes().into_iter().map(|write| write.verb).collect();
    assert_eq!(sent, ["patch", "delete"]);
}

#[tokio::test]
async fn delete_removes_the_object_that_was_meant_and_no_other() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let wanted: Service = typed(&objects::service(world.meta(&c, "c-g1")));
    world.door.apply(None, &wanted).await.unwrap();
    let uid = live(&world, &c).await.services["c-g1"].uid().unwrap();
    let delete = |uid: &'static str| {
        world
            .door
            .delete::<Service>(&world.namespace, "c-g1", uid, Propagation::Background)
    };
    assert_eq!(delete("00000000-0000-0000-0000-000000000000").await, Ok(false));
    assert_eq!(live(&world, &c).await.services.len(), 1);
    for existed in [true, false] {
        let deleted = world
            .door
            .delete::<Service>(&world.namespace, "c-g1", &uid, Propagation::Background)
            .await;
        assert_eq!(deleted, Ok(existed));
    }
}

#[tokio::test]
async fn the_predecessors_workloads_are_named_and_not_counted_as_ours() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let with = |component: &str| json!({ "clusterName": "c", "component": component });
    // As it made them: owned by the CodisCluster, under a name of ours, and without a label on the workload itself.
    let mut set = objects::stateful_set(world.meta(&c, "c-redis"));
    let mut deployment = objects::deployment(world.meta(&c, "c-proxy"));
    for (object, component) in [(&mut set, "codis-server"), (&mut deployment, "codis-proxy")] {
        object["metadata"].as_object_mut().unwrap().remove("labels");
        object["spec"]["selector"] = json!({ "matchLabels": with(component) });
        object["spec"]["template"]["metadata"] = json!({ "labels": with(component) });
    }
    world
        .api()
        .create(&PostParams::default(), &typed::<StatefulSet>(&set))
        .await
        .unwrap();
    world
        .api()
        .create(&PostParams::default(), &typed::<Deployment>(&deployment))
        .await
        .unwrap();
    let found = live(&world, &c).await;
    assert_eq!(found.predecessor.first().as_deref(), Some("StatefulSet c-redis"));
    assert_eq!(found.predecessor.parts(), [Part::Servers, Part::Proxies].into());
    assert!(found.predecessor.has(&typed::<Deployment>(&deployment)));
    assert!(found.stateful_sets.is_empty() && found.deployments.is_empty());
}

#[tokio::test]
async fn a_service_of_the_predecessor_leads_to_ours_and_keeps_its_addresses() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let labels = json!({ "clusterName": "c", "component": "codis-proxy" });
    let mut old = json!({ "metadata": world.meta(&c, "c-proxy"), "spec": {
        "type": "NodePort", "selector": labels, "ports": [
            { "name": "admin-port", "port": 11080 }, { "name": "proxy-port", "port": 19000, "targetPort": 19000 },
        ],
    } });
    old["metadata"]["labels"] = labels;
    let old = world
        .api()
        .create(&PostParams::default(), &typed::<Service>(&old))
        .await
        .unwrap();
    let found = live(&world, &c).await;
    assert_eq!(found.predecessor.parts(), [Part::ProxyService].into());
    let wished = typed::<Service>(&json!({ "metadata": world.meta(&c, "c-proxy"), "spec": {
        "type": "NodePort", "selector": { "who": "ours" },
        "ports": [{ "name": "redis", "port": 19000, "targetPort": "redis", "protocol": "TCP" }],
    } }));
    world
        .door
        .inherit(&found.predecessor.services[&Part::ProxyService], &wished)
        .await
        .unwrap();
    let found = live(&world, &c).await;
    assert_eq!(found.predecessor.parts(), [].into(), "it is ours now");
    let now = found.services["c-proxy"].spec.clone().unwrap();
    let (was, now_ports) = (old.spec.clone().unwrap(), now.ports.clone().unwrap());
    assert_eq!(now.selector, Some([("who".to_owned(), "ours".to_owned())].into()));
    assert_eq!(now.cluster_ip, was.cluster_ip);
    assert_eq!(now_ports.len(), 1);
    assert_eq!(now_ports[0].node_port, was.ports.unwrap()[1].node_port);
    // The same wish, applied as always, finds it as it should be.
    world.door.apply(found.services.get("c-proxy"), &wished).await.unwrap();
    let applied = live(&world, &c).await.services["c-proxy"].spec.clone().unwrap();
    assert_eq!(applied, now);
}

#[tokio::test]
async fn a_refusal_of_a_secret_does_not_tell_what_was_in_it() {
    let Some(world) = World::new().await else { return };
    let c = world.cluster("c").await;
    let mut wanted = objects::secret(world.meta(&c, "c-config"));
    wanted["data"] = json!({ "no/key hunter2": "aHVudGVyMg==" });
    let error = world.door.apply(None, &typed::<Secret>(&wanted)).await.unwrap_err();
    assert_eq!(error.category(), Category::Refused);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}
