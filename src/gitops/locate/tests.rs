use proptest::prelude::*;

use super::*;

fn walk_all(text: &str) -> Vec<Result<Written, Abort>> {
    let mut walks: Vec<_> = Vec::new();
    for document in Deserializer::from_str(text) {
        walks.push(walk(document));
        if walks.last().is_some_and(Result::is_err) {
            break;
        }
    }
    walks
}

fn places(text: &str) -> Places {
    walk_all(text).remove(0).unwrap().places
}

fn aborted(text: &str) -> Abort {
    walk_all(text).remove(0).unwrap_err()
}

#[test]
fn a_field_is_at_the_line_and_column_of_its_key() {
    let places = places("# a comment\na: 1\nb:\n  c: [x, {d: y}]\n  \"e\": |\n    text\n  f:\n  g: {}\n  h: z\n");
    for (field, place) in [
        ("a", (2, 1)),
        ("b", (3, 1)),
        ("b.c", (4, 3)),
        ("b.c[1].d", (4, 11)),
        ("b.e", (5, 3)),
        ("b.f", (7, 3)),
        ("b.g", (8, 3)),
        ("b.h", (9, 3)),
    ] {
        assert_eq!(places.get(field).map(|node| node.place), Some(place), "{field}");
    }
    assert_eq!(places.start(), Some((2, 1)));
}

#[test]
fn a_field_that_is_not_written_is_at_its_nearest_parent() {
    let places = places("a: 1\nb:\n  c: [x, {d: y}]\n");
    for (field, place) in [
        ("b.c[1].e", Some((3, 3))),
        ("b.c[7]", Some((3, 3))),
        ("b.x.y.z", Some((2, 1))),
        ("other", None),
    ] {
        assert_eq!(places.nearest(field), place, "{field}");
    }
}

#[test]
fn the_first_character_of_a_file_is_line_1_column_1() {
    assert_eq!(places("a: 1").start(), Some((1, 1)));
}

#[test]
fn lines_are_those_of_the_file_in_every_document() {
    let documents = walk_all("a: 1\n---\n# only a comment\n---\nb: 2\n---\n\nc:\n  d: 3\n");
    let fields = ["a", "", "b", "c.d"];
    let found: Vec<_> = (documents.iter().zip(fields))
        .map(|(document, field)| document.as_ref().unwrap().places.nearest(field))
        .collect();
    assert_eq!(found, [Some((1, 1)), None, Some((5, 1)), Some((9, 3))]);
}

#[test]
fn every_duplicate_key_is_found_with_both_places() {
    let written = walk_all("a: 1\nb: {c: 1, c: {d: x}}\na: {b: 2}\na: 3\n")
        .remove(0)
        .unwrap();
    let expected = [
        ("b.c".to_owned(), (2, 11), (2, 5)),
        ("a".to_owned(), (3, 1), (1, 1)),
        ("a".to_owned(), (4, 1), (1, 1)),
    ];
    assert_eq!(written.duplicates, expected);
}

#[test]
fn aliases_are_refused_wherever_they_are() {
    for text in [
        "a: &x 1\nb: *x",
        "a: &x {c: 1}\nb: *x",
        "a: &x {c: 1}\nb: {<<: *x}",
        "a: [&x 1, *x]",
        "a: [&x {b: c}, *x]",
        "a: &x [1]\nb: [*x]",
        "&x a: 1\nb: *x",
        "&x a: {*x : 1}",
    ] {
        assert!(aborted(text).message.contains("alias"), "{text}: {:?}", aborted(text));
    }
}

#[test]
fn tags_and_keys_that_are_no_names_are_refused() {
    for (text, message) in [
        ("a: !secret b", "tags"),
        ("a: !env {b: c}", "tags"),
        ("!env\na: b", "tags"),
        ("a: [!x b]", "tags"),
        ("? [a]\n: b", "the name of a field"),
        ("? {a: b}\n: c", "the name of a field"),
        ("\"a\\nb\": c", "control characters"),
    ] {
        assert!(aborted(text).message.contains(message), "{text}: {:?}", aborted(text));
    }
    assert!(aborted(&format!("{}: c", "k".repeat(400))).message.contains("320"));
}

#[test]
fn a_document_is_known_by_its_shape() {
    for (text, shape) in [
        ("", Shape::Empty),
        ("# nothing\n", Shape::Empty),
        ("---\n", Shape::Empty),
        ("~", Shape::Empty),
        ("a: b", Shape::Mapping),
        ("- a", Shape::Sequence),
        ("[]", Shape::Sequence),
        ("text", Shape::Scalar),
        ("7", Shape::Scalar),
    ] {
        assert_eq!(walk_all(text).remove(0).unwrap().shape, shape, "{text:?}");
    }
}

/// Any JSON but with line separators, which YAML takes for ends of lines.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[^\\pC\\p{Zl}\\p{Zp}]{0,12}".prop_map(Into::into),
        "[a-z\n ]{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::btree_map("[^.\\[\\pC\\p{Zl}\\p{Zp}]{1,8}", inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn keys(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(list) => list.iter().map(keys).sum(),
        serde_json::Value::Object(map) => map.len() + map.values().map(keys).sum::<usize>(),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn what_has_no_alias_is_never_taken_for_one(value in value()) {
        for text in [serde_yaml::to_string(&value).unwrap(), value.to_string()] {
            let written = walk_all(&text).remove(0);
            prop_assert!(written.is_ok(), "{text}: {written:?}");
        }
    }

    #[test]
    fn every_key_has_a_place_of_its_own(value in value()) {
        let text = serde_yaml::to_string(&value).unwrap();
        let written = walk_all(&text).remove(0).unwrap();
        let mut found: Vec<_> = written.places.0.values().map(|node| node.place).collect();
        found.sort_unstable();
        found.dedup();
        prop_assert_eq!(found.len(), keys(&value), "{}", text);
    }

    #[test]
    fn no_text_makes_the_walk_panic(text in "[-a:*&!\\[\\]{},\"'?|>#%@ \n]{0,60}") {
        walk_all(&text);
    }
}
