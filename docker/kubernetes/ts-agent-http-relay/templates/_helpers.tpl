{{- define "relay.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "relay.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "relay.labels" -}}
{{ include "relay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "relay.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "relay.secret" -}}
{{- if .Values.existingSecret }}{{ .Values.existingSecret }}
{{- else if .Values.secret.jwt }}{{ include "relay.name" . }}
{{- else }}{{ fail "Set existingSecret to the name of a Secret with the key jwt, or set secret.jwt." }}{{ end }}
{{- end }}

{{- define "relay.shared" -}}
{{- if or .Values.sharedQueue (gt (int .Values.replicas) 1) }}true{{ else }}false{{ end }}
{{- end }}

{{/* What the agent and the Job `retire` have in common. */}}
{{- define "relay.pod" -}}
automountServiceAccountToken: false
# Otherwise a Service called "relay" would set variables that begin with RELAY_.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .Values.user }}
  runAsUser: {{ int . }}
  runAsGroup: {{ int . }}
  fsGroup: {{ int . }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "relay.container" -}}
image: {{ include "relay.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
envFrom:
  - configMapRef: {name: {{ include "relay.name" . }}}
  {{- with .Values.settingsSecret }}
  - secretRef: {name: {{ . }}}
  {{- end }}
env:
  - {name: RELAY_STATE_DIR, value: /var/lib/relay-agent}
  {{- if .RetiresShared }}
  # What the others have received is theirs, whatever the ConfigMap says by now.
  - {name: RELAY_SHARED_QUEUE, value: "true"}
  {{- end }}
  - {name: JWT_FILE, value: /run/secrets/relay-agent/jwt}
  {{- if or .Values.secureCommands .Values.secret.secureCommandKey }}
  - {name: SECURE_COMMAND_KEY_FILE, value: /run/secrets/relay-agent/secure-command-key}
  {{- end }}
  {{- if .Values.caCertificates }}
  - {name: RELAY_CA_FILE, value: /run/config/ca/ca.pem}
  {{- end }}
  {{- if .Values.policyFiles }}
  - {name: RELAY_POLICY_FILE, value: /run/config/policy/policy.toml}
  {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{ toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: state, mountPath: /var/lib/relay-agent}
  - {name: secrets, mountPath: /run/secrets/relay-agent, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.caCertificates }}
  - {name: ca, mountPath: /run/config/ca, readOnly: true}
  {{- end }}
  {{- if .Values.policyFiles }}
  - {name: policy, mountPath: /run/config/policy, readOnly: true}
  {{- end }}
{{- end }}

{{- define "relay.volumes" -}}
- name: secrets
  secret: {secretName: {{ include "relay.secret" . }}, defaultMode: 0440}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 320Mi}
{{- if .Values.caCertificates }}
- name: ca
  configMap: {name: {{ include "relay.name" . }}-ca}
{{- end }}
{{- if .Values.policyFiles }}
- name: policy
  configMap: {name: {{ include "relay.name" . }}-policy}
{{- end }}
{{- end }}
