//! What a Job's pod says of itself.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet running, and why, as far as Kubernetes says.
    Waits(Option<String>),
    /// There is a log to follow.
    Runs,
    /// pacharc has ended, with this exit code.
    Exited(u8),
    /// Somebody ended it: in words.
    Killed(String),
}

/// The container that is followed; a cluster may add others.
pub(super) const CONTAINER: &str = "pacharc";

/// What lies in the way of most pods for a moment, and is no news.
const USUAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// What becomes of pacharc where the system kills it, as the exit code of a container.
const SIGKILL: i32 = 137;

pub(super) fn state(pod: &Pod) -> State {
    let Some(status) = &pod.status else { return State::Waits(None) };
    let container = status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER);
    let state = container.and_then(|container| container.state.as_ref());
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let reason = ended.reason.as_deref().unwrap_or_default();
        // The kernel, a node that goes away, or a program that is none.
        return match u8::try_from(ended.exit_code) {
            Ok(code)
                if ended.exit_code != SIGKILL
                    && !matches!(reason, "OOMKilled" | "StartError" | "ContainerCannotRun") =>
            {
                State::Exited(code)
            }
            _ => {
                State::Killed(format!("was killed: {}", told(reason, ended.message.as_deref(), Some(ended.exit_code))))
            }
        };
    }
    match status.phase.as_deref() {
        Some("Failed" | "Succeeded") => {
            let reason = status.reason.as_deref().unwrap_or("no reason is given");
            State::Killed(format!("was ended: {}", told(reason, status.message.as_deref(), None)))
        }
        Some("Running") => State::Runs,
        _ => State::Waits(container.and_then(waits).or_else(|| unscheduled(pod))),
    }
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !USUAL.contains(reason))?;
    Some(told(reason, waiting.message.as_deref(), None))
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let mut open = conditions.filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let condition = open.next()?;
    Some(told(condition.reason.as_deref().unwrap_or("Unschedulable"), condition.message.as_deref(), None))
}

/// E.g. `OOMKilled, exit code 137`.
fn told(reason: &str, message: Option<&str>, code: Option<i32>) -> String {
    let mut text = if reason.is_empty() { "no reason is given".to_owned() } else { reason.to_owned() };
    if let Some(message) = message.filter(|message| !message.is_empty()) {
        text = format!("{text} ({message})");
    }
    match code {
        Some(code) => format!("{text}, exit code {code}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn states_are_told_apart() {
        let of = |status| state(&serde_json::from_value(json!({ "metadata": {}, "status": status })).unwrap());
        let container = |phase: &str, state: serde_json::Value| {
            let status = json!({ "name": "pacharc", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                                 "state": state });
            of(json!({ "phase": phase, "containerStatuses": [status] }))
        };
        assert_eq!(of(json!({})), State::Waits(None));
        assert_eq!(container("Pending", json!({ "waiting": { "reason": "ContainerCreating" } })), State::Waits(None));
        let pull = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } });
        assert_eq!(container("Pending", pull), State::Waits(Some("ImagePullBackOff (no such image)".into())));
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                "message": "persistentvolumeclaim \"x\" not found" });
        let waits = "Unschedulable (persistentvolumeclaim \"x\" not found)".to_owned();
        assert_eq!(of(json!({ "phase": "Pending", "conditions": [condition] })), State::Waits(Some(waits)));
        assert_eq!(container("Running", json!({ "running": {} })), State::Runs);
        let ended = |code: i32, reason: &str| json!({ "terminated": { "exitCode": code, "reason": reason } });
        assert_eq!(container("Succeeded", ended(0, "Completed")), State::Exited(0));
        assert_eq!(container("Failed", ended(4, "Error")), State::Exited(4));
        let killed = State::Killed("was killed: OOMKilled, exit code 137".into());
        assert_eq!(container("Failed", ended(137, "OOMKilled")), killed);
        let evicted = of(json!({ "phase": "Failed", "reason": "Evicted", "message": "the node was low on memory" }));
        assert_eq!(evicted, State::Killed("was ended: Evicted (the node was low on memory)".into()));
    }
}
