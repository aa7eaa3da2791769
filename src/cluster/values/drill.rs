//! The NetworkPolicy of a rehearsal: pods reach each other, names, the restored database and the restored bucket, and nothing
//! else; nothing outside reaches them. So pipelines write to no real target, and a real enterprise server hears nothing.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// Its name.
const NAME: &str = "pacharc-drill";

/// The policy, with `allowed` as the only places outside of the namespace.
pub(super) fn policy(namespace: Option<&str>, allowed: &[SocketAddr]) -> Value {
    let outside = allowed.iter().map(|address| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let block = json!({ "ipBlock": { "cidr": format!("{}/{bits}", address.ip()) } });
        json!({ "to": [block], "ports": [{ "protocol": "TCP", "port": address.port() }] })
    });
    let names = json!({
        "to": [{
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
            "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
        }],
        "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }],
    });
    let mut egress = vec![json!({ "to": [{ "podSelector": {} }] }), names];
    egress.extend(outside);
    let mut policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": NAME },
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": [{ "podSelector": {} }] }],
            "egress": egress,
        },
    });
    if let Some(namespace) = namespace {
        policy["metadata"]["namespace"] = namespace.into();
    }
    policy
}
