//! Servers and material that tests share.

pub mod authority;
pub mod authorizer;
pub mod cgroup;
pub mod cluster;
pub mod crafted;
pub mod fault_server;
pub mod forge;
pub mod kubelab;
pub mod minio;
pub mod moments;
pub mod moto;
pub mod outer;
pub mod pachyderm;
pub mod page;
pub mod postgres;
pub mod program;
pub mod s3_server;
pub mod sdk_bucket;
pub mod site;
pub mod versitygw;
