//! Objects as the operator makes them, with quantities and empty fields that the API server rewrites.

use serde_json::{Value, json};

pub fn service(meta: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {
        "type": "NodePort",
        "selector": { "codis.k8s.io/cluster": "c", "codis.k8s.io/component": "server" },
        "publishNotReadyAddresses": true,
        "sessionAffinity": "None",
        "ports": [
            { "name": "redis", "port": 6379, "targetPort": "redis" },
            { "name": "admin", "port": 11080, "targetPort": 11080, "protocol": "TCP" },
        ],
    }})
}

pub fn headless(meta: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {
        "clusterIP": "None",
        "selector": { "codis.k8s.io/cluster": "c" },
        "ports": [{ "port": 53, "protocol": "UDP", "name": "udp" }, { "port": 53, "name": "tcp" }],
    }})
}

pub fn secret(meta: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque",
        "data": { "redis.conf": "bWF4bWVtb3J5IDEK", "empty": "" } })
}

fn template() -> Value {
    json!({
        "metadata": {
            "labels": { "codis.k8s.io/cluster": "c", "codis.k8s.io/component": "server" },
            "annotations": { "codis.k8s.io/config": "" },
        },
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 30,
            "schedulerName": "default-scheduler",
            "nodeSelector": {},
            "tolerations": [{ "key": "dedicated", "operator": "Equal", "value": "codis", "effect": "NoSchedule" }],
            "imagePullSecrets": [],
            "securityContext": { "fsGroup": 0, "runAsNonRoot": false, "seccompProfile": { "type": "RuntimeDefault" } },
            "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100,
                "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": { "matchLabels": { "codis.k8s.io/group": "1" } } } }] } },
            "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": { "matchLabels": { "codis.k8s.io/group": "1" } } }],
            "containers": [{
                "name": "server",
                "image": "codis:3.2",
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "/scripts/server.sh"],
                "args": [],
                "env": [
                    { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "CORES", "valueFrom": { "resourceFieldRef":
                        { "containerName": "server", "resource": "limits.cpu", "divisor": "1" } } },
                    { "name": "EMPTY", "value": "" },
                ],
                "ports": [{ "name": "redis", "containerPort": 6379 }],
                "resources": {
                    "requests": { "cpu": "0.5", "memory": "1024Mi" },
                    "limits": { "cpu": "1000m", "memory": "2048Mi", "ephemeral-storage": "1.5Gi" },
                },
                "readinessProbe": { "tcpSocket": { "port": "redis" }, "initialDelaySeconds": 0, "periodSeconds": 5 },
                "livenessProbe": { "exec": { "command": ["/bin/sh", "-c", "true"] }, "failureThreshold": 6 },
                "lifecycle": { "preStop": { "exec": { "command": ["/bin/sh", "/scripts/stop.sh"] } } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "volumeMounts": [
                    { "name": "data", "mountPath": "/data" },
                    { "name": "config", "mountPath": "/config", "readOnly": true },
                    { "name": "scratch", "mountPath": "/scratch", "readOnly": false },
                ],
            }],
            "volumes": [
                { "name": "config", "secret": { "secretName": "c-config", "defaultMode": 288,
                    "items": [{ "key": "redis.conf", "path": "redis.conf" }] } },
                { "name": "scratch", "emptyDir": { "sizeLimit": "1024Mi" } },
                { "name": "data", "emptyDir": {} },
            ],
        },
    })
}

pub fn stateful_set(meta: Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": {
        "replicas": 2,
        "serviceName": "c-g1",
        "podManagementPolicy": "Parallel",
        "updateStrategy": { "type": "OnDelete" },
        "minReadySeconds": 0,
        "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Retain" },
        "selector": { "matchLabels": { "codis.k8s.io/cluster": "c", "codis.k8s.io/component": "server" } },
        "template": template(),
        "volumeClaimTemplates": [{ "metadata": { "name": "claim", "labels": { "codis.k8s.io/cluster": "c" } }, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "cbs",
            "resources": { "requests": { "storage": "10240Mi" } } } }],
    }})
}

pub fn deployment(meta: Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
        "replicas": 3,
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        "selector": { "matchLabels": { "codis.k8s.io/cluster": "c", "codis.k8s.io/component": "server" } },
        "template": template(),
    }})
}
