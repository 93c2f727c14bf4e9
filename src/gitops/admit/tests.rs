use std::path::Path;

use super::*;
use crate::gitops::directory::list;

fn document(name: &str, namespace: Option<&str>) -> String {
    let namespace = namespace.map_or(String::new(), |namespace| format!("  namespace: {namespace}\n"));
    format!(
        "apiVersion: codis.k8s.io/v1alpha1\nkind: CodisCluster\nmetadata:\n  name: {name}\n{namespace}spec:
  coordinatorName: filesystem
  coordinatorAddr: builtin
  codisProxy: {{image: codis, replicas: 2}}
  codisServer: {{image: codis, replicas: 4, groupReplicas: 2}}
  codisDashboard: {{image: codis}}\n"
    )
}

fn blob(path: &str, content: Content) -> Blob {
    Blob {
        path: path.to_owned(),
        id: "id".to_owned(),
        content,
    }
}

fn files(files: &[(&str, String)]) -> Vec<Parsed> {
    let blobs = files.iter().map(|(path, text)| blob(path, Content::Text(text.clone())));
    blobs.filter_map(|blob| Parsed::of(&blob)).collect()
}

fn told(files: &[Parsed]) -> Vec<String> {
    let problems = admit("team-a", files).err().unwrap_or_default();
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn documents_of_several_files_are_the_clusters_of_the_sources_namespace() {
    let both = format!("{}---\n{}", document("b", Some("team-a")), document("a", None));
    let files = files(&[
        ("x.yaml", both),
        ("y.yaml", document("c", None)),
        ("z.yaml", String::new()),
    ]);
    let admitted = admit("team-a", &files).unwrap();
    let found: Vec<_> = admitted
        .iter()
        .map(|(name, document)| (name.as_str(), document.file.as_str()))
        .collect();
    assert_eq!(found, [("a", "x.yaml"), ("b", "x.yaml"), ("c", "y.yaml")]);
}

#[test]
fn no_files_are_no_clusters() {
    assert!(admit("team-a", &[]).unwrap().is_empty());
}

#[test]
fn another_namespace_is_refused_and_both_are_named() {
    let files = files(&[("x.yaml", document("a", Some("team-b")))]);
    assert_eq!(
        told(&files),
        [
            "x.yaml:5:3: metadata.namespace: is team-b, but the source is in team-a and applies nothing elsewhere: remove the field, or put a source into team-b"
        ]
    );
}

#[test]
fn a_name_that_is_written_twice_is_told_with_both_places() {
    let files = files(&[
        ("y.yaml", document("a", None)),
        ("x.yaml", document("a", None)),
        ("z.yaml", document("a", None)),
    ]);
    assert_eq!(
        told(&files),
        [
            "y.yaml:4:3: metadata.name: a is written twice, at x.yaml:4:3 and at y.yaml:4:3: remove or rename one",
            "z.yaml:4:3: metadata.name: a is written twice, at x.yaml:4:3 and at z.yaml:4:3: remove or rename one",
        ]
    );
}

#[test]
fn every_problem_of_every_file_is_told_in_order_and_nothing_is_admitted() {
    let bad = document("b", Some("team-b")).replace("replicas: 4", "replicas: 3");
    let files = files(&[
        ("z.yaml", "kind: Secret".to_owned()),
        (
            "b.yaml",
            format!("{}---\n{}", document("a", None), document("a", Some("team-c"))),
        ),
        ("a.yaml", bad),
        ("good.yaml", document("good", None)),
    ]);
    let problems = admit("team-a", &files).unwrap_err();
    let places: Vec<_> = problems
        .iter()
        .map(|problem| (problem.file.as_str(), problem.line))
        .collect();
    let expected = [("a.yaml", 10), ("b.yaml", 15), ("b.yaml", 16), ("z.yaml", 1)];
    // A document that isn't valid isn't asked for its namespace.
    assert_eq!(places, expected.map(|(file, line)| (file, Some(line))));
}

#[test]
fn a_file_that_was_refused_is_a_problem_and_a_known_one_is_not_parsed_again() {
    let refused = Parsed::of(&blob("big.yaml", Content::Refused("is larger than 256 KiB".to_owned())));
    assert_eq!(told(&[refused.unwrap()]), ["big.yaml: is larger than 256 KiB"]);
    assert!(Parsed::of(&blob("a.yaml", Content::Known)).is_none());
}

#[test]
fn the_example_repository_is_admitted_as_it_stands() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("gitops-example/clusters");
    let files: Vec<_> = list(&directory).unwrap().files.iter().filter_map(Parsed::of).collect();
    let admitted = admit("default", &files).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(admitted.keys().collect::<Vec<_>>(), ["sessions"]);
}
