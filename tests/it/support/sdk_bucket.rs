//! A bucket of an S3 server as tests see it: through the SDK's own client, not through pacharc.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use pacharc_sample::bucket::Bucket;

use super::s3_server::S3Server;

pub struct SdkBucket {
    pub client: Client,
    pub name: String,
    pub url: String,
}

/// An object with everything that a copy must keep.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    pub bytes: Bytes,
    pub content_type: Option<String>,
    pub metadata: Option<HashMap<String, String>>,
}

impl SdkBucket {
    /// Makes a bucket.
    pub async fn make(server: &S3Server, name: &str) -> Self {
        let client = server.client();
        client.create_bucket().bucket(name).send().await.unwrap();
        let url = format!("s3://{name}?endpoint={}&region=us-east-1&path_style=true", server.endpoint());
        Self { client, name: name.to_owned(), url }
    }

    /// Stores an object with a content type and metadata of a user.
    pub async fn put_with(&self, key: &str, bytes: &[u8], content_type: &str, metadata: (&str, &str)) {
        let request = self.client.put_object().bucket(&self.name).key(key).content_type(content_type);
        let request = request.metadata(metadata.0, metadata.1).body(ByteStream::from(bytes.to_vec()));
        request.send().await.unwrap_or_else(|error| panic!("{key:?}: {error:?}"));
    }

    /// All objects.
    pub async fn whole(&self) -> BTreeMap<String, Whole> {
        let mut all = BTreeMap::new();
        for key in self.keys().await.unwrap() {
            let got = self.client.get_object().bucket(&self.name).key(&key).send().await.unwrap();
            let (content_type, metadata) = (got.content_type.clone(), got.metadata.clone());
            let bytes = got.body.collect().await.unwrap().into_bytes();
            all.insert(key, Whole { bytes, content_type, metadata });
        }
        all
    }

    /// How many uploads in parts have begun and neither ended nor been taken back.
    pub async fn uploads(&self) -> usize {
        self.client.list_multipart_uploads().bucket(&self.name).send().await.unwrap().uploads().len()
    }
}

#[async_trait]
impl Bucket for SdkBucket {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.client.put_object().bucket(&self.name).key(key).body(bytes.into()).send().await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        match self.client.get_object().bucket(&self.name).key(key).send().await {
            Ok(got) => Ok(Some(got.body.collect().await?.into_bytes())),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_key()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.client.delete_object().bucket(&self.name).key(key).send().await?;
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut pages = self.client.list_objects_v2().bucket(&self.name).into_paginator().send();
        while let Some(page) = pages.next().await {
            keys.extend(page?.contents().iter().map(|object| object.key().unwrap_or_default().to_owned()));
        }
        keys.sort_unstable();
        Ok(keys)
    }
}
