{{- define "fedsecure.image" -}}
{{- $repository := required "image.repository: the registry's name of the image" .Values.image.repository -}}
{{- if .Values.image.tag -}}{{ $repository }}:{{ .Values.image.tag }}{{- else -}}{{ $repository }}{{- end -}}
{{- end }}

{{- define "fedsecure.labels" -}}
app.kubernetes.io/name: fedsecure
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The restricted profile of Kubernetes' pod security standards, and a little more. */ -}}
{{- define "fedsecure.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fedsecure.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  privileged: false
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* A Secret's files are links that a group may read; a kit has files of mode 0600. What
is not the daemon's own state is made anew at each start, so that a Secret that changed
counts, and a file that left it is gone. */ -}}
{{- define "fedsecure.layKit" -}}
name: lay-kit
image: {{ include "fedsecure.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [/bin/sh, -euc]
args:
  - |
    umask 077
    mkdir -p /var/lib/fedsecure/kit/state /var/lib/fedsecure/kit/roster.d
    cd /var/lib/fedsecure/kit
    find . -mindepth 1 -maxdepth 1 ! -name state ! -name roster.d -exec rm -rf {} +
    for file in /secret/*; do install -m 0600 "$file" .; done
    for file in /config/*.json; do
      case "${file##*/}" in
        [0-9]*.json) install -m 0600 "$file" roster.d/ ;;
        *) install -m 0600 "$file" . ;;
      esac
    done
    for folder in /credentials/*/; do
      [ -d "$folder" ] || continue
      own=/run/fedsecure/credentials/$(basename "$folder")
      mkdir -p "$own"
      for file in "$folder"*; do install -m 0600 "$file" "$own/"; done
    done
{{ include "fedsecure.containerSecurity" . }}
resources:
  requests: {cpu: 50m, memory: 32Mi}
  limits: {memory: 64Mi}
{{- end }}

{{- define "fedsecure.probes" -}}
startupProbe:
  exec: {command: [fedsecure, health, --kit, /var/lib/fedsecure/kit]}
  periodSeconds: 10
  timeoutSeconds: 20
  failureThreshold: 30
readinessProbe:
  exec: {command: [fedsecure, health, --kit, /var/lib/fedsecure/kit]}
  periodSeconds: 30
  timeoutSeconds: 20
  failureThreshold: 2
livenessProbe:
  exec: {command: [fedsecure, health, --kit, /var/lib/fedsecure/kit]}
  periodSeconds: 60
  timeoutSeconds: 30
  failureThreshold: 5
{{- end }}

{{- define "fedsecure.dns" -}}
- to:
    - namespaceSelector: {{- toYaml .Values.dns.namespaceSelector | nindent 8 }}
      podSelector: {{- toYaml .Values.dns.podSelector | nindent 8 }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{- define "fedsecure.claim" -}}
- metadata:
    name: state
  spec:
    accessModes: [ReadWriteOncePod]
    {{- with .className }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .size }}
{{- end }}
