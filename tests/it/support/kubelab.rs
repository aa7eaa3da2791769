//! A real Kubernetes API server (`tests/kubelab`), one for all tests of a run: each takes a namespace of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use tempfile::TempDir;

use super::s3_server::{data_folder, program};

/// An API server that is about to run takes some seconds, on a busy machine many.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running API server; ends when dropped, or with the process that started it.
pub struct Kubelab {
    child: Child,
    /// Closed with this process, however that ends: the server's sign to stop.
    _stdin: ChildStdin,
    folder: TempDir,
}

impl Kubelab {
    /// The one of this run; `None` if it is not installed, which is said.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Kubelab>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// One of the test's own, to be harmed.
    pub fn start() -> Option<Self> {
        let Some(server) = program("kubelab") else {
            eprintln!("skipped: kubelab is not installed (tests/setup/kubelab.sh)");
            return None;
        };
        // Its data lie in a folder that it makes itself, and takes away: what is shared is never dropped.
        let folder = data_folder();
        let mut child = Command::new(&server)
            .arg("-kubeconfig")
            .arg(folder.path().join("kubeconfig"))
            .args(["-exit-on-stdin-eof", "-allow-exec"])
            // Pods that run for real find the program under test.
            .env("PATH", path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let kubelab = Self { _stdin: child.stdin.take().unwrap(), child, folder };
        let begun = Instant::now();
        while !kubelab.kubeconfig().exists() {
            assert!(begun.elapsed() < PATIENCE, "{} is not ready", server.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(kubelab)
    }

    /// Whose context is the administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A client of the test's own, which may do everything.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A new namespace with a name of its own, ready for pods.
    pub async fn namespace(&self) -> Lab {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("pachyderm-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = self.client().await;
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
        let begun = Instant::now();
        while accounts.get_opt("default").await.unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "namespace {name} has no default account");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Lab { client, name, kubeconfig: self.kubeconfig() }
    }
}

/// The search path, with the program under test in front.
fn path() -> std::ffi::OsString {
    let own = Path::new(env!("CARGO_BIN_EXE_pacharc")).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))).unwrap()
}

impl Drop for Kubelab {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One test's namespace.
pub struct Lab {
    pub client: Client,
    pub name: String,
    kubeconfig: PathBuf,
}

impl Lab {
    /// The objects of a kind.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The flags that name it to pacharc.
    pub fn flags(&self) -> Vec<String> {
        vec!["--namespace".into(), self.name.clone(), "--kubeconfig".into(), self.kubeconfig.display().to_string()]
    }

    /// The flags that name it to pacharc as the ServiceAccount `account`, whose token goes into `kubeconfig`.
    pub async fn flags_as(&self, account: &str, kubeconfig: &Path) -> Vec<String> {
        use k8s_openapi::api::authentication::v1::TokenRequest;
        let accounts: Api<ServiceAccount> = self.api();
        let (params, request) = (PostParams::default(), TokenRequest::default());
        let made = accounts.create_token_request(account, &params, &request).await.unwrap();
        let token = made.status.unwrap().token;
        let mut config: serde_json::Value =
            serde_json::to_value(Kubeconfig::read_from(self.kubeconfig()).unwrap()).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = serde_json::json!({ "token": token });
        }
        std::fs::write(kubeconfig, config.to_string()).unwrap();
        vec!["--namespace".into(), self.name.clone(), "--kubeconfig".into(), kubeconfig.display().to_string()]
    }

    /// Runs the real helm here, which must succeed.
    pub fn helm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        let mut helm = Command::new(program("helm").expect("tests/setup/kubelab.sh builds helm beside kubelab"));
        helm.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", &self.name]).args(args);
        let output = helm.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{helm:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Makes what a document of YAML or JSON describes, by the real kubectl's rules: server-side apply.
    pub async fn apply<K>(&self, object: serde_json::Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        use kube::api::{Patch, PatchParams};
        let name = object["metadata"]["name"].as_str().expect("an object has a name").to_owned();
        let mut object = object;
        let kind = K::DynamicType::default();
        object["apiVersion"] = K::api_version(&kind).into();
        object["kind"] = K::kind(&kind).into();
        let params = PatchParams::apply("test").force();
        self.api::<K>().patch(&name, &params, &Patch::Apply(object)).await.unwrap()
    }
}
