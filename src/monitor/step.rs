//! The steps by which a cluster is suspended and comes back.

use serde::Serialize;

/// A step of `suspend`, `resume`, a guardian, or a backup that suspends; told before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Takes the Lease; waits, where somebody else has it, until that one is seen to be gone.
    TakeLease,
    /// Starts a guardian, and waits until it has proved itself.
    StartGuardian,
    /// Writes down the counts.
    Record,
    /// Writes them onto the Deployments, too.
    Annotate,
    /// Scales pachd (and pach-enterprise) to zero.
    ScalePachd,
    /// Waits until their pods are gone.
    DrainPachd,
    /// Scales pachw to zero.
    ScalePachw,
    /// Scales the workers to zero.
    ScaleWorkers,
    /// Waits until no pod is left that writes.
    DrainAll,
    /// The cluster is suspended.
    Suspended,
    /// The resume begins: makes late scale requests of others fail.
    Fence,
    /// Scales up what is below its recorded count.
    ScaleUp,
    /// Waits until pachd is ready.
    AwaitReady,
    /// Removes the record.
    RemoveRecord,
    /// Gives the Lease back.
    ReleaseLease,
    /// The cluster runs again.
    Resumed,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 16] = [
        Self::TakeLease,
        Self::StartGuardian,
        Self::Record,
        Self::Annotate,
        Self::ScalePachd,
        Self::DrainPachd,
        Self::ScalePachw,
        Self::ScaleWorkers,
        Self::DrainAll,
        Self::Suspended,
        Self::Fence,
        Self::ScaleUp,
        Self::AwaitReady,
        Self::RemoveRecord,
        Self::ReleaseLease,
        Self::Resumed,
    ];

    /// What people read.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TakeLease => "taking the Lease",
            Self::StartGuardian => "starting the guardian",
            Self::Record => "recording the counts",
            Self::Annotate => "recording them on the Deployments",
            Self::ScalePachd => "scaling pachd to 0",
            Self::DrainPachd => "waiting until its pods are gone",
            Self::ScalePachw => "scaling pachw to 0",
            Self::ScaleWorkers => "scaling the workers to 0",
            Self::DrainAll => "waiting until all pods are gone",
            Self::Suspended => "suspended",
            Self::Fence => "beginning to resume",
            Self::ScaleUp => "scaling up",
            Self::AwaitReady => "waiting until pachd is ready",
            Self::RemoveRecord => "removing the record",
            Self::ReleaseLease => "giving the Lease back",
            Self::Resumed => "running",
        }
    }
}
