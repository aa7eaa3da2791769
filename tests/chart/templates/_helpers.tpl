{{- define "backend" -}}
{{ .Values.pachd.storage.backend | default .Values.deployTarget }}
{{- end -}}

{{- define "image" -}}
{{ .Values.pachd.image.repository }}:{{ .Values.pachd.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "labels" -}}
app: {{ . }}
suite: pachyderm
{{- end -}}

{{- /* What pachd, pachw and an enterprise server know of the databases. */ -}}
{{- define "database" -}}
{{- $p := .Values.global.postgresql -}}
- name: POSTGRES_HOST
  value: {{ $p.postgresqlHost | quote }}
- name: POSTGRES_PORT
  value: {{ $p.postgresqlPort | quote }}
- name: POSTGRES_USER
  value: {{ $p.postgresqlUsername | quote }}
- name: POSTGRES_DATABASE
  value: {{ $p.postgresqlDatabase | quote }}
{{- if $p.ssl }}
- name: POSTGRES_SSL
  value: require
{{- end }}
- name: POSTGRES_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $p.postgresqlExistingSecretName | default "postgres" }}
      key: {{ $p.postgresqlExistingSecretKey | default "postgresql-password" }}
{{- if $p.identityDatabaseFullNameOverride }}
- name: IDENTITY_SERVER_DATABASE
  value: {{ $p.identityDatabaseFullNameOverride | quote }}
{{- end }}
- name: PG_BOUNCER_HOST
  value: pg-bouncer
- name: PG_BOUNCER_PORT
  value: "5432"
{{- end -}}

{{- define "storage" -}}
{{- $s := .Values.pachd.storage -}}
- name: STORAGE_BACKEND
  value: {{ include "backend" . | quote }}
{{- if eq .Values.generation "2.9" }}
- name: GOCDK_ENABLED
  value: {{ $s.gocdkEnabled | default "false" | quote }}
{{- else if eq .Values.generation "2.10" }}
- name: GOCDK_ENABLED
  value: {{ $s.gocdkEnabled | default "true" | quote }}
{{- end }}
{{- if $s.storageURL }}
- name: STORAGE_URL
  value: {{ $s.storageURL | quote }}
{{- end }}
{{- if eq (include "backend" .) "LOCAL" }}
- name: STORAGE_HOST_PATH
  value: {{ $s.local.hostPath }}pachd
{{- end }}
{{- end -}}

{{- define "sources" -}}
- secretRef:
    name: pachyderm-storage-secret
- secretRef:
    name: pachyderm-deployment-id-secret
- configMapRef:
    name: pachd-config
    optional: true
{{- end -}}
