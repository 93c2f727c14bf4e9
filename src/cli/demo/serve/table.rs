//! Tables, as kubectl asks for them: the columns of our CRDs, and a few of pods and workloads.

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::api::{CodisCluster, CodisGitSource};

/// The columns of a kind: name, type, path, priority.
#[derive(Clone, Debug)]
pub(super) struct Columns(Vec<(String, String, String, i64)>);

impl Columns {
    /// Those of the kind that a path names.
    pub(super) fn of(path: &str) -> Option<Self> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        const KNOWN: [&str; 5] = [
            "codisclusters",
            "codisgitsources",
            "pods",
            "statefulsets",
            "deployments",
        ];
        let plural = parts.clone().find(|part| KNOWN.contains(part))?;
        // A subresource is an object of its own.
        let _ = parts.by_ref().find(|part| *part == plural);
        if parts.count() > 1 {
            return None;
        }
        let column = |name: &str, type_: &str, path: &str| (name.to_owned(), type_.to_owned(), path.to_owned(), 0);
        let age = column("Age", "date", ".metadata.creationTimestamp");
        Some(Self(match plural {
            "codisclusters" => of_crd(&json!(CodisCluster::crd())),
            "codisgitsources" => of_crd(&json!(CodisGitSource::crd())),
            "pods" => vec![
                column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
                column("Status", "string", ".status.phase"),
                column("Restarts", "integer", ".status.containerStatuses[0].restartCount"),
                column("Node", "string", ".spec.nodeName"),
                age,
            ],
            _ => vec![
                column("Ready", "integer", ".status.readyReplicas"),
                column("Wanted", "integer", ".spec.replicas"),
                age,
            ],
        }))
    }

    /// An object, a list or an event of a watch as a table.
    pub(super) fn table(&self, value: &Value) -> Value {
        if let (Some(kind), Some(object)) = (value.get("type"), value.get("object")) {
            // Errors and bookmarks have no rows.
            return match kind.as_str() {
                Some("ADDED" | "MODIFIED" | "DELETED") => json!({"type": kind, "object": self.table(object)}),
                _ => value.clone(),
            };
        }
        let one = std::slice::from_ref(value);
        let objects = value["items"].as_array().map_or(one, Vec::as_slice);
        let rows: Vec<Value> = objects.iter().map(|object| self.row(object)).collect();
        let mut columns = vec![json!({"name": "Name", "type": "string", "format": "name", "priority": 0})];
        columns.extend(self.0.iter().map(|(name, type_, _, priority)| {
            // Ages are written here: as text.
            let type_ = if type_ == "date" { "string" } else { type_ };
            json!({"name": name, "type": type_, "format": "", "priority": priority})
        }));
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": columns, "rows": rows,
            "metadata": {"resourceVersion": value["metadata"]["resourceVersion"]},
        })
    }

    fn row(&self, object: &Value) -> Value {
        let mut cells = vec![object["metadata"]["name"].clone()];
        cells.extend(self.0.iter().map(|(_, type_, path, _)| {
            let value = at(object, path).cloned().unwrap_or(Value::Null);
            match value.as_str() {
                Some(time) if type_ == "date" => json!(age(time)),
                _ => value,
            }
        }));
        let partial = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
        });
        json!({"cells": cells, "object": partial})
    }
}

fn of_crd(crd: &Value) -> Vec<(String, String, String, i64)> {
    let none = Vec::new();
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array();
    let word = |column: &Value, key: &str| column[key].as_str().unwrap_or_default().to_owned();
    let columns = columns.unwrap_or(&none).iter();
    columns
        .map(|column| {
            let priority = column["priority"].as_i64().unwrap_or(0);
            (
                word(column, "name"),
                word(column, "type"),
                word(column, "jsonPath"),
                priority,
            )
        })
        .collect()
}

/// What is at a path: names, `[0]`, and `[?(@.type=="X")]`.
fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let Some((before, rest)) = path.split_once('[') else {
        return object.pointer(&path.replace('.', "/"));
    };
    let list = object.pointer(&before.replace('.', "/"))?.as_array()?;
    let (inside, after) = rest.split_once(']')?;
    let chosen = match inside.split('"').nth(1) {
        Some(wanted) => list.iter().find(|item| item["type"] == wanted)?,
        None => list.get(inside.parse::<usize>().ok()?)?,
    };
    at(chosen, after)
}

/// How long ago, in the form that kubectl shows.
fn age(time: &str) -> String {
    let Ok(time) = time.parse::<jiff::Timestamp>() else {
        return "<unknown>".to_owned();
    };
    let seconds = jiff::Timestamp::now().as_second() - time.as_second();
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_becomes_a_row_with_the_columns_of_its_crd() {
        let columns = Columns::of("/apis/codis.k8s.io/v1alpha1/namespaces/default/codisclusters").unwrap();
        let cluster = json!({
            "metadata": {"name": "c", "resourceVersion": "7", "creationTimestamp": jiff::Timestamp::now().to_string()},
            "status": {"phase": "Running", "conditions": [{"type": "Serving"}, {"type": "Ready", "status": "True"}]},
        });
        let table = columns.table(&json!({"type": "ADDED", "object": cluster}));
        let cells = &table["object"]["rows"][0]["cells"];
        assert_eq!(
            (&cells[0], &cells[1], &cells[3]),
            (&json!("c"), &json!("True"), &json!("Running"))
        );
        assert!(Columns::of("/apis/codis.k8s.io/v1alpha1/namespaces/default/codisclusters/c/status").is_none());
        let list = columns.table(&json!({"items": [cluster.clone(), cluster]}));
        assert_eq!(list["rows"].as_array().unwrap().len(), 2);
        assert_eq!(
            list["columnDefinitions"].as_array().unwrap().len(),
            cells.as_array().unwrap().len()
        );
    }
}
