//! Servers and material that tests share.

pub mod fault_server;
pub mod minio;
pub mod moto;
pub mod postgres;
pub mod s3_server;
pub mod versitygw;
