//! What a source reports: a pure fold. An unchanged source gives an equal status, so an idle one writes nothing.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;

use super::{Held, apply::Applied, document::Problem};
use crate::{
    api::{
        CodisGitSource, CodisGitSourceStatus, SourceProblem, condition_at, names, source_condition as condition,
        to_the_second,
    },
    cluster::EventKind,
};

/// How many problems, and how many held things, a status lists.
const LISTED: usize = 20;
/// The reason while spec.suspend is set.
const SUSPENDED: &str = "Suspended";
/// A condition's message is no log.
const MESSAGE_LIMIT: usize = 1024;

/// What became of the newest revision that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Verdict {
    /// None was read since this process began.
    #[default]
    Unknown,
    /// It is admitted, and its objects are being applied.
    Applying,
    /// It is in force.
    Applied,
    /// It breaks a rule: the one before it stays in force.
    Rejected(Vec<Problem>),
    /// It isn't wanted as it is: the one before it stays in force.
    Held(Held),
    /// It can't be admitted now, and is tried again.
    Waiting(String),
    /// It was begun, can't be applied whole now, and is tried again.
    Failed(String),
}

/// What is in force.
#[derive(Debug)]
pub(super) struct Holds {
    pub revision: String,
    /// Whether it was applied whole.
    pub is_whole: bool,
    pub clusters: usize,
    /// What isn't as it says.
    pub held: Vec<String>,
}

/// All that a status is made of.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub is_suspended: bool,
    /// The generation of the spec that all this is about.
    pub judged: Option<i64>,
    /// Why the branch can't be looked at now.
    pub trouble: Option<Held>,
    pub verdict: Verdict,
    /// The newest revision that was read, and the last one that was applied whole.
    pub attempted: Option<String>,
    pub applied: Option<Applied>,
    /// Where what is in force is from.
    pub origin: Option<String>,
    /// What is in force, if this process knows.
    pub in_force: Option<Holds>,
    /// The request that was acted on last.
    pub handled: Option<String>,
}

/// The status that says this.
pub(super) fn of(source: &CodisGitSource, report: &Report, now: Timestamp) -> CodisGitSourceStatus {
    let mut status = source.status.clone().unwrap_or_default();
    let told = to_the_second(now).to_string();
    status.observed_generation = source.metadata.generation;
    if status.last_attempted_revision != report.attempted {
        status.last_attempted_revision.clone_from(&report.attempted);
        status.last_attempted_at = report.attempted.is_some().then(|| told.clone());
    }
    let applied = report.applied.as_ref().map(|applied| applied.revision.clone());
    if status.last_applied_revision != applied {
        status.last_applied_at = applied.is_some().then(|| told.clone());
        status.last_applied_revision = applied;
    }
    if report.origin.is_some() {
        status.origin.clone_from(&report.origin);
    }
    if report.handled.is_some() {
        status.last_handled_reconcile_at.clone_from(&report.handled);
    }
    // What this process doesn't know yet stays as the one before left it.
    if let Some(holds) = &report.in_force {
        status.clusters = Some(i32::try_from(holds.clusters).unwrap_or(i32::MAX));
        status.held = holds.held.iter().take(LISTED).map(|text| cut(text)).collect();
        status.applying_revision = (!holds.is_whole).then(|| holds.revision.clone());
    }
    match &report.verdict {
        Verdict::Unknown => (),
        Verdict::Rejected(problems) => status.problems = problems.iter().take(LISTED).map(problem).collect(),
        _ => status.problems.clear(),
    }
    if let Some(conditions) = conditions(source, report, now) {
        status.conditions = conditions;
    }
    status
}

fn conditions(source: &CodisGitSource, report: &Report, now: Timestamp) -> Option<Vec<Condition>> {
    let word = Word::of(source, report)?;
    let yes = |is: bool| if is { "True" } else { "False" };
    let rows = [
        (condition::READY, word.ready),
        (condition::RECONCILING, yes(word.is_working())),
        (condition::STALLED, yes(word.is_stalled)),
    ];
    let old = source.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let of = |(type_, value)| condition_at(now, old, type_, value, word.reason, cut(&word.message), report.judged);
    Some(rows.into_iter().map(of).collect())
}

/// What the conditions say.
struct Word {
    ready: &'static str,
    is_stalled: bool,
    reason: &'static str,
    message: String,
}

impl Word {
    fn is_working(&self) -> bool {
        self.ready != "True" && !self.is_stalled && self.reason != SUSPENDED
    }

    /// `None` as long as nothing is known.
    fn of(source: &CodisGitSource, report: &Report) -> Option<Self> {
        let attempted = report.attempted.as_deref().unwrap_or("nothing");
        let stays = stays(report);
        let word = |ready, is_stalled, reason, message| Self {
            ready,
            is_stalled,
            reason,
            message,
        };
        if report.is_suspended {
            let message = "spec.suspend is set: neither commits nor hand edits are looked at".to_owned();
            return Some(word("Unknown", false, SUSPENDED, message));
        }
        if let Some(held) = &report.trouble {
            return Some(word(
                "False",
                held.is_stalled,
                held.reason,
                format!("{}{stays}", held.message),
            ));
        }
        if report.judged != source.metadata.generation {
            let message = format!("looking at {} of {}{stays}", source.spec.branch(), source.spec.url);
            return Some(word("Unknown", false, "Progressing", message));
        }
        Some(match &report.verdict {
            Verdict::Unknown => return None,
            Verdict::Applying => word("Unknown", false, "Applying", format!("applying {attempted}")),
            Verdict::Applied => word("True", false, "Applied", applied(attempted, report)),
            Verdict::Rejected(problems) => {
                let message = format!("rejected {attempted}{stays}: {}", summary(problems));
                word("False", true, "CommitRejected", message)
            }
            Verdict::Held(held) => word(
                "False",
                held.is_stalled,
                held.reason,
                format!("{}{stays}", held.message),
            ),
            Verdict::Waiting(what) => {
                let message = format!("{attempted} can't be admitted yet: {what}; it is tried again{stays}");
                word("False", false, "AdmissionFailed", message)
            }
            Verdict::Failed(what) => {
                let message = format!("{attempted} can't be applied whole yet: {what}; it is tried again");
                word("False", false, "ApplyFailed", message)
            }
        })
    }
}

/// What goes on being in force.
fn stays(report: &Report) -> String {
    match (&report.in_force, &report.applied) {
        (Some(Holds { revision, is_whole, .. }), _) if *is_whole => format!("; {revision} stays in force"),
        (Some(Holds { revision, .. }), _) => format!("; {revision} was begun, and is being finished"),
        (None, Some(Applied { revision, .. })) => {
            format!("; {revision} was applied last, but hand edits aren't put back until the repository can be read")
        }
        (None, None) => String::new(),
    }
}

fn applied(attempted: &str, report: &Report) -> String {
    let Some(holds) = &report.in_force else {
        return format!("applied {attempted}");
    };
    let held = match holds.held.len() {
        0 => String::new(),
        count => format!("; {count} held: {}", holds.held.join("; ")),
    };
    format!("applied {attempted}: {}{held}", clusters(holds.clusters))
}

/// The generation that a status is about.
pub(super) fn judged(status: &CodisGitSourceStatus) -> Option<i64> {
    let ready = status.conditions.iter().find(|c| c.type_ == condition::READY);
    ready.and_then(|ready| ready.observed_generation)
}

fn clusters(count: usize) -> String {
    match count {
        1 => "1 cluster".to_owned(),
        count => format!("{count} clusters"),
    }
}

/// What is worth an event: that Ready says something else than before.
pub(super) fn news(source: &CodisGitSource, status: &CodisGitSourceStatus) -> Option<(EventKind, String, String)> {
    let ready = |status: &CodisGitSourceStatus| {
        let found = status.conditions.iter().find(|c| c.type_ == condition::READY);
        found.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    };
    let (value, reason, message) = ready(status)?;
    let old = source.status.as_ref().and_then(ready);
    if value == "Unknown" || old.is_some_and(|old| old == (value.clone(), reason.clone(), message.clone())) {
        return None;
    }
    let kind = if value == "True" {
        EventKind::Normal
    } else {
        EventKind::Warning
    };
    Some((kind, reason, message))
}

/// The first problem, and how many more there are.
pub(super) fn summary(problems: &[Problem]) -> String {
    let Some(first) = problems.first() else {
        return String::new();
    };
    match problems.len() - 1 {
        0 => first.to_string(),
        more => format!("{first} (and {more} more)"),
    }
}

fn problem(problem: &Problem) -> SourceProblem {
    let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    SourceProblem {
        file: problem.file.clone(),
        line: problem.line.map(number),
        column: problem.column.map(number),
        field: problem.field.clone(),
        message: cut(&problem.message),
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MESSAGE_LIMIT)].to_owned()
}

/// The request for a look that a source bears.
pub(super) fn requested(source: &CodisGitSource) -> Option<String> {
    source.annotations().get(names::ANNOTATION_REQUESTED_AT).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source() -> CodisGitSource {
        serde_json::from_value(json!({
            "apiVersion": "codis.k8s.io/v1alpha1", "kind": "CodisGitSource",
            "metadata": {"name": "fleet", "namespace": "ns", "generation": 3},
            "spec": {"url": "https://git.example.com/fleet.git"}
        }))
        .unwrap()
    }

    fn report(verdict: Verdict) -> Report {
        Report {
            verdict,
            attempted: Some("main@sha1:b".into()),
            applied: Some(Applied {
                revision: "main@sha1:a".into(),
                origin: "here".into(),
            }),
            judged: Some(3),
            in_force: Some(Holds {
                revision: "main@sha1:a".into(),
                is_whole: true,
                clusters: 2,
                held: Vec::new(),
            }),
            ..Report::default()
        }
    }

    fn trouble(is_stalled: bool) -> Held {
        Held {
            reason: "Unreachable",
            message: "no answer".into(),
            is_stalled,
        }
    }

    #[test]
    fn the_conditions_say_what_became_of_a_revision_and_what_is_in_force() {
        let problem = Problem {
            file: "a.yaml".into(),
            line: Some(4),
            column: Some(2),
            field: Some("spec.x".into()),
            message: "no".into(),
        };
        let with_trouble = |is_stalled| Report {
            trouble: Some(trouble(is_stalled)),
            ..report(Verdict::Applied)
        };
        for (report, wanted, says) in [
            (
                report(Verdict::Applied),
                ["True", "False", "False"],
                "applied main@sha1:b: 2 clusters",
            ),
            (
                report(Verdict::Applying),
                ["Unknown", "True", "False"],
                "applying main@sha1:b",
            ),
            (
                report(Verdict::Rejected(vec![problem])),
                ["False", "False", "True"],
                "rejected main@sha1:b; main@sha1:a stays in force: a.yaml:4:2: spec.x: no",
            ),
            (
                report(Verdict::Failed("quota".into())),
                ["False", "True", "False"],
                "can't be applied whole yet: quota",
            ),
            (
                report(Verdict::Held(trouble(true))),
                ["False", "False", "True"],
                "main@sha1:a stays in force",
            ),
            (
                with_trouble(false),
                ["False", "True", "False"],
                "no answer; main@sha1:a stays in force",
            ),
            (
                with_trouble(true),
                ["False", "False", "True"],
                "no answer; main@sha1:a stays in force",
            ),
        ] {
            let status = of(&source(), &report, Timestamp::now());
            let values: Vec<&str> = status.conditions.iter().map(|c| c.status.as_str()).collect();
            assert_eq!(values, wanted, "{report:?}");
            assert!(
                status.conditions[0].message.contains(says),
                "{}",
                status.conditions[0].message
            );
        }
    }

    #[test]
    fn nothing_new_gives_an_equal_status() {
        let mut source = source();
        let first = of(&source, &report(Verdict::Applied), Timestamp::now());
        source.status = Some(first.clone());
        assert_eq!(of(&source, &report(Verdict::Applied), Timestamp::now()), first);
    }

    #[test]
    fn before_anything_is_known_the_conditions_stay() {
        let mut source = source();
        source.status = Some(of(&source, &report(Verdict::Applied), Timestamp::now()));
        let later = of(&source, &report(Verdict::Unknown), Timestamp::now());
        assert_eq!(later.conditions, source.status.unwrap().conditions);
    }
}
