//! What must not run twice stays with a node that isn't heard.

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Toleration};

/// The taints of nodes whose kubelet isn't heard.
const SILENCE: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Keeps a StatefulSet's pods bound to a node that isn't heard. Kubernetes would mark them for deletion after five
/// minutes, which makes no other one: nobody confirms their end (design, decision 7). All that came of it is that they
/// are stopped when the node is back, while they may well have served. Proxies and front ends have no such toleration:
/// others take their place.
pub(super) fn stay_while_silent(set: &mut StatefulSet) {
    let pod = set.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
    let Some(pod) = pod else { return };
    let silence = SILENCE.map(|key| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Default::default()
    });
    pod.tolerations.get_or_insert_default().extend(silence);
}

#[cfg(test)]
mod tests {
    use crate::build::tests::{built, pod_specs, sample};

    #[test]
    fn what_must_not_run_twice_stays_with_a_silent_node_and_what_keeps_nothing_does_not() {
        for pod in pod_specs(&built(&sample(|_| ()))) {
            let keys = pod
                .tolerations
                .iter()
                .flatten()
                .filter_map(|toleration| toleration.key.as_deref());
            let stays = keys
                .filter(|key| key.ends_with("/not-ready") || key.ends_with("/unreachable"))
                .count()
                == 2;
            let name = pod.containers[0].name.as_str();
            assert_eq!(stays, !["proxy", "fe"].contains(&name), "{name}");
        }
    }
}
