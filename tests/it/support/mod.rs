//! Servers and material for the tests.

pub mod fault_server;
pub mod minio;
pub mod moto;
pub mod s3_server;
pub mod versitygw;
