//! Kubernetes: what a namespace says about its Pachyderm, how it is brought to a halt and back, and what of it goes into a
//! bundle. pacharc speaks to the API server alone, never to pachd.
//!
//! Facts on Pachyderm's objects have their source in its Helm chart (`etc/helm/pachyderm`), named where they are used.

mod client;
pub mod discover;
pub mod errand;
mod error;
pub mod forward;
mod forward_error;
pub mod helm;
pub mod history;
pub mod notice;
pub mod permissions;
mod readable;
pub mod state;
pub mod suspend;
pub mod values;
pub(crate) mod yaml;

pub use client::Cluster;
pub use error::Error;
pub use forward_error::Error as ForwardError;
