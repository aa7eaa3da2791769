//! A chart that makes the Secrets and the Deployment that Pachyderm's does, under the same conditions (Pachyderm 2.11,
//! `etc/helm/pachyderm/templates/pachd/auth-secret.yaml` and its neighbours).

use std::path::Path;

const CHART: &str = "apiVersion: v2\nname: pachyderm\nversion: 2.11.6\nappVersion: 2.11.6\n";

const VALUES: &str = "\
deployTarget: ''
global:
  postgresql: {postgresqlHost: postgres, postgresqlPort: '5432', postgresqlDatabase: pachyderm, postgresqlUsername: pachyderm,
    postgresqlPassword: '', postgresqlExistingSecretName: '', postgresqlExistingSecretKey: '',
    identityDatabaseFullNameOverride: dex}
pachd:
  replicas: 1
  image: {tag: ''}
  rootToken: ''
  rootTokenSecretName: ''
  oauthClientSecret: ''
  oauthClientSecretSecretName: ''
  enterpriseSecret: ''
  enterpriseSecretSecretName: ''
  clusterDeploymentID: ''
  storage: {backend: '', storageURL: '', amazon: {bucket: '', region: '', id: '', secret: ''}}
  serviceAccount: {additionalAnnotations: {}}
console: {config: {oauthClientSecret: '', oauthClientSecretSecretName: ''}}
oidc: {mockIDP: true, upstreamIDPs: [], upstreamIDPsSecretName: ''}
postgresql: {enabled: true}
proxy: {host: ''}
";

const TEMPLATE: &str = r#"
{{- $p := .Values.pachd }}
{{- $pg := .Values.global.postgresql }}
apiVersion: v1
kind: ServiceAccount
metadata: {name: pachyderm, annotations: {{ toJson $p.serviceAccount.additionalAnnotations }}}
---
apiVersion: v1
kind: Secret
metadata: {name: pachyderm-storage-secret}
stringData: {AMAZON_ID: {{ $p.storage.amazon.id | quote }}, AMAZON_SECRET: {{ $p.storage.amazon.secret | quote }}}
---
apiVersion: v1
kind: Secret
metadata: {name: pachyderm-deployment-id-secret}
stringData: {CLUSTER_DEPLOYMENT_ID: {{ $p.clusterDeploymentID | default (randAlphaNum 32) | quote }}}
---
apiVersion: v1
kind: Secret
metadata: {name: pachyderm-auth}
stringData:
  auth-config: "client_id: pachd"
{{- if not $p.rootTokenSecretName }}
  root-token: {{ $p.rootToken | default (randAlphaNum 32) | quote }}
{{- end }}
{{- if not $p.oauthClientSecretSecretName }}
  pachd-oauth-client-secret: {{ $p.oauthClientSecret | default (randAlphaNum 32) | quote }}
{{- end }}
{{- if and .Values.oidc.mockIDP (not .Values.oidc.upstreamIDPsSecretName) (not .Values.oidc.upstreamIDPs) }}
  cluster-role-bindings: "user:kilgore@kilgore.trout: [clusterAdmin]"
{{- end }}
---
{{- if not .Values.oidc.upstreamIDPsSecretName }}
apiVersion: v1
kind: Secret
metadata: {name: pachyderm-identity}
stringData: {upstream-idps: {{ toYaml (.Values.oidc.upstreamIDPs | default (list (dict "id" "test" "type" "mockPassword"))) | quote }}}
{{- end }}
---
{{- if not .Values.console.config.oauthClientSecretSecretName }}
apiVersion: v1
kind: Secret
metadata: {name: pachyderm-console-secret}
stringData: {OAUTH_CLIENT_SECRET: {{ .Values.console.config.oauthClientSecret | default (randAlphaNum 32) | quote }}}
{{- end }}
---
{{- if not $p.enterpriseSecretSecretName }}
apiVersion: v1
kind: Secret
metadata: {name: pachyderm-enterprise}
stringData: {enterprise-secret: {{ $p.enterpriseSecret | default (randAlphaNum 32) | quote }}}
{{- end }}
---
{{- if and .Values.postgresql.enabled (not $pg.postgresqlExistingSecretName) }}
apiVersion: v1
kind: Secret
metadata: {name: postgres}
stringData: {postgresql-password: {{ $pg.postgresqlPassword | default (randAlphaNum 10) | quote }}}
{{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: pachyderm-identity-config}
data: {trusted-peers: "[]"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: pachd, labels: {suite: pachyderm, app: pachd}}
spec:
  replicas: {{ $p.replicas }}
  selector: {matchLabels: {suite: pachyderm, app: pachd}}
  template:
    metadata: {labels: {suite: pachyderm, app: pachd}}
    spec:
      serviceAccountName: pachyderm
      containers:
      - name: pachd
        image: "pachyderm/pachd:{{ $p.image.tag | default .Chart.AppVersion }}"
        envFrom: [{secretRef: {name: pachyderm-storage-secret}}]
        env:
        - {name: POSTGRES_HOST, value: {{ $pg.postgresqlHost | quote }}}
        - {name: POSTGRES_PORT, value: {{ $pg.postgresqlPort | quote }}}
        - {name: POSTGRES_DATABASE, value: {{ $pg.postgresqlDatabase | quote }}}
        - {name: POSTGRES_USER, value: {{ $pg.postgresqlUsername | quote }}}
        - {name: IDENTITY_SERVER_DATABASE, value: {{ $pg.identityDatabaseFullNameOverride | quote }}}
        - {name: STORAGE_BACKEND, value: {{ $p.storage.backend | default .Values.deployTarget | quote }}}
        - {name: STORAGE_URL, value: {{ $p.storage.storageURL | quote }}}
        - name: POSTGRES_PASSWORD
          valueFrom: {secretKeyRef: {name: {{ $pg.postgresqlExistingSecretName | default "postgres" }},
            key: {{ $pg.postgresqlExistingSecretKey | default "postgresql-password" }}}}
        - name: AUTH_ROOT_TOKEN
          valueFrom: {secretKeyRef: {name: {{ $p.rootTokenSecretName | default "pachyderm-auth" }}, key: root-token}}
        - name: PACHD_OAUTH_CLIENT_SECRET
          valueFrom: {secretKeyRef: {name: {{ $p.oauthClientSecretSecretName | default "pachyderm-auth" }},
            key: pachd-oauth-client-secret}}
"#;

/// Writes the chart into `folder`.
pub fn write(folder: &Path) {
    std::fs::create_dir_all(folder.join("templates")).unwrap();
    std::fs::write(folder.join("Chart.yaml"), CHART).unwrap();
    std::fs::write(folder.join("values.yaml"), VALUES).unwrap();
    std::fs::write(folder.join("templates/all.yaml"), TEMPLATE).unwrap();
}
