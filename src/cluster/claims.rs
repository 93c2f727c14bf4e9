//! The claims of data volumes: found by label, grown, and deleted where a person asked for that.

use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{CALL_TIMEOUT, Call, Cluster, Error, bounded, live::key_of};
use crate::api::{CodisCluster, names};

impl Cluster {
    /// The claims that carry a cluster's label.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn claims(&self, cluster: &CodisCluster) -> Result<Vec<PersistentVolumeClaim>, Error> {
        let (namespace, name) = key_of(cluster)?;
        self.list(namespace, &format!("{}={name}", names::LABEL_CLUSTER)).await
    }

    /// Whether volumes of a class can grow; none: there is no such class.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn can_grow(&self, class: &str) -> Result<Option<bool>, Error> {
        let api = Api::<StorageClass>::all(self.client.clone());
        let call = Call::new("get", "StorageClass", class);
        let found = bounded(CALL_TIMEOUT, call, api.get_opt(class)).await?;
        Ok(found.map(|class| class.allow_volume_expansion == Some(true)))
    }

    /// Sets one annotation of this very claim.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn mark(&self, claim: &PersistentVolumeClaim, key: &str, value: &str) -> Result<(), Error> {
        let (namespace, name) = key_of(claim)?;
        let body = json!({ "metadata": { "uid": claim.uid(), "annotations": { key: value } } });
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let call = Call::new("mark", "PersistentVolumeClaim", format!("{namespace}/{name}"));
        let (api, patch) = (self.api::<PersistentVolumeClaim>(namespace), Patch::Merge(body));
        self.write("mark", call, api.patch(name, &params, &patch)).await?;
        Ok(())
    }

    /// Asks for a larger volume. Nobody else's field is touched, and no other claim of this name.
    ///
    /// # Errors
    /// What the API server refuses.
    pub async fn grow(&self, claim: &PersistentVolumeClaim, size: &str) -> Result<(), Error> {
        let (namespace, name) = key_of(claim)?;
        let body = json!({
            "metadata": { "uid": claim.uid() },
            "spec": { "resources": { "requests": { "storage": size } } },
        });
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let call = Call::new("grow", "PersistentVolumeClaim", format!("{namespace}/{name}"));
        let (api, patch) = (self.api::<PersistentVolumeClaim>(namespace), Patch::Merge(body));
        self.write("grow", call, api.patch(name, &params, &patch)).await?;
        Ok(())
    }
}
