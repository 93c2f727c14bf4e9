use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// A whole document; `spec.codisServer.replicas` is in line 10.
const SAMPLE: &str = "\
apiVersion: codis.k8s.io/v1alpha1
kind: CodisCluster
metadata:
  name: sessions
spec:
  coordinatorName: filesystem
  coordinatorAddr: builtin
  codisProxy: {image: codis, replicas: 2, sessionAuth: session-secret}
  codisServer:
    replicas: 4
    groupReplicas: 2
    image: codis
  codisDashboard:
    image: codis
    productAuth: product-secret
";

/// The sample with one text in the place of another.
fn sample(from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "{from}");
    SAMPLE.replacen(from, to, 1)
}

fn told(text: &str) -> Vec<String> {
    let problems = parse("a.yaml", text).err().unwrap_or_default();
    problems.iter().map(Problem::to_string).collect()
}

/// How long the worst text may take, on a busy machine and without optimization.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_document_has_its_name_its_namespace_its_labels_and_its_spec() {
    let metadata =
        "  name: sessions\n  namespace: team-a\n  labels: {team: a}\n  annotations: {codis.k8s.io/adopt: 'true'}\n";
    let documents = parse("clusters/a.yaml", &sample("  name: sessions\n", metadata)).unwrap();
    let document = &documents[0];
    assert_eq!(
        (document.name(), document.namespace.as_deref()),
        ("sessions", Some("team-a"))
    );
    assert_eq!((document.file.as_str(), document.line), ("clusters/a.yaml", 1));
    let written = serde_json::to_value(&document.cluster).unwrap();
    assert_eq!(
        written["metadata"],
        serde_json::json!({"name": "sessions", "labels": {"team": "a"}, "annotations": {"codis.k8s.io/adopt": "true"}})
    );
    assert_eq!(written["spec"]["codisServer"]["replicas"], 4);
    assert_eq!(written.get("status"), None);
}

#[test]
fn a_file_may_have_several_documents_and_empty_ones() {
    let text = format!(
        "# nothing yet\n---\n{SAMPLE}---\n---\n# the other\n{}---\n",
        sample("sessions", "carts")
    );
    let documents = parse("a.yaml", &text).unwrap();
    let found: Vec<_> = documents
        .iter()
        .map(|document| (document.name(), document.line))
        .collect();
    assert_eq!(found, [("sessions", 3), ("carts", 21)]);
    assert_eq!(documents[1].locate("spec.codisServer.replicas"), (30, 5));
}

#[test]
fn a_file_without_documents_is_empty() {
    for text in [
        "",
        "\n",
        "# later\n",
        "---\n",
        "---\n---\n",
        "---\n# a\n---\n# b\n",
        "\u{feff}",
    ] {
        assert_eq!(parse("a.yaml", text).unwrap().len(), 0, "{text:?}");
    }
}

#[test]
fn a_field_is_located_at_its_key_or_at_its_nearest_parent() {
    let documents = parse("a.yaml", SAMPLE).unwrap();
    for (field, place) in [
        ("spec.codisServer.replicas", (10, 5)),
        ("spec.codisProxy.replicas", (8, 30)),
        ("spec.codisServer.limits.memory", (9, 3)),
        ("spec.sentinel.replicas", (5, 1)),
        ("metadata.name", (4, 3)),
        ("nothing", (1, 1)),
    ] {
        assert_eq!(documents[0].locate(field), place, "{field}");
    }
    let problem = documents[0].problem(Some("spec.sentinel"), "is gone");
    assert_eq!(problem.to_string(), "a.yaml:5:1: spec.sentinel: is gone");
    assert_eq!(documents[0].problem(None, "is odd").to_string(), "a.yaml:1:1: is odd");
}

#[test]
fn each_problem_has_its_place_and_says_what_to_do() {
    for (from, to, expected) in [
        (
            "  codisServer:\n    replicas: 4",
            "  codisServer:\n    replica: 4",
            "a.yaml:10:5: spec.codisServer.replica: is unknown: did you mean `replicas`?",
        ),
        (
            "replicas: 4",
            "replicas: four",
            "a.yaml:10:15: spec.codisServer.replicas: must be a whole number, not text",
        ),
        (
            "replicas: 4",
            "replicas: \"4\"",
            "a.yaml:10:15: spec.codisServer.replicas: must be a whole number, not text",
        ),
        (
            "replicas: 4",
            "replicas: 4.5",
            "a.yaml:10:15: spec.codisServer.replicas: must be a whole number, not a fraction",
        ),
        (
            "replicas: 4",
            "replicas: 4000000000",
            "a.yaml:10:15: spec.codisServer.replicas: is out of range",
        ),
        (
            "replicas: 4",
            "replicas: 3",
            "a.yaml:10:5: spec.codisServer.replicas: 3 is not a multiple of groupReplicas (2): every group has groupReplicas servers",
        ),
        (
            "replicas: 4\n",
            "replicas: 4\n    replicas: 6\n",
            "a.yaml:11:5: spec.codisServer.replicas: is written twice, first in line 10: remove one",
        ),
        (
            "    replicas: 4\n",
            "",
            "a.yaml:9:3: spec.codisServer.replicas: is missing",
        ),
        (
            "image: codis\n    productAuth",
            "image: 1.10\n    productAuth",
            "a.yaml:14:5: spec.codisDashboard.image: must be text: put the value in quotes",
        ),
        (
            "image: codis\n    productAuth",
            "image: [codis]\n    productAuth",
            "a.yaml:14:12: spec.codisDashboard.image: must be text, not a list",
        ),
        (
            "name: sessions",
            "name: Sessions",
            "a.yaml:4:3: metadata.name: \"Sessions\" must be a DNS label that starts with a letter, of at most 40 characters",
        ),
        (
            "name: sessions",
            "name: sessions\n  namespace: 2026",
            "a.yaml:5:3: metadata.namespace: must be text: put the value in quotes",
        ),
        (
            "name: sessions",
            "name: sessions\n  generateName: sessions",
            "a.yaml:5:3: metadata.generateName: may not be written here: only name, namespace, labels, annotations may",
        ),
        (
            "name: sessions",
            "name: sessions\n  finalizers: [a]",
            "a.yaml:5:3: metadata.finalizers: may not be written here: only name, namespace, labels, annotations may",
        ),
        (
            "name: sessions",
            "name: sessions\n  uid: a",
            "a.yaml:5:3: metadata.uid: may not be written here: only name, namespace, labels, annotations may",
        ),
        (
            "name: sessions",
            "name: sessions\n  labels: {on: true}",
            "a.yaml:5:12: metadata.labels.on: must be text: put the value in quotes",
        ),
        (
            "name: sessions",
            "name: sessions\n  labels: {codis.k8s.io/cluster: a}",
            "a.yaml:5:12: metadata.labels.codis.k8s.io/cluster: is the operator's own: remove it",
        ),
        (
            "name: sessions",
            "name: sessions\n  labels: {codis.k8s.io/adopt: a}",
            "a.yaml:5:12: metadata.labels.codis.k8s.io/adopt: is the operator's own: remove it",
        ),
        (
            "name: sessions",
            "name: sessions\n  annotations: {gitops.codis.k8s.io/source: a}",
            "a.yaml:5:17: metadata.annotations.gitops.codis.k8s.io/source: is the operator's own: remove it",
        ),
        (
            "spec:",
            "status: {}\nspec:",
            "a.yaml:5:1: status: is written by the operator: remove it",
        ),
        ("spec:", "data: {}\nspec:", "a.yaml:5:1: data: is unknown: remove it"),
        (
            "kind: CodisCluster\n",
            "",
            "a.yaml:1:1: kind: is missing: write CodisCluster",
        ),
        (
            "v1alpha1",
            "v1",
            "a.yaml:1:1: apiVersion: \"codis.k8s.io/v1\" is not codis.k8s.io/v1alpha1",
        ),
        (
            "sessionAuth: session-secret",
            "sessionAuth: *secret",
            "a.yaml:8:56: unknown anchor",
        ),
        (
            "sessionAuth: session-secret",
            "sessionAuth: !vault secret",
            "a.yaml:8:43: spec.codisProxy.sessionAuth: tags (!name) are not allowed: remove it",
        ),
        (
            "codisDashboard:",
            "codisDashboard: {",
            "a.yaml:15:16: did not find expected ',' or '}', while parsing a flow mapping at line 13 column 19",
        ),
    ] {
        assert_eq!(told(&sample(from, to)), [expected], "{to}");
    }
}

#[test]
fn nothing_but_codisclusters_may_be_written() {
    let table = [
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {password: aHVudGVyMg==}\n",
            "a.yaml:2:1: kind: \"Secret\" is no CodisCluster: only CodisClusters may be under the source's path; move this document elsewhere",
        ),
        (
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n",
            "a.yaml:2:1: kind: \"Kustomization\" is no CodisCluster: only CodisClusters may be under the source's path; move this document elsewhere",
        ),
        (
            "kind: CodisCluster\n",
            "a.yaml:1:1: apiVersion: is missing: write codis.k8s.io/v1alpha1",
        ),
        (
            "# a list\n- a\n- b\n",
            "a.yaml:2:1: a document must be a CodisCluster: a mapping with apiVersion, kind, metadata and spec",
        ),
        (
            "just a text",
            "a.yaml:1:1: a document must be a CodisCluster: a mapping with apiVersion, kind, metadata and spec",
        ),
        (
            "\n 7\n",
            "a.yaml:2:2: a document must be a CodisCluster: a mapping with apiVersion, kind, metadata and spec",
        ),
        (
            "{}",
            "a.yaml:1:1: a document must be a CodisCluster: a mapping with apiVersion, kind, metadata and spec",
        ),
        (
            "apiVersion: codis.k8s.io/v1alpha1\nkind: CodisCluster\nmetadata:\nspec: {}\n",
            "a.yaml:3:1: metadata.name: is missing",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(told(text), [expected], "{text}");
    }
}

#[test]
fn every_problem_of_a_file_is_told_in_the_order_of_its_lines() {
    let broken = sample("replicas: 4", "replicas: 3").replace("coordinatorName: filesystem", "coordinatorName: consul");
    let text = format!(
        "{broken}---\nkind: Secret\n---\n{}",
        sample("    image: codis\n", "    imag: codis\n    imge: codis\n")
    );
    let places: Vec<_> = parse("a.yaml", &text)
        .unwrap_err()
        .into_iter()
        .map(|problem| (problem.line, problem.field))
        .collect();
    let expected = [
        (Some(6), "spec.coordinatorName"),
        (Some(10), "spec.codisServer.replicas"),
        (Some(17), "apiVersion"),
        (Some(30), "spec.codisServer.imag"),
        (Some(31), "spec.codisServer.imge"),
    ];
    assert_eq!(places, expected.map(|(line, field)| (line, Some(field.to_owned()))));
}

#[test]
fn a_quantity_may_be_a_number() {
    let text = sample(
        "    groupReplicas: 2\n",
        "    groupReplicas: 2\n    requests: {cpu: 1, memory: 256Mi}\n",
    );
    assert_eq!(told(&text), [""; 0]);
}

#[test]
fn a_problem_never_repeats_a_password() {
    for (from, to) in [
        ("session-secret", "'hunter2 with spaces'"),
        ("session-secret", "\"hunter2\\\"\""),
        ("session-secret", "[hunter2]"),
        ("session-secret", "{hunter2: hunter2}"),
        ("session-secret", "!tag hunter2"),
        ("session-secret", "'hunter2"),
        ("session-secret", "hunter2, sessionAuth: hunter2"),
        ("sessionAuth: session-secret", "replicas: hunter2"),
        ("replicas: 2, sessionAuth: session-secret", "replicas: hunter2"),
        ("{image: codis, replicas: 2, sessionAuth: session-secret}", "hunter2"),
        (
            "  codisDashboard:\n    image: codis\n    productAuth: product-secret",
            "  codisDashboard: hunter2",
        ),
        (
            "  codisDashboard:\n    image: codis\n    productAuth: product-secret",
            "  productAuth: hunter2",
        ),
        ("product-secret", "hunter2 hunter2"),
        ("product-secret", "|\n      hunter2\n      hunter2"),
        ("product-secret", "hunter2: hunter2"),
        ("product-secret", "@hunter2"),
        ("product-secret", "*hunter2"),
        ("product-secret", "22222222"),
    ] {
        let told = told(&sample(from, to));
        assert!(!told.is_empty(), "{to}");
        let repeats = |text: &String| text.replace(".hunter2", "").contains("hunter2") || text.contains("22222222");
        assert!(!told.iter().any(repeats), "{to}: {told:?}");
    }
    let documents = parse("a.yaml", SAMPLE).unwrap();
    assert_eq!(format!("{documents:?}"), "[Document(a.yaml:1 sessions)]");
}

#[test]
fn a_hostile_file_is_refused_soon() {
    let laughs: String = (1..12)
        .map(|level| {
            let aliases = vec![format!("*a{}", level - 1); 10].join(",");
            format!("a{level}: &a{level} [{aliases}]\n")
        })
        .collect();
    let table = [
        ("deep lists", "[".repeat(100_000)),
        (
            "many values in as many brackets as may be",
            format!("{}{}", "{a: ".repeat(2_000), "b, ".repeat(80_000)),
        ),
        ("deep mappings", "{a: ".repeat(60_000)),
        (
            "deep blocks",
            (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
        ),
        ("deep lists in a block", "- ".repeat(100_000)),
        ("deep keys", "? ".repeat(100_000)),
        ("an alias bomb", format!("a0: &a0 [ha,ha]\n{laughs}")),
        (
            "one long list many times",
            format!("a: &a\n{}b:\n{}", "- x\n".repeat(30_000), "- *a\n".repeat(30_000)),
        ),
        (
            "an unknown list many times",
            sample(
                "  codisServer:",
                &format!(
                    "    tolerations: [&t {{key: [{}]}}, {}]\n  codisServer:",
                    "1,".repeat(2_000),
                    "*t,".repeat(40_000)
                ),
            )
            .replace("{image: codis, replicas: 2, sessionAuth: session-secret}", ""),
        ),
        ("a list of itself", "a: &a [*a]".to_owned()),
        (
            "many empty lists",
            format!("a: &a {{}}\nb: \n{}", "- *a\n".repeat(40_000)),
        ),
        ("many keys", (0..30_000).map(|key| format!("k{key}: 1\n")).collect()),
        ("one key many times", "a: 1\n".repeat(50_000)),
        ("long keys", format!("{}: 1\n", "k".repeat(250_000))),
        ("many documents", "---\na: 1\n".repeat(28_000)),
        ("many quotes", "'".repeat(250_001)),
        ("many anchors", "&a ".repeat(80_000)),
        ("many indicators", "?:-".repeat(80_000)),
        ("a long comment", format!("a: #{}", "x".repeat(250_000))),
    ];
    for (what, text) in table {
        let began = Instant::now();
        let told = told(&text);
        eprintln!("{what}: {:?} {:?}", began.elapsed(), told.first());
        assert!(!told.is_empty(), "{what}");
        assert!(told.iter().all(|text| text.len() < 1_000), "{what}");
        assert!(began.elapsed() < SOON, "{what} took {:?}", began.elapsed());
    }
}

proptest! {
    #[test]
    fn a_change_of_one_character_never_panics_and_has_a_place(at in 0..SAMPLE.len(), to in "[-a:*&!\\[\\]{},\"'?|>#% \n\t\u{0}é]") {
        let text = format!("{}{to}{}", &SAMPLE[..at], &SAMPLE[at + 1..]);
        for problem in parse("a.yaml", &text).err().unwrap_or_default() {
            let lines = text.lines().count() + 1;
            prop_assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem}");
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(a|b|spec|\\PC|[-:*&!\\[\\]{},\"'?|>#%@\n \t]|---\n|: |\n  ){0,80}") {
        let _ = parse("a.yaml", &text);
        let _ = parse("a.yaml", &format!("{SAMPLE}{text}"));
    }

    #[test]
    fn a_field_that_nobody_knows_is_always_refused_at_its_line(key in "[a-z]{3,9}x", line in 9..12_usize) {
        let mut lines: Vec<_> = SAMPLE.lines().map(str::to_owned).collect();
        lines.insert(line, format!("    {key}: 1"));
        let problems = parse("a.yaml", &lines.join("\n")).unwrap_err();
        prop_assert_eq!(problems.len(), 1);
        prop_assert_eq!((problems[0].line, problems[0].column), (Some(line + 1), Some(5)));
    }
}
