//! A Deployment as Kubernetes starts it: the environment of its main container with every reference followed, and the
//! files that are mounted into it from Secrets and ConfigMaps.
//!
//! The rules are those of `EnvVar` and `EnvFromSource` in the Kubernetes API (core/v1): `env` wins over `envFrom`, a later
//! source over an earlier one, `$(NAME)` stands for a variable that is set before.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, Volume};
use kube::ResourceExt as _;

use super::objects::{Object, Objects};
use super::{Error, Found};
use crate::secret::Secret;

/// A Deployment and its main container.
pub(super) struct Workload<'c> {
    pub(super) deployment: Deployment,
    objects: &'c Objects<'c>,
    container: Container,
    pod: PodSpec,
    /// What `envFrom` sets.
    sourced: BTreeMap<String, Found<Secret>>,
}

impl<'c> Workload<'c> {
    /// Reads the Deployment `name`; `None` where there is none. `container` is the main one's name.
    pub(super) async fn read(objects: &'c Objects<'c>, name: &str, container: &str) -> Result<Option<Self>, Error> {
        let cluster = objects.cluster();
        let found =
            cluster.call(format!("reading Deployment/{name}"), cluster.api::<Deployment>().get_opt(name)).await?;
        let Some(deployment) = found else { return Ok(None) };
        let spec = deployment.spec.as_ref().and_then(|spec| spec.template.spec.clone());
        let pod = spec.unwrap_or_default();
        let main = pod.containers.iter().find(|one| one.name == container).or(pod.containers.first()).cloned();
        let main = main.ok_or_else(|| Error::NoContainer { workload: format!("Deployment/{name}") })?;
        let mut workload = Self { deployment, objects, container: main, pod, sourced: BTreeMap::new() };
        workload.follow_sources().await?;
        Ok(Some(workload))
    }

    /// Kind and name.
    pub(super) fn label(&self) -> String {
        format!("Deployment/{}", self.deployment.name_any())
    }

    /// The image of the main container.
    pub(super) fn image(&self) -> Option<Found<String>> {
        Some(Found::new(self.container.image.clone()?, format!("{} image", self.label())))
    }

    /// The ServiceAccount that its pods run as.
    pub(super) fn account(&self) -> String {
        self.pod.service_account_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned())
    }

    /// The folder of the node that is mounted at `path`.
    pub(super) fn host_folder(&self, path: &str) -> Option<Found<String>> {
        let mounts = self.container.volume_mounts.iter().flatten();
        let mount = mounts.into_iter().find(|mount| mount.mount_path.trim_end_matches('/') == path)?;
        let folder = self.volume(&mount.name)?.host_path.as_ref()?.path.clone();
        Some(Found::new(folder, format!("{} volume {}", self.label(), mount.name)))
    }

    /// The value of a variable, wherever it comes from; an empty one counts as unset, as it does for Pachyderm.
    pub(super) async fn variable(&self, name: &str) -> Result<Option<Found<Secret>>, Error> {
        Ok(self.resolve(name, self.variables().len()).await?.filter(|found| !found.text().is_empty()))
    }

    /// The same for one that must be there.
    pub(super) async fn required(&self, name: &str) -> Result<Found<Secret>, Error> {
        let missing = || Error::NoVariable { workload: self.label(), variable: name.to_owned() };
        self.variable(name).await?.ok_or_else(missing)
    }

    /// The content of the file that is mounted at `path` from a Secret or a ConfigMap.
    pub(super) async fn file(&self, path: &str) -> Result<Option<Found<Secret>>, Error> {
        let inside = |mount: &str| path.strip_prefix(mount.trim_end_matches('/'))?.strip_prefix('/');
        for mount in self.container.volume_mounts.iter().flatten() {
            let (Some(file), Some(volume)) = (inside(&mount.mount_path), self.volume(&mount.name)) else { continue };
            let Some((object, items)) = source(volume) else { continue };
            // Without a list of items each key is a file.
            let key = items.iter().find(|(_, path)| path == file).map_or(file, |(key, _)| key);
            if let Some(value) = self.objects.get(&object).await?.and_then(|values| values.get(key).cloned()) {
                return Ok(Some(Found::new(value, format!("{object} key {key}"))));
            }
        }
        Ok(None)
    }

    fn volume(&self, name: &str) -> Option<&Volume> {
        self.pod.volumes.iter().flatten().find(|volume| volume.name == name)
    }

    fn variables(&self) -> &[EnvVar] {
        self.container.env.as_deref().unwrap_or_default()
    }

    async fn follow_sources(&mut self) -> Result<(), Error> {
        for source in self.container.env_from.iter().flatten() {
            let (object, optional) = match (&source.secret_ref, &source.config_map_ref) {
                (Some(secret), _) => (Object::Secret(secret.name.clone()), secret.optional),
                (None, Some(map)) => (Object::ConfigMap(map.name.clone()), map.optional),
                (None, None) => continue,
            };
            let Some(values) = self.objects.get(&object).await? else {
                if optional == Some(true) {
                    continue;
                }
                let referrer = format!("{} envFrom", self.label());
                return Err(Error::NoObject { referrer, object: object.to_string() });
            };
            let prefix = source.prefix.clone().unwrap_or_default();
            for (key, value) in values.iter() {
                let found = Found::new(value.clone(), format!("{object} key {key}"));
                self.sourced.insert(format!("{prefix}{key}"), found);
            }
        }
        Ok(())
    }

    /// The value of `name` as the first `known` variables of `env` and all of `envFrom` set it.
    fn resolve<'s>(&'s self, name: &'s str, known: usize) -> BoxFuture<'s, Result<Option<Found<Secret>>, Error>> {
        Box::pin(async move {
            let Some(at) = self.variables()[..known].iter().rposition(|variable| variable.name == name) else {
                return Ok(self.sourced.get(name).cloned());
            };
            let variable = &self.variables()[at];
            let referrer = format!("{} env {name}", self.label());
            let Some(reference) = &variable.value_from else {
                let text = self.expand(variable.value.as_deref().unwrap_or_default(), at).await?;
                return Ok(Some(Found::new(Secret::from(text), referrer)));
            };
            let (object, key, optional) = match (&reference.secret_key_ref, &reference.config_map_key_ref) {
                (Some(one), _) => (Object::Secret(one.name.clone()), &one.key, one.optional),
                (None, Some(one)) => (Object::ConfigMap(one.name.clone()), &one.key, one.optional),
                // Facts on the pod itself, none of which Pachyderm's databases or bucket hang on.
                (None, None) => return Ok(None),
            };
            let values = self.objects.get(&object).await?;
            if let Some(value) = values.as_ref().and_then(|values| values.get(key)) {
                return Ok(Some(Found::new(value.clone(), format!("{object} key {key} ({referrer})"))));
            }
            match (optional, values) {
                (Some(true), _) => Ok(None),
                (_, None) => Err(Error::NoObject { referrer, object: object.to_string() }),
                (_, Some(_)) => Err(Error::NoKey { referrer, object: object.to_string(), key: key.clone() }),
            }
        })
    }

    /// Puts the values of the variables before `at` in for `$(NAME)`; `$$` is a dollar sign, and what is not known stays.
    async fn expand(&self, text: &str, at: usize) -> Result<String, Error> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
                match self.resolve(name, at).await? {
                    Some(found) => expanded.push_str(found.text()),
                    None => expanded.push_str(&format!("$({name})")),
                }
                rest = after;
            } else {
                expanded.push('$');
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

/// What a volume is filled from, and which keys become which files.
fn source(volume: &Volume) -> Option<(Object, Vec<(String, String)>)> {
    let (object, items) = match (&volume.secret, &volume.config_map) {
        (Some(secret), _) => (Object::Secret(secret.secret_name.clone()?), &secret.items),
        (None, Some(map)) => (Object::ConfigMap(map.name.clone()), &map.items),
        (None, None) => return None,
    };
    Some((object, items.iter().flatten().map(|item| (item.key.clone(), item.path.clone())).collect()))
}
