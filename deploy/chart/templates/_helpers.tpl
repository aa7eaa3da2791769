{{- define "pacharc.labels" -}}
app.kubernetes.io/name: pacharc
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "pacharc.account" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end -}}

{{- define "pacharc.claim" -}}
{{ .Values.storage.existingClaim | default (ternary (printf "%s-bundles" .Release.Name) "" (ne .Values.storage.size "")) }}
{{- end -}}

{{- define "pacharc.image" -}}
{{ required "image.repository: name your image of pacharc" .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* The spec of a Job: that of the schedule, and that of now. */ -}}
{{- define "pacharc.job" -}}
# A backup that failed is looked at, and not tried again by itself: the next one comes.
backoffLimit: 0
{{- with .Values.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ . }}
{{- end }}
template:
  metadata:
    labels:
      {{- include "pacharc.labels" . | nindent 6 }}
      {{- with .Values.podLabels }}{{ toYaml . | nindent 6 }}{{ end }}
    {{- with .Values.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "pacharc.account" . }}
    # Time to take back what is half done, and to scale a suspended cluster up.
    terminationGracePeriodSeconds: 120
    securityContext:
      runAsNonRoot: true
      runAsUser: 65532
      runAsGroup: 65532
      fsGroup: 65532
      seccompProfile:
        type: RuntimeDefault
    {{- with .Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: pacharc
        image: {{ include "pacharc.image" . | quote }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        command:
          {{- toYaml .Values.command | nindent 10 }}
        args:
          - backup
          - --namespace={{ .Release.Namespace }}
          - {{ printf "--output=%s" .Values.output | quote }}
          {{- range required "recipients: name at least one public key" .Values.recipients }}
          - {{ printf "--recipient=%s" . | quote }}
          {{- end }}
          - --temp-dir=/tmp
          - --json
          {{- range .Values.arguments }}
          - {{ . | quote }}
          {{- end }}
          {{- $arguments := join "\n" .Values.arguments }}
          {{- /* A guardian that is a process would end with this pod: it is a Job, of the same image. */}}
          {{- if and (contains "--quiesce" $arguments) (not (contains "--guardian" $arguments)) }}
          - {{ printf "--guardian-image=%s" (include "pacharc.image" .) | quote }}
          {{- end }}
        {{- with .Values.env }}
        env:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with .Values.envFrom }}
        envFrom:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: ["ALL"]
        resources:
          {{- toYaml .Values.resources | nindent 10 }}
        volumeMounts:
          - name: temporary
            mountPath: /tmp
          {{- if include "pacharc.claim" . }}
          - name: bundles
            mountPath: /bundles
          {{- end }}
    volumes:
      - name: temporary
        emptyDir:
          sizeLimit: {{ .Values.temporarySize }}
      {{- with include "pacharc.claim" . }}
      - name: bundles
        persistentVolumeClaim:
          claimName: {{ . }}
      {{- end }}
    {{- with .Values.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.affinity }}
    affinity:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}
