//! Which Kubernetes this is.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};
use tokio::sync::OnceCell;

use super::{CALL_TIMEOUT, Call, Cluster, Error, bounded};

/// The namespace that every Kubernetes has from its first moment on, and that nobody can delete: its uid names it.
const NAMESPACE: &str = "kube-system";

/// Read once: it never changes.
pub(super) type Uid = Arc<OnceCell<String>>;

impl Cluster {
    /// What tells this Kubernetes from all others: the uid of its namespace kube-system.
    ///
    /// # Errors
    /// When the API server can't be asked, or doesn't let the operator see it.
    pub async fn kubernetes_uid(&self) -> Result<String, Error> {
        self.kubernetes.get_or_try_init(|| self.read_uid()).await.cloned()
    }

    async fn read_uid(&self) -> Result<String, Error> {
        let call = Call::new("get", "Namespace", NAMESPACE);
        let api = Api::<Namespace>::all(self.client.clone());
        let found = bounded(CALL_TIMEOUT, call.clone(), api.get(NAMESPACE)).await;
        let namespace = found.map_err(explained)?;
        namespace.uid().ok_or_else(|| Error::Malformed {
            call,
            detail: "no uid".to_owned(),
        })
    }
}

/// A refusal with what it is for and how to mend it.
fn explained(error: Error) -> Error {
    match error {
        Error::Forbidden { call, detail } => Error::Forbidden {
            call,
            detail: format!(
                "{detail}: its uid names this Kubernetes in the locks of dashboards; grant the operator `get` on the namespace {NAMESPACE}, as deploy/rbac/rbac.yaml does"
            ),
        },
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_missing_and_where_it_is_granted() {
        let told = explained(Error::Forbidden {
            call: Call::new("get", "Namespace", NAMESPACE),
            detail: "namespaces \"kube-system\" is forbidden".to_owned(),
        });
        let told = told.to_string();
        for words in [
            "`get` on the namespace kube-system",
            "deploy/rbac/rbac.yaml",
            "is forbidden",
        ] {
            assert!(told.contains(words), "{told}");
        }
    }
}
