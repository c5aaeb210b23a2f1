{{/* The name of every object: the release's name, with the chart's name unless it is part of it. */}}
{{- define "tcptrace-bpf.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels that select the pods and the service. The ServiceMonitor makes the first one the job, which the alerts expect. */}}
{{- define "tcptrace-bpf.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The labels of every object. */}}
{{- define "tcptrace-bpf.labels" -}}
{{ include "tcptrace-bpf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The image's reference. */}}
{{- define "tcptrace-bpf.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The configuration file. */}}
{{- define "tcptrace-bpf.config" -}}
listen = [{{ printf "%s:%v" .Values.listenAddress .Values.port | quote }}]
{{- if .Values.webConfig.secretName }}
web-config = "/etc/tcptrace-bpf-web/web.yml"
{{- end }}
{{ .Values.config }}
{{- end -}}

{{/* The check of a probe. The kubelet connects to the node's address, unless the tracer listens on another one only. */}}
{{- define "tcptrace-bpf.check" -}}
{{- $host := trimAll "[]" .Values.listenAddress -}}
{{- $any := has $host (list "0.0.0.0" "::") -}}
{{- if and .Values.webConfig.secretName .Values.webConfig.password -}}
tcpSocket:
  port: metrics
  {{- if not $any }}
  host: {{ $host | quote }}
  {{- end }}
{{- else -}}
httpGet:
  path: /readyz
  port: metrics
  {{- if not $any }}
  host: {{ $host | quote }}
  {{- end }}
  {{- if and .Values.webConfig.secretName .Values.webConfig.tls }}
  scheme: HTTPS
  {{- end }}
{{- end -}}
{{- end -}}
