//! A namespace for one story: random, labelled with what it is for, deleted at the end, described on failure.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::{Api, api::ObjectMeta};

use super::{
    lab::{Lab, OPERATOR, OPERATOR_NAMESPACE},
    wait::{secs, wait_for},
};

/// The label that all namespaces of the suites have; its value is the suite.
pub const LABEL_SUITE: &str = "codis.k8s.io/suite";

/// A namespace for one story.
#[derive(Clone)]
pub struct Namespace {
    /// The cluster that it is in.
    pub lab: Lab,
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Makes a namespace that admits restricted pods only.
    pub async fn create(lab: &Lab, suite: &str, story: &str) -> Result<Self> {
        let labels = BTreeMap::from([
            (LABEL_SUITE.to_owned(), suite.to_owned()),
            ("codis.k8s.io/story".to_owned(), label_of(story)),
            ("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned()),
        ]);
        let object = KubeNamespace {
            metadata: ObjectMeta {
                generate_name: Some(format!("codis-{suite}-")),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            ..KubeNamespace::default()
        };
        let made = Api::all(lab.client.clone())
            .create(&Default::default(), &object)
            .await?;
        let name = made.metadata.name.unwrap_or_default();
        println!("        in namespace {name}");
        Ok(Self { lab: lab.clone(), name })
    }

    /// Runs kubectl in this namespace.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let args: Vec<&str> = ["-n", &self.name].iter().chain(args).copied().collect();
        self.lab.kubectl(&args).await
    }

    /// Deletes it with everything in it, and waits until it is gone.
    pub async fn delete(&self) -> Result<()> {
        let api = Api::<KubeNamespace>::all(self.lab.client.clone());
        api.delete(&self.name, &Default::default()).await?;
        wait_for("the namespace to be gone", secs(180), async || {
            let left = api.get_opt(&self.name).await?;
            let waits_for = left
                .iter()
                .filter_map(|namespace| namespace.status.as_ref())
                .flat_map(|status| {
                    let conditions = status
                        .conditions
                        .iter()
                        .flatten()
                        .filter(|condition| condition.status == "True");
                    conditions.filter_map(|condition| condition.message.clone())
                });
            let waits_for: Vec<String> = waits_for.collect();
            ensure!(left.is_none(), "still there: {}", waits_for.join("; "));
            Ok(())
        })
        .await
    }

    /// Prints what a person would look at first, bounded.
    pub async fn diagnose(&self) {
        println!("---- namespace {}", self.name);
        let here: [(&str, usize, &[&str]); 4] = [
            ("clusters", 220, &["get", "codisclusters", "-o", "yaml"]),
            (
                "objects",
                60,
                &["get", "pods,pvc,services,statefulsets,deployments", "-o", "wide"],
            ),
            ("events", 50, &["get", "events", "--sort-by=.lastTimestamp"]),
            (
                "logs",
                80,
                &[
                    "logs",
                    "-l",
                    "codis.k8s.io/cluster",
                    "--all-containers",
                    "--prefix",
                    "--tail=8",
                ],
            ),
        ];
        for (title, lines, args) in here {
            print_tail(title, lines, self.kubectl(args).await);
        }
        let label = format!("app.kubernetes.io/name={OPERATOR}");
        let args = ["-n", OPERATOR_NAMESPACE, "logs", "-l", &label, "--prefix", "--tail=80"];
        let log = self.lab.kubectl(&args).await;
        print_tail("operator", 120, log);
        println!("---- end of namespace {}", self.name);
    }
}

fn print_tail(title: &str, lines: usize, text: Result<String>) {
    let text = text.unwrap_or_else(|error| format!("{error:#}"));
    let all: Vec<&str> = text.lines().collect();
    println!("-- {title}");
    for line in &all[all.len().saturating_sub(lines)..] {
        println!("   {}", plain(line).chars().take(400).collect::<String>());
    }
}

/// A line without its colours.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    first
        + &parts
            .map(|part| part.split_once('m').map_or(part, |(_, rest)| rest))
            .collect::<String>()
}

/// A name as the value of a label.
fn label_of(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    plain
        .trim_matches('-')
        .chars()
        .take(60)
        .collect::<String>()
        .trim_end_matches('-')
        .to_owned()
}
