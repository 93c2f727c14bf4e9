//! Autoscalers: what they would like is told from outside.

use serde_json::{Value, json};

use super::{
    Kubernetes,
    object::{number, set_condition, text},
};

impl Kubernetes {
    /// How many replicas an autoscaler would like for what it measures; it keeps to its bounds.
    pub fn hpa_wish(&mut self, namespace: &str, name: &str, replicas: u32) {
        let name = (namespace.to_owned(), name.to_owned());
        self.wishes.insert(name, replicas.into());
        self.cache.news.kinds.insert("HorizontalPodAutoscaler");
        self.due.insert(self.now);
    }

    pub(super) fn scale(&mut self) {
        let all: Vec<_> = self.cache.all("HorizontalPodAutoscaler").values().cloned().collect();
        for raw in all {
            self.autoscale(&raw);
        }
    }

    fn autoscale(&mut self, raw: &Value) {
        let namespace = text(raw, "/metadata/namespace");
        let target = &raw["spec"]["scaleTargetRef"];
        let (kind, name) = (text(target, "/kind"), text(target, "/name"));
        let Some(found) = self.api.find(kind, namespace, name) else {
            return;
        };
        let current = number(&found, "/spec/replicas").unwrap_or(1);
        let running = number(&found, "/status/replicas").unwrap_or(0);
        let own = (namespace.to_owned(), text(raw, "/metadata/name").to_owned());
        let least = number(raw, "/spec/minReplicas").unwrap_or(1);
        let most = number(raw, "/spec/maxReplicas").unwrap_or(i64::MAX).max(least);
        // One that is scaled to none sleeps.
        let is_active = current > 0;
        let wished = match is_active {
            true => self.wishes.get(&own).copied().unwrap_or(current).clamp(least, most),
            false => 0,
        };
        if wished != current {
            self.api.set_scale(kind, namespace, name, wished);
        }
        let mut conditions = super::object::list(raw, "/status/conditions").to_vec();
        let (is, reason) = if is_active {
            ("True", "ValidMetricFound")
        } else {
            ("False", "ScalingDisabled")
        };
        for (kind, is, reason) in [
            ("AbleToScale", "True", "ReadyForNewScale"),
            ("ScalingActive", is, reason),
        ] {
            let new = json!({"type": kind, "status": is, "reason": reason, "message": ""});
            set_condition(&mut conditions, new, &self.stamp);
        }
        let mut status = json!({"currentReplicas": running, "desiredReplicas": wished, "conditions": conditions});
        match wished == current {
            true => status["lastScaleTime"] = raw["status"]["lastScaleTime"].clone(),
            false => status["lastScaleTime"] = json!(self.stamp),
        }
        if status["lastScaleTime"].is_null() {
            status.as_object_mut().map(|status| status.remove("lastScaleTime"));
        }
        self.set_status(raw, status);
    }
}
