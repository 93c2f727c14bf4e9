//! A Git server in the cluster, and a clone on this machine that pushes to it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use codis_git_server::WorkTree;
use codis_operator::api::CodisGitSource;
use k8s_openapi::{
    api::core::v1::{Pod, Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    namespace::Namespace,
    wait::{secs, wait_for},
};

/// The server's image.
const IMAGE: &str = "codis-git:dev";
/// The name of its pod and its Service.
const NAME: &str = "git";

/// A Git server in a namespace.
pub struct Git {
    namespace: Namespace,
    /// Where it answers from this machine, like `http://10.0.0.1:30000`.
    outside: String,
}

impl Git {
    /// Starts the server with these empty repositories, and waits until it answers.
    pub async fn start(namespace: &Namespace, repositories: &[&str]) -> Result<Self> {
        let labels = json!({ "app": NAME });
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": NAME },
            "spec": { "type": "NodePort", "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))?;
        let services = Api::<Service>::namespaced(namespace.lab.client.clone(), &namespace.name);
        let made = services.create(&PostParams::default(), &service).await?;
        let ports = made.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.first().and_then(|port| port.node_port).context("no NodePort")?;
        let this = Self {
            outside: format!("http://{}:{port}", namespace.lab.node_address().await?),
            namespace: namespace.clone(),
        };
        this.run(repositories).await?;
        Ok(this)
    }

    async fn run(&self, repositories: &[&str]) -> Result<()> {
        let mut args = vec!["--root".to_owned(), "/srv/git".to_owned()];
        for name in repositories {
            args.extend(["--repo".to_owned(), (*name).to_owned()]);
        }
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": NAME, "labels": { "app": NAME } },
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532,
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": NAME, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": args,
                    "env": [{ "name": "HOME", "value": "/srv/git" }],
                    "readinessProbe": { "httpGet": { "path": "/-/healthz", "port": 8080 }, "periodSeconds": 1 },
                    "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                    },
                    "volumeMounts": [{ "name": "repositories", "mountPath": "/srv/git" }],
                }],
                "volumes": [{ "name": "repositories", "emptyDir": {} }],
            },
        }))?;
        let pods = Api::<Pod>::namespaced(self.namespace.lab.client.clone(), &self.namespace.name);
        pods.create(&PostParams::default(), &pod).await?;
        self.answers().await
    }

    async fn answers(&self) -> Result<()> {
        wait_for("the Git server", secs(60), async || {
            let answer = reqwest::get(format!("{}/-/healthz", self.outside)).await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            Ok(())
        })
        .await
    }

    /// The server goes, with its repositories.
    pub async fn stop(&self) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.namespace.lab.client.clone(), &self.namespace.name);
        pods.delete(NAME, &DeleteParams::default().grace_period(0)).await?;
        wait_for("the Git server to be gone", secs(60), async || {
            ensure!(pods.get_opt(NAME).await?.is_none(), "it is still there");
            Ok(())
        })
        .await
    }

    /// A server again, with these empty repositories.
    pub async fn start_again(&self, repositories: &[&str]) -> Result<()> {
        self.run(repositories).await
    }

    /// From now on requests to this repository fail like this; `none` ends it.
    pub async fn fault(&self, repository: &str, fault: &str) -> Result<()> {
        let url = format!("{}/-/fault/{repository}/{fault}", self.outside);
        let answer = reqwest::Client::new().post(url).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        Ok(())
    }

    /// A clone on this machine.
    pub fn clone(&self, repository: &str, folder: &Path) -> Result<WorkTree> {
        Ok(WorkTree::clone(&format!("{}/{repository}.git", self.outside), folder)?)
    }

    /// The URL of a repository in the cluster.
    pub fn url(&self, repository: &str) -> String {
        format!("http://{NAME}.{}.svc/{repository}.git", self.namespace.name)
    }

    /// Runs a script where the repositories are.
    pub async fn exec(&self, script: &str) -> Result<String> {
        self.namespace.lab.exec(&self.namespace.name, NAME, NAME, script).await
    }
}

/// A CodisGitSource under test.
pub struct Source {
    namespace: Namespace,
    /// Its name.
    pub name: String,
}

impl Source {
    /// Applies a source.
    pub async fn apply(namespace: &Namespace, source: CodisGitSource) -> Result<Self> {
        let name = source.metadata.name.clone().context("a source without a name")?;
        let this = Self {
            namespace: namespace.clone(),
            name,
        };
        let params = PatchParams::apply("codis-e2e").force();
        this.api().patch(&this.name, &params, &Patch::Apply(source)).await?;
        Ok(this)
    }

    fn api(&self) -> Api<CodisGitSource> {
        Api::namespaced(self.namespace.lab.client.clone(), &self.namespace.name)
    }

    /// Makes it look now.
    pub async fn poke(&self) -> Result<()> {
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({ "metadata": { "annotations": { "codis.k8s.io/requestedAt": now } } });
        self.api()
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Waits until the commit is applied.
    pub async fn applied(&self, commit: &str) -> Result<()> {
        self.wait(&format!("{commit} to be applied"), |source, ready| {
            let status = source.status.as_ref();
            let applied = status.and_then(|status| status.last_applied_revision.as_deref());
            ready.status == "True" && applied.is_some_and(|revision| revision.ends_with(commit))
        })
        .await
        .map(drop)
    }

    /// Waits until its condition Ready has this reason, and gives the message.
    pub async fn reason(&self, reason: &str) -> Result<String> {
        self.wait(reason, |_, ready| ready.reason == reason).await
    }

    async fn wait(&self, what: &str, is: impl Fn(&CodisGitSource, &Condition) -> bool) -> Result<String> {
        wait_for(what, secs(90), async || {
            let source = self.api().get(&self.name).await?;
            let conditions = source.status.as_ref().map(|status| status.conditions.as_slice());
            let ready = conditions.unwrap_or_default().iter().find(|c| c.type_ == "Ready");
            let ready = ready.context("no condition Ready")?;
            ensure!(is(&source, ready), "{}: {}", ready.reason, ready.message);
            Ok(ready.message.clone())
        })
        .await
    }
}
